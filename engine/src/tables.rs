//! What a proxy decides with: the compiled form of its resources.
//!
//! [`Tables`] is an immutable value that is cheap to clone; an update makes a new one that shares what did not change.

mod access;
mod cluster;
mod listener;
mod names;
mod outlier;
mod places;
mod retry;
mod route;
mod seen;
mod tls;
mod usage;
mod waiting;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub use access::{Access, AccessPolicy, Check, ClaimTest, Need, Provider, Rbac, Rules, TokenRule, Tokens};
pub use cluster::{Cluster, ClusterSpec, Discovery, Endpoint, Endpoints, Identity, Lb, Load, Upstream};
pub use listener::{
    Chain, ChainMatch, Fault, FaultShare, Filter, Http, Inspect, Listener, PathPolicy, Ports, Routes, Slashes, Tcp,
    Upgrades,
};
pub use names::{Name, NameMap};
pub use outlier::{Ejections, Health, Outlier};
pub use retry::{Retry, RetryOn};
pub use route::{
    Action, Direct, Domain, Forward, HeaderMatch, HeaderTest, HostRewrite, Origin, PathMatch, PathRewrite, Redirect,
    RedirectPath, Route, RouteTable, Subject, VirtualHost, WeightedCluster,
};
pub use seen::{Seen, ServerName};
pub use tls::{ClientTls, ServerTls, SocketMatch, Words, alpn};
pub use usage::{Limits, RetryLimit, Usage, take_one};
pub use waiting::{Place, Waiting};

/// Everything that a proxy decides with, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    pub(crate) listeners: NameMap<Arc<Listener>>,
    pub(crate) by_address: Arc<HashMap<SocketAddr, Arc<Listener>, foldhash::fast::FixedState>>,
    pub(crate) routes: NameMap<Arc<RouteTable>>,
    pub(crate) clusters: NameMap<Arc<Cluster>>,
    pub(crate) places: places::Places,
}

impl Tables {
    /// A listener by its name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get_str(name)
    }

    /// A listener by its name, as a proxy's own tables have it.
    #[must_use]
    pub fn listener_of(&self, name: &Name) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// All listeners, in no order.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.entries().map(|(_, listener)| listener)
    }

    /// The listeners that have a socket of their own, in no order.
    pub fn bound(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners().filter(|listener| listener.bind)
    }

    /// The listener for a connection accepted by `accepted` that was going to `destination`.
    ///
    /// If `accepted` hands over by original destination, that is the listener at exactly that address, else the one
    /// at any address with that port, else `accepted` itself.
    #[must_use]
    pub fn hand_over<'t>(&'t self, accepted: &'t Arc<Listener>, destination: SocketAddr) -> &'t Arc<Listener> {
        if !accepted.use_original_dst {
            return accepted;
        }
        let any: SocketAddr = match destination {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, destination.port()).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, destination.port()).into(),
        };
        let found = self.by_address.get(&destination).or_else(|| self.by_address.get(&any));
        // A connection that was really made to our own port must not be handed over in a circle.
        found.filter(|found| !found.bind).unwrap_or(accepted)
    }

    /// A route table by its name.
    #[must_use]
    pub fn route_table(&self, name: &Name) -> Option<&Arc<RouteTable>> {
        self.routes.get(name)
    }

    /// All route tables that came by name, in no order.
    pub fn route_tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.routes.entries().map(|(_, table)| table)
    }

    /// A cluster by its name.
    #[must_use]
    pub fn cluster(&self, name: &Name) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// TLS for a connection that its caller makes to the address of an endpoint: that of a cluster that has the endpoint, for nobody
    /// but the endpoint's own account. `None` is clear text: no cluster has it, or none that calls it by TLS.
    #[must_use]
    pub fn tls_to(&self, address: SocketAddr) -> Option<Arc<ClientTls>> {
        self.places.clusters_at(address).find_map(|name| {
            let cluster = self.clusters.get(name)?;
            let endpoint = cluster.endpoints.as_ref()?.all().iter().find(|endpoint| endpoint.address == address)?;
            Some(cluster.spec.tls_for(endpoint)?.for_one(endpoint))
        })
    }

    /// A cluster by its name as text.
    #[must_use]
    pub fn cluster_named(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get_str(name)
    }

    /// All clusters, in no order.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.entries().map(|(_, cluster)| cluster)
    }
}
