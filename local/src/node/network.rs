//! The mesh's own network: its root namespace, and one routed interface per pod.
//!
//! ```text
//! pod eth0 10.244.x.y/32 ── veth ── mesh root (10.244.0.1 on lo, forwards, nftables) ── veth ── pod
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
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
        netlink.add_address(LOOPBACK, address)?;
    }
    // Service addresses need a route although they are translated before they are used; rules refuse the others.
    netlink.add_route(SERVICE_NETWORK.0, SERVICE_NETWORK.1, Via::LinkFrom(LOOPBACK, NODE_ADDRESS))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
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
    /// The namespaces that its containers share.
    pub(crate) namespaces: Arc<PodNamespaces>,
    network: Arc<Network>,
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
        let created = self.create(address, host_name.to_owned()).await;
        match created {
            Ok(namespaces) => Ok(PodNetwork { address, namespaces, network: Arc::clone(self) }),
            Err(error) => {
                self.release(address);
                Err(error)
            }
        }
    }

    async fn create(&self, address: Ipv4Addr, host_name: String) -> io::Result<Arc<PodNamespaces>> {
        let name = format!("pod{:04x}", u32::from(address) & 0xffff);
        // A netlink socket belongs to the namespace in which it was opened: this one stays the root's.
        let mut root = Netlink::open()?;
        let root_name = name.clone();
        let namespaces = PodNamespaces::create(host_name, move |namespace| {
            root.add_pair(&root_name, "eth0", namespace)?;
            let mut pod = Netlink::open()?;
            pod.set_up(LOOPBACK)?;
            let eth0 = link_index("eth0")?;
            pod.add_address(eth0, address)?;
            pod.set_up(eth0)?;
            pod.add_route(NODE_ADDRESS, 32, Via::Link(eth0))?;
            pod.add_route(Ipv4Addr::UNSPECIFIED, 0, Via::Gateway(NODE_ADDRESS, eth0))?;
            // As container runtimes do: ports below 1024 and ping need no capability inside a pod.
            std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")
        })
        .await?;
        let mut root = Netlink::open()?;
        let index = link_index(&name)?;
        root.set_up(index)?;
        root.add_route(address, 32, Via::Link(index))?;
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
