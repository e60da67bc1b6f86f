//! Where a connection came in, and who made it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::spiffe::SpiffeId;

use crate::peers::PeerId;
use crate::principals::Principal;

/// Where a connection came in.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Who made it.
    pub(crate) peer: SocketAddr,
    /// The proxy's own address that it was accepted at.
    pub(crate) local: SocketAddr,
    /// Where it was going.
    pub(crate) destination: SocketAddr,
    /// The workload that made it, if it is inbound and known.
    pub(crate) source: PeerId,
    /// The pod's own address, if the application beside the proxy made it.
    pub(crate) own: Option<IpAddr>,
    /// Who has proved by TLS to have made it.
    pub(crate) identity: Option<Arc<SpiffeId>>,
    /// The same for counters.
    pub(crate) principal: Principal,
}
