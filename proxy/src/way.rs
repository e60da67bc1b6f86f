//! The way to an endpoint: its address, and the TLS that is spoken to it.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use engine::tables::{ClientTls, Cluster, Endpoint};

use crate::arrival::Arrival;

/// How an endpoint is reached. A connection is used again only for what is the same way.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The TLS that is spoken to it; `None` is clear text.
    pub(crate) tls: Option<Arc<ClientTls>>,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Arc<ClientTls>, &Arc<ClientTls>)| Arc::ptr_eq(one, other) || one == other;
        self.address == other.address
            && self.tls.is_some() == other.tls.is_some()
            && self.tls.as_ref().zip(other.tls.as_ref()).is_none_or(is_same)
    }
}

impl Eq for Way {}

impl Hash for Way {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

/// The place that was picked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// How it is reached.
    pub(crate) way: Way,
    /// What is known of it; nothing for original destinations.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
}

impl Target {
    /// An endpoint of the cluster, for a connection that came in so.
    ///
    /// What an application sends to itself never leaves the pod, and passes no proxy that could end TLS.
    pub(crate) fn at(cluster: &Cluster, endpoint: &Arc<Endpoint>, arrival: &Arrival) -> Self {
        let is_own = arrival.own == Some(endpoint.address.ip());
        let tls = cluster.spec.tls_for(endpoint).filter(|_| !is_own).cloned();
        Target { way: Way { address: endpoint.address, tls }, endpoint: Some(Arc::clone(endpoint)) }
    }
}
