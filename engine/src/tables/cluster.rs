//! Compiled clusters and endpoints.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Ejections, Health, Limits, Name, Outlier, SocketMatch, Usage, Words};

/// A cluster with the endpoints that it has now.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// What the Cluster resource said.
    pub spec: Arc<ClusterSpec>,
    /// Where it is served: from EDS or from the resource itself. `None` until EDS has answered, and for clusters
    /// that connect to the original destination.
    pub endpoints: Option<Arc<Endpoints>>,
    /// Counters that the data path keeps; they survive updates of the cluster.
    pub usage: Arc<Usage>,
}

/// What a Cluster resource said.
#[derive(Debug, PartialEq)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: Name,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How one of them is picked.
    pub lb: Lb,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// What is spoken to the endpoints.
    pub upstream: Upstream,
    /// Bounds on what is open at one time.
    pub limits: Limits,
    /// How many requests a connection may have; `None` is any number.
    pub requests_per_connection: Option<NonZeroU32>,
    /// When endpoints are ejected; `None` is never.
    pub outlier: Option<Outlier>,
    /// How endpoints are connected to; empty is in clear text.
    pub sockets: Vec<SocketMatch>,
    /// Whether original destinations that are endpoints of other clusters are called by those clusters' TLS.
    pub secures_known: bool,
    /// The service that the cluster belongs to, for telemetry.
    pub service: Option<Identity>,
}

/// A service as telemetry names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Host name.
    pub host: Box<str>,
    /// Short name.
    pub name: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
}

/// How a cluster's endpoints are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Listed in the cluster itself.
    Static,
    /// By EDS, under this name.
    Eds(Name),
    /// The address that the connection was going to.
    OriginalDestination,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lb {
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// Two at random, the one with fewer requests in flight.
    LeastRequest,
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// What the caller speaks.
    AsDownstream,
}

/// The endpoints of a cluster.
#[derive(Debug)]
pub struct Endpoints {
    /// Name of the assignment that they came in.
    pub name: Name,
    /// First those that take new requests, then the others.
    pub(crate) all: Box<[Arc<Endpoint>]>,
    pub(crate) ready: usize,
    /// Position of the round robin; survives updates.
    pub(crate) turn: Arc<AtomicUsize>,
    /// Those of them that are left out for a while.
    pub ejections: Arc<Ejections>,
}

impl Endpoints {
    /// All endpoints: first those that take new requests, then those that drain or are ill.
    #[must_use]
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// The endpoints that new requests go to: the ready ones, or all if none is ready.
    #[must_use]
    pub fn candidates(&self) -> &[Arc<Endpoint>] {
        if self.ready == 0 { &self.all } else { &self.all[..self.ready] }
    }
}

/// A place where a cluster is served.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it takes new requests.
    pub ready: bool,
    /// Whether it is about to end, rather than ill, when it is not ready.
    pub draining: bool,
    /// The workload, for telemetry; empty when nothing was said.
    pub workload: Box<str>,
    /// Other addresses of the same workload, which its connections may come from.
    pub others: Box<[IpAddr]>,
    /// The workload's namespace.
    pub namespace: Box<str>,
    /// The workload's `app`.
    pub app: Box<str>,
    /// The workload's `version`.
    pub version: Box<str>,
    /// The workload's service account.
    pub service_account: Box<str>,
    /// Whether a proxy of the mesh stands beside it, which takes HTTP/2 for any application that speaks HTTP.
    pub speaks_h2: bool,
    /// Words by which the cluster chooses how to connect to it, in their order.
    pub socket_words: Words,
    /// Counters that the data path keeps; they survive updates as long as the address stays in the cluster.
    pub load: Arc<Load>,
}

/// Counters of one endpoint of one cluster. The engine makes and reads them; the data path writes them.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests, or opaque connections, in flight.
    pub in_flight: AtomicU32,
    /// All of them so far.
    pub total: AtomicU64,
    /// Those that failed at the endpoint so far.
    pub failed: AtomicU64,
    /// Open connections.
    pub connections: AtomicU32,
    /// Whether it is ejected.
    pub health: Health,
}

impl Load {
    /// Requests in flight now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}
