//! Model → xDS resources, one pure function per resource.
//!
//! Names and contents are the same for every proxy except where [`is_shared`] says otherwise: the inbound listener and
//! inbound clusters belong to one workload, and a route configuration (or a cluster) whose rules (or policies) have a
//! `source` depends on who asks. Versions are hashes of the encoded bytes, which are in one fixed order.

mod access;
mod affected;
mod bootstrap;
mod chain;
mod clusters;
mod endpoints;
mod gateway;
mod inbound;
mod listeners;
mod message;
mod protocol;
mod resilience;
mod routes;
mod rules;
mod tls;
mod wire;

use std::num::NonZeroU16;

use api::model::{Host, Labels, Model, Node, Role, Service};
use bytes::Bytes;

use crate::proto::{Kind, protobuf};

pub use access::{Applied, Said, authentication, mtls_at};
pub use affected::{Affected, affected};
pub use bootstrap::{Bootstrap, envoy_bootstrap};
pub use clusters::{cluster, cluster_names, cluster_names_of, clusters};
pub use endpoints::{cluster_load_assignment, endpoints};
pub use listeners::{listener, listener_names, listeners};
pub use routes::{route_config, route_names, route_resource, routes};
pub use rules::{in_order, rules_for};

/// A named, versioned, encoded resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its type.
    pub kind: Kind,
    /// Its name, unique within its type.
    pub name: String,
    /// Hash of its content, equal on all replicas and after a restart.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

impl Resource {
    /// The type URL.
    #[must_use]
    pub fn type_url(&self) -> &'static str {
        self.kind.type_url()
    }

    /// The message as discovery responses carry it.
    #[must_use]
    pub fn to_any(&self) -> protobuf::Any {
        protobuf::Any { type_url: self.type_url().to_owned(), value: self.body.to_vec() }
    }
}

/// Makes a resource of an encoding whose maps are in any order; its version is the hash of `canonical`, which has one.
pub(crate) fn resource_of(kind: Kind, name: String, body: Vec<u8>, canonical: &[u8]) -> Resource {
    wire::resource_of(kind, name, body, canonical)
}

/// The name of a cluster: `outbound|<port>|<labels>|<host>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName {
    /// The service.
    pub host: Host,
    /// The service's port.
    pub port: NonZeroU16,
    /// Labels that the endpoints have; empty is all endpoints.
    pub labels: Labels,
}

impl ClusterName {
    /// Names the cluster of all endpoints of a service's port.
    #[must_use]
    pub fn of(host: &Host, port: NonZeroU16) -> Self {
        ClusterName { host: host.clone(), port, labels: Labels::new() }
    }

    /// Reads a name; `None` if it is none of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        let ("outbound", port, labels, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?) else {
            return None;
        };
        let labels = match labels {
            "" => Labels::new(),
            labels => labels
                .split(',')
                .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
                .collect::<Option<_>>()?,
        };
        Some(ClusterName { host: Host::new(host), port: port.parse().ok()?, labels })
    }
}

impl std::fmt::Display for ClusterName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "outbound|{}|", self.port)?;
        for (at, (key, value)) in self.labels.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        write!(f, "|{}", self.host)
    }
}

/// The name of a service port's route configuration: `<host>:<port>`.
#[must_use]
pub fn route_name(host: &Host, port: NonZeroU16) -> String {
    format!("{host}:{port}")
}

/// Everything that a node gets, by type: listeners, routes, clusters, endpoints.
#[must_use]
pub fn everything(model: &Model, node: &Node) -> Vec<Resource> {
    let mut all = listeners(model, node);
    all.extend(routes(model, node));
    all.extend(clusters(model, node));
    all.extend(endpoints(model));
    all
}

/// Generates one resource by its type and name, if the node has it.
#[must_use]
pub fn resource(model: &Model, node: &Node, kind: Kind, name: &str) -> Option<Resource> {
    match kind {
        Kind::Listener => listener(model, node, name),
        Kind::Route => route_resource(model, node, name),
        Kind::Cluster => cluster(model, node, name),
        Kind::Endpoints => cluster_load_assignment(model, &ClusterName::parse(name)?),
    }
}

/// Whether a resource is the same for every node of a role, so that it can be kept once for all of them.
#[must_use]
pub fn is_shared(model: &Model, role: Role, kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Listener => !matches!(name, listeners::INBOUND | listeners::OUTBOUND),
        Kind::Endpoints => true,
        Kind::Cluster => match ClusterName::parse(name) {
            Some(cluster) => !clusters::depends_on_source(model, &cluster.host),
            None => true,
        },
        Kind::Route => match role {
            Role::Gateway => !rules::any_depends_on_source(model),
            Role::Sidecar => match name.rsplit_once(':') {
                Some((host, _)) => !rules::depends_on_source(model, &Host::new(host)),
                None => true,
            },
        },
    }
}

/// A service's virtual address and port as a listener's name.
#[must_use]
pub fn listener_name(address: std::net::IpAddr, port: NonZeroU16) -> String {
    format!("{address}_{port}")
}

/// Whether any service has an address of IPv6, so that connections to one may come.
pub(crate) fn has_ipv6_services(model: &Model) -> bool {
    model.services.values().any(|service| service.addresses.iter().any(std::net::IpAddr::is_ipv6))
}

/// Whether connections to a service go to an address of its own.
pub(crate) fn has_virtual_address(service: &Service) -> bool {
    !service.addresses.is_empty() && service.resolution == api::model::Resolution::Virtual
}
