//! The data path as a whole: what all connections share, and how listeners are served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::tables::{
    Cluster, ClusterSpec, Discovery, Lb, Limits as ClusterLimits, Listener, Name, RetryLimit, Tables, Upstream,
};
use runtime::svid::{self, Svids};
use runtime::{Drain, Tasks};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::admission::Admission;
use crate::arrival::Arrival;
use crate::authorise::Authoriser;
use crate::codec::Limits;
use crate::connect::Connector;
use crate::failure::Failure;
use crate::frames::FrameLimits;
use crate::metrics::{Identity, MAX_SERIES, Metrics};
use crate::multiplex::Multiplex;
use crate::origdst::{canonical, original_destination};
use crate::pool::Pool;
use crate::principals::Principal;
use crate::tls::Tls;
use crate::trace_context::Tracing;

/// How the data path behaves, apart from what the tables say.
#[derive(Debug)]
pub struct Settings {
    /// Socket mark of the proxy's own connections; `None` sets none.
    pub mark: Option<u32>,
    /// Who the proxy stands beside, or is.
    pub identity: Identity,
    /// What the proxy shows to others, and holds them against.
    pub svids: Svids,
    /// Where requests are logged; `None` is nowhere.
    pub access_log: Option<AccessLog>,
    /// Whether a caller that is refused is told by which policy.
    pub explain_denials: bool,
    /// Whether the application is told in `X-Forwarded-Client-Cert` who calls.
    pub client_cert: bool,
    /// How traces begin and are told of.
    pub tracing: Tracing,
    /// Kinds of traffic that are counted apart.
    pub max_series: usize,
    /// Bounds of heads.
    pub limits: Limits,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// How long a head, or the preface of HTTP/2, may take from its first byte.
    pub head_timeout: Duration,
    /// How long a caller's TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the body of a request may come without a byte.
    pub body_idle_timeout: Duration,
    /// Connections of peers at once.
    pub max_connections: usize,
    /// Connections at once of one source from outside the pod: an address, or a network of 64 bits.
    pub max_connections_per_source: u32,
    /// How long a connection may be without a byte that has become a WebSocket or tunnel.
    pub upgrade_idle_timeout: Duration,
    /// How long an opaque connection may be without a byte.
    pub tcp_idle_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub stall_timeout: Duration,
    /// Bounds of connections of HTTP/2.
    pub h2: H2,
}

/// Bounds of connections of HTTP/2.
#[derive(Debug, Clone, Copy)]
pub struct H2 {
    /// Streams that a client inside the mesh may have open on one connection: another proxy sends the requests of many.
    pub streams: u32,
    /// Streams that a client outside the mesh may have open on one connection.
    pub gateway_streams: u32,
    /// Frames that bring nothing.
    pub frames: FrameLimits,
}

impl Default for H2 {
    fn default() -> Self {
        H2 { streams: 1000, gateway_streams: 100, frames: FrameLimits::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mark: None,
            identity: Identity::default(),
            svids: svid::channel().1,
            access_log: None,
            explain_denials: false,
            client_cert: false,
            tracing: Tracing::default(),
            max_series: MAX_SERIES,
            limits: Limits::default(),
            idle_timeout: Duration::from_secs(3600),
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(300),
            h2: H2::default(),
            upgrade_idle_timeout: Duration::from_secs(3600),
            tcp_idle_timeout: Duration::from_secs(3600),
            body_idle_timeout: Duration::from_secs(300),
            max_connections: 40_000,
            max_connections_per_source: 20_000,
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct DataPath {
    pub(crate) tables: Arc<ArcSwap<Tables>>,
    pub(crate) connector: Connector,
    pub(crate) tls: Tls,
    pub(crate) pool: Pool,
    pub(crate) multiplex: Multiplex,
    pub(crate) h2: H2,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) authoriser: Authoriser,
    pub(crate) client_cert: bool,
    pub(crate) tracing: Tracing,
    pub(crate) limits: Limits,
    pub(crate) idle_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) upgrade_idle_timeout: Duration,
    pub(crate) tcp_idle_timeout: Duration,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) drain: Drain,
    started: Instant,
    /// The cluster of connections that are not served.
    pub(crate) refused: Arc<Cluster>,
}

impl DataPath {
    /// A data path that decides with `tables`, whatever they hold at the time of each request.
    #[must_use]
    pub fn new(tables: Arc<ArcSwap<Tables>>, settings: Settings, drain: Drain) -> Arc<Self> {
        let admission = Admission::new(settings.max_connections, settings.max_connections_per_source);
        let metrics = Metrics::with(
            settings.identity,
            settings.svids.clone(),
            Arc::clone(&tables),
            settings.max_series,
            admission,
        );
        Arc::new(DataPath {
            tls: Tls::new(settings.svids, settings.handshake_timeout, Arc::clone(&metrics)),
            connector: Connector { mark: settings.mark },
            pool: Pool::default(),
            multiplex: Multiplex::new(settings.h2.frames, settings.limits.head),
            h2: settings.h2,
            metrics,
            access_log: settings.access_log,
            authoriser: Authoriser::new(settings.explain_denials),
            client_cert: settings.client_cert,
            tracing: settings.tracing,
            limits: settings.limits,
            idle_timeout: settings.idle_timeout,
            head_timeout: settings.head_timeout,
            upgrade_idle_timeout: settings.upgrade_idle_timeout,
            tcp_idle_timeout: settings.tcp_idle_timeout,
            body_idle_timeout: settings.body_idle_timeout,
            stall_timeout: settings.stall_timeout,
            drain,
            started: Instant::now(),
            refused: Arc::new(original_destinations("-")),
            tables,
        })
    }

    /// How often rules have refused, to be registered as a collector.
    #[must_use]
    pub fn admissions(&self) -> crate::authorise::Collected {
        crate::authorise::Collected(Arc::clone(&self.authoriser.counters))
    }

    /// The counters, to be registered as a collector.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The access log, if there is one.
    #[must_use]
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// Milliseconds since a moment before the first connection; never 0.
    #[must_use]
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The tasks of connections to upstreams that speak HTTP/2; to be stopped when nothing is served any more.
    #[must_use]
    pub fn upstream_tasks(&self) -> &Tasks {
        &self.multiplex.tasks
    }

    /// Number of open connections to upstreams that speak HTTP/2.
    #[must_use]
    pub fn h2_upstreams(&self) -> usize {
        self.multiplex.len()
    }

    /// Number of idle upstream connections.
    #[must_use]
    pub fn idle_upstreams(&self) -> usize {
        self.pool.len()
    }

    /// Closes idle upstream connections in time, until the drain begins. To be run once, as a task.
    pub async fn sweep(self: Arc<Self>) {
        tokio::select! {
            () = self.pool.sweep() => {}
            () = self.drain.started() => {}
        }
    }

    /// Gives up what was made for another identity whenever the proxy's own becomes another, as when its trust domain is
    /// renamed; never ends. A renewal of the same identity changes nothing for connections that there are.
    pub async fn follow_identity(self: Arc<Self>) {
        let mut changes = self.tls.svids().changes();
        let mut known = self.tls.svids().id();
        while changes.changed().await.is_ok() {
            let now = self.tls.svids().id();
            if known.is_some() && known != now {
                self.tls.forget();
                self.pool.clear();
                self.multiplex.retire();
            }
            known = now;
        }
        std::future::pending().await
    }

    /// Where a connection came in, and where it was going.
    pub(crate) fn arrival(&self, socket: &TcpStream, listener: &Listener) -> Result<Arrival, Failure> {
        let is_intercepted = listener.use_original_dst || listener.restores_original_dst;
        let read = || -> io::Result<(SocketAddr, SocketAddr, SocketAddr)> {
            let local = socket.local_addr()?;
            let destination = if is_intercepted { original_destination(socket)? } else { canonical(local) };
            Ok((socket.peer_addr()?, local, destination))
        };
        let (peer, local, destination) = read().map_err(|_| Failure::DownstreamClosed)?;
        let peer = canonical(peer);
        Ok(Arrival {
            peer,
            local: canonical(local),
            destination,
            source: self.metrics.peers.at(peer.ip()),
            own: None,
            identity: None,
            principal: Principal::default(),
        })
    }
}

/// What is not configured is not bounded by configuration.
const NO_LIMITS: ClusterLimits = ClusterLimits {
    connections: u32::MAX,
    pending: u32::MAX,
    requests: u32::MAX,
    retries: RetryLimit::AtMost(u32::MAX),
};

/// A cluster for connections that no configured one is for.
fn original_destinations(name: &str) -> Cluster {
    let spec = ClusterSpec {
        name: Name::new(name),
        discovery: Discovery::OriginalDestination,
        lb: Lb::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        upstream: Upstream::AsDownstream,
        limits: NO_LIMITS,
        requests_per_connection: None,
        outlier: None,
        sockets: Vec::new(),
        secures_known: false,
        service: None,
    };
    Cluster { spec: Arc::new(spec), endpoints: None, usage: Arc::default() }
}
