//! The mesh's own network: its root namespace, and one routed interface per pod.
//!
//! ```text
//! pod eth0 10.244.x.y/32 ── veth ── mesh root (10.244.0.1 on lo, forwards, nftables) ── veth ── pod
//!     and fd10:244::x:y
//! ```
//!
//! Every pod has an IPv6 address too, where the machine has IPv6. Its neighbour there is `fe80::1`, which every interface
//! of the root has: neighbours are looked for by the addresses of the link, and the node's own is on none.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::netlink::{Netlink, Via, link_index};
use super::netns::PodNamespaces;

/// Address of the mesh's root namespace as pods see it: their gateway, and their node.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Address of the API server's Service.
pub(crate) const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Address of the cluster's DNS server.
pub(crate) const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The network of Services.
pub(crate) const SERVICE_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// Address of the mesh's root namespace in IPv6.
pub(crate) const NODE_ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 1);
/// The network of Services that are reached by IPv6.
pub(crate) const SERVICE_NETWORK_6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, 0), 112);
/// What every interface of the root is called by its pod.
const NEIGHBOUR_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// First address of the pods' network, 10.244.0.0/16.
const POD_NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);
/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// Sets up the root namespace: loopback, the node's addresses, forwarding.
///
/// # Errors
/// When the system refuses.
pub(crate) fn set_up_root() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.set_up(LOOPBACK)?;
    for address in [NODE_ADDRESS, API_ADDRESS, DNS_ADDRESS] {
        netlink.add_address(LOOPBACK, address.into())?;
    }
    // Service addresses need a route although they are translated before they are used; rules refuse the others.
    let from = |address: IpAddr| Via::LinkFrom(LOOPBACK, address);
    netlink.add_route(SERVICE_NETWORK.0.into(), SERVICE_NETWORK.1, from(NODE_ADDRESS.into()))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if has_ipv6() {
        netlink.add_address(LOOPBACK, NODE_ADDRESS_6.into())?;
        netlink.add_route(SERVICE_NETWORK_6.0.into(), SERVICE_NETWORK_6.1, from(NODE_ADDRESS_6.into()))?;
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        use_addresses_at_once()?;
    }
    Ok(())
}

/// Whether the calling thread's network namespace has IPv6.
pub(crate) fn has_ipv6() -> bool {
    let switch = Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    std::fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0")
}

/// Lets interfaces that are made later use their own link-local addresses without asking whether somebody else has them.
fn use_addresses_at_once() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
}

/// Hands out addresses to pods and connects them.
#[derive(Debug, Default)]
pub(crate) struct Network {
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    used: BTreeSet<u32>,
    last: u32,
}

/// The network of one pod; its address is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    /// Its other address, where the machine has IPv6.
    pub(crate) address_6: Option<Ipv6Addr>,
    /// The namespaces that its containers share.
    pub(crate) namespaces: Arc<PodNamespaces>,
    network: Arc<Network>,
}

impl PodNetwork {
    /// All addresses, the one that the pod is known by first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let others = self.address_6.map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.address)).chain(others).collect()
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        self.network.release(self.address);
    }
}

impl Network {
    /// Makes a pod's namespaces with an interface, an address and a route to everybody else.
    ///
    /// # Errors
    /// When the system refuses, or all addresses are taken.
    pub(crate) async fn connect(self: &Arc<Self>, host_name: &str) -> io::Result<PodNetwork> {
        let address = self.take()?;
        let address_6 = has_ipv6().then(|| in_ipv6(address));
        let created = self.create(address, address_6, host_name.to_owned()).await;
        match created {
            Ok(namespaces) => Ok(PodNetwork { address, address_6, namespaces, network: Arc::clone(self) }),
            Err(error) => {
                self.release(address);
                Err(error)
            }
        }
    }

    async fn create(
        &self,
        address: Ipv4Addr,
        address_6: Option<Ipv6Addr>,
        host_name: String,
    ) -> io::Result<Arc<PodNamespaces>> {
        let name = format!("pod{:04x}", u32::from(address) & 0xffff);
        // A netlink socket belongs to the namespace in which it was opened: this one stays the root's.
        let mut root = Netlink::open()?;
        let root_name = name.clone();
        let namespaces = PodNamespaces::create(host_name, move |namespace| {
            if address_6.is_some() {
                use_addresses_at_once()?;
            }
            root.add_pair(&root_name, "eth0", namespace)?;
            let mut pod = Netlink::open()?;
            pod.set_up(LOOPBACK)?;
            let eth0 = link_index("eth0")?;
            pod.add_address(eth0, address.into())?;
            pod.set_up(eth0)?;
            pod.add_route(NODE_ADDRESS.into(), 32, Via::Link(eth0))?;
            pod.add_route(Ipv4Addr::UNSPECIFIED.into(), 0, Via::Gateway(NODE_ADDRESS.into(), eth0))?;
            if let Some(address) = address_6 {
                pod.add_address(eth0, address.into())?;
                pod.add_route(NEIGHBOUR_6.into(), 128, Via::Link(eth0))?;
                pod.add_route(Ipv6Addr::UNSPECIFIED.into(), 0, Via::Gateway(NEIGHBOUR_6.into(), eth0))?;
            }
            // As container runtimes do: ports below 1024 and ping need no capability inside a pod.
            std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")
        })
        .await?;
        let mut root = Netlink::open()?;
        let index = link_index(&name)?;
        root.set_up(index)?;
        root.add_route(address.into(), 32, Via::Link(index))?;
        if let Some(address) = address_6 {
            root.add_address(index, NEIGHBOUR_6.into())?;
            root.add_route(address.into(), 128, Via::Link(index))?;
        }
        Ok(namespaces)
    }

    fn take(&self) -> io::Result<Ipv4Addr> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // From the second block on, so that no pod looks like the node; round robin, so that an address rests before
        // it is used again.
        let (first, last) = (0x0100u32, 0xfffeu32);
        let mut candidate = addresses.last.max(first - 1);
        for _ in first..=last {
            candidate = if candidate >= last { first } else { candidate + 1 };
            let octet = candidate & 0xff;
            if octet != 0 && octet != 0xff && addresses.used.insert(candidate) {
                addresses.last = candidate;
                return Ok(Ipv4Addr::from(POD_NETWORK | candidate));
            }
        }
        Err(io::Error::other("all addresses of the pods' network are taken"))
    }

    fn release(&self, address: Ipv4Addr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.used.remove(&(u32::from(address) & 0xffff));
    }
}

/// The IPv6 address that goes with a pod's address: `fd10:244::1:2` with 10.244.1.2.
fn in_ipv6(address: Ipv4Addr) -> Ipv6Addr {
    let [_, _, high, low] = address.octets();
    let [first, second, ..] = NODE_ADDRESS_6.segments();
    Ipv6Addr::new(first, second, 0, 0, 0, 0, high.into(), low.into())
}
