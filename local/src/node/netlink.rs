//! Routing netlink, as far as pods need it: links, addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

/// A routing socket of the network namespace in which it was opened.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Via {
    /// To neighbours on the link itself.
    Link(u32),
    /// To a gateway that is on the link.
    Gateway(IpAddr, u32),
    /// To neighbours on the link, with this address as the sender's.
    LinkFrom(u32, IpAddr),
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings a link up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let message = Message::new(libc::RTM_NEWLINK, 0).link_header(index, up, up);
        self.ask(message)
    }

    /// Makes a pair of virtual interfaces: `name` here, `peer` in the network namespace of the descriptor.
    pub(crate) fn add_pair(&mut self, name: &str, peer: &str, peer_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let namespace = (peer_namespace.as_raw_fd() as u32).to_ne_bytes();
        let mut message = Message::new(libc::RTM_NEWLINK, CREATE).link_header(0, 0, 0);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |message| {
            message.text(libc::IFLA_INFO_KIND, "veth");
            message.nest(libc::IFLA_INFO_DATA, |message| {
                message.nest(VETH_INFO_PEER, |message| {
                    message.bytes.extend_from_slice(&link_header(0, 0, 0));
                    message.text(libc::IFLA_IFNAME, peer);
                    message.attribute(libc::IFLA_NET_NS_FD, &namespace);
                });
            });
        });
        self.ask(message)
    }

    /// Gives a link an address of its own (a /32 or /128), usable at once: nobody else can have it.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
        let (family, bits) = family(address);
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let is_of_link = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let scope = if is_of_link { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        message.bytes.extend_from_slice(&[family, bits, flags, scope]);
        message.bytes.extend_from_slice(&index.to_ne_bytes());
        message.address(libc::IFA_LOCAL, address);
        message.address(libc::IFA_ADDRESS, address);
        self.ask(message)
    }

    /// Adds a route to a network.
    pub(crate) fn add_route(&mut self, network: IpAddr, prefix: u8, via: Via) -> io::Result<()> {
        let scope = match via {
            Via::Link(_) | Via::LinkFrom(..) => libc::RT_SCOPE_LINK,
            Via::Gateway(..) => libc::RT_SCOPE_UNIVERSE,
        };
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
        let table = libc::RT_TABLE_MAIN;
        let head = [family(network).0, prefix, 0, 0, table, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST];
        message.bytes.extend_from_slice(&head);
        message.bytes.extend_from_slice(&0u32.to_ne_bytes());
        if prefix > 0 {
            message.address(libc::RTA_DST, network);
        }
        if let Via::Gateway(gateway, _) = via {
            message.address(libc::RTA_GATEWAY, gateway);
        }
        if let Via::LinkFrom(_, source) = via {
            message.address(libc::RTA_PREFSRC, source);
        }
        let (Via::Link(index) | Via::Gateway(_, index) | Via::LinkFrom(index, _)) = via;
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.ask(message)
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        let code = answer.get(16..20).filter(|_| length >= 20).and_then(|code| <[u8; 4]>::try_from(code).ok());
        match code.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::Error::other("short answer from routing netlink")),
        }
    }
}

/// The kernel's number of an address' family, and the bits of an address.
fn family(address: IpAddr) -> (u8, u8) {
    match address {
        IpAddr::V4(_) => (libc::AF_INET as u8, Ipv4Addr::BITS as u8),
        IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
    }
}

/// Index of a link of the calling thread's network namespace.
pub(crate) fn link_index(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const VETH_INFO_PEER: u16 = 1;

struct Message {
    bytes: Vec<u8>,
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0u8; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    fn link_header(mut self, index: u32, flags: u32, change: u32) -> Self {
        self.bytes.extend_from_slice(&link_header(index, flags, change));
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |message| message.bytes.extend_from_slice(value));
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |message| {
            message.bytes.extend_from_slice(value.as_bytes());
            message.bytes.push(0);
        });
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}
