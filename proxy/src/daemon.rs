//! The proxy as a whole: what is started in which order, and how it leaves.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::names::proxy_port;
use runtime::drain::Drained;
use runtime::logging::Logging;
use runtime::metrics::Metrics;
use runtime::tasks::TaskFailure;
use runtime::{Drain, Tasks};

use crate::access_log::{AccessLog, Format, FormatError};
use crate::admin::{self, Admin};
use crate::app_probe::Prober;
use crate::codec::Limits;
use crate::data::{self, DataPath};
use crate::identity;
use crate::interception::{self, Intercepted};
use crate::metrics::{self as path_metrics, Identity, PathMetrics};
use crate::quit::Quit;
use crate::readiness::Readiness;
use crate::settings::{ClientCert, Role, Settings};
use crate::snapshot::Snapshots;
use crate::sockets::{BindError, Sockets, bind};
use crate::static_config::{self, StaticError};
use crate::workload_api::{SocketError, WorkloadApi, WorkloadMetrics};
use crate::xds;

/// Why the proxy cannot start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its own connections would come back to it.
    #[error("a sidecar cannot run like this")]
    Intercepted(#[from] Intercepted),
    /// One of its own ports is taken.
    #[error("the {what} port cannot be opened")]
    Port {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: BindError,
    },
    /// The access log cannot be opened.
    #[error("the access log {path} cannot be opened")]
    AccessLog {
        /// Its path.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The access log's format cannot be followed.
    #[error("the format of the access log cannot be used")]
    AccessLogFormat(#[from] FormatError),
    /// The file given with `--config` cannot be the configuration.
    #[error("the configuration cannot be used")]
    Static(#[from] StaticError),
    /// No TLS for the application's probes.
    #[error("the application's probes cannot be made")]
    Probes(#[from] rustls::Error),
    /// The pod's identity cannot be handed out.
    #[error("the socket of the Workload API cannot be opened (MESH_WORKLOAD_SOCKET=off does without)")]
    WorkloadSocket(#[from] SocketError),
    /// The proxy's own identity cannot be taken from files.
    #[error("the identity in MESH_SVID_CERTIFICATE cannot be used")]
    Identity(#[from] crate::identity_files::FilesError),
    /// There is nothing else to do than to hand it out.
    #[error("there is no socket on which the pod's identity could be handed out")]
    NoSocket,
    /// A part of it has failed that it cannot do without.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

/// A running proxy.
pub struct Daemon {
    /// Where the admin port listens.
    pub admin: SocketAddr,
    /// Where metrics are.
    pub metrics: SocketAddr,
    /// Where readiness is.
    pub readiness: SocketAddr,
    /// What is in force.
    pub snapshots: Snapshots,
    /// Who the proxy is to others.
    pub identity: identity::Identity,
    /// Whether traffic may come, and what is served.
    pub ready: Readiness,
    drain: Drain,
    quit: Quit,
    grace: Duration,
    connections: Tasks,
    upstreams: Tasks,
    background: Tasks,
}

/// How long the proxy's own servers may take to end after the drain.
const LAST_GRACE: Duration = Duration::from_secs(1);

impl Daemon {
    /// Starts everything. The process's `logging` is given when the admin port may change it.
    ///
    /// # Errors
    ///
    /// When a port is taken, the configuration file is bad, or a sidecar would intercept itself.
    pub fn start(settings: Settings, logging: Option<Logging>) -> Result<Self, DaemonError> {
        let mark = match settings.role {
            Role::Sidecar => interception::mark()?,
            Role::Gateway | Role::Static(_) => None,
        };
        let own = OwnPorts::open(&settings)?;
        let (drain, snapshots) = (Drain::new(), Snapshots::new());
        let (connections, background) = (Tasks::new(), Tasks::new());
        let metrics = Metrics::new("proxy");
        let identity = identity::Identity::start(&settings, mark, &metrics, &background)?;
        let path = data_path((&settings, mark, &identity), &snapshots, &drain)?;
        metrics.register(|registry| {
            registry.register_collector(Box::new(Arc::clone(path.metrics())));
            registry.register_collector(Box::new(path.admissions()));
            registry.register_collector(Box::new(PathMetrics(Arc::clone(&path))));
        });
        background.spawn_until_cancelled("sweep", Arc::clone(&path).sweep());
        background.spawn_until_cancelled("peers", learn_peers(snapshots.clone(), Arc::clone(path.metrics())));

        let upstreams = path.upstream_tasks().clone();
        background.spawn_until_cancelled("identity", Arc::clone(&path).follow_identity());
        hand_out(&settings, &identity, &metrics, &background)?;
        let mut sockets =
            Sockets::new(snapshots.clone(), Arc::clone(&path), settings.role.clone(), connections.clone());
        let pilot =
            follow((&settings, mark, &identity), &mut sockets, (&snapshots, (&metrics, path.metrics()), &background))?;
        let readiness = Readiness {
            snapshots: snapshots.clone(),
            sockets: sockets.state(),
            pilot: pilot.map(|status| (settings.pilot.address.clone(), status)),
            identity: identity.clone(),
            drain: drain.clone(),
        };
        background.spawn("sockets", sockets.run(background.token().clone()));
        let prober = Prober::new(&settings.app_probes, settings.workload.ip, mark, background.clone())?;
        let admin = Arc::new(Admin {
            snapshots: snapshots.clone(),
            identity: identity.clone(),
            sockets: readiness.sockets.clone(),
            path,
            connections: connections.clone(),
            metrics: Arc::clone(&metrics),
            logging,
            readiness: readiness.clone(),
            drain: drain.clone(),
            role: settings.role,
            workload: settings.workload,
            started: SystemTime::now(),
        });
        let daemon = Daemon {
            admin: own.admin.1,
            metrics: own.metrics.1,
            readiness: own.readiness.1,
            snapshots,
            identity,
            ready: readiness.clone(),
            drain,
            quit: Quit::default(),
            grace: settings.drain,
            connections,
            upstreams,
            background,
        };
        let quit = daemon.quit.router();
        daemon.serve("admin", own.admin.0, admin::router(&admin, quit.clone()));
        daemon.serve("metrics", own.metrics.0, metrics.router().merge(prober.router()).merge(quit));
        daemon.serve("readiness", own.readiness.0, readiness.router("/healthz/ready"));
        let Daemon { admin, metrics, readiness, .. } = &daemon;
        tracing::info!(%admin, %metrics, %readiness, version = runtime::version::long(), "the proxy has started");
        Ok(daemon)
    }

    /// Runs until `leave` names a reason to go, then drains: what runs may finish until the deadline.
    ///
    /// # Errors
    ///
    /// When a part has failed that the proxy cannot do without.
    pub async fn run(self, leave: impl Future<Output = &'static str>) -> Result<(), DaemonError> {
        tokio::select! {
            reason = leave => tracing::info!(reason, grace = ?self.grace, "draining"),
            () = self.quit.asked() => tracing::info!(reason = "the application asks", grace = ?self.grace, "draining"),
            () = self.background.token().cancelled() => {}
        }
        match self.drain.run(&self.connections, self.grace).await {
            Drained::Finished => tracing::info!("everything has finished; good bye"),
            Drained::Cut(left) => tracing::warn!(?left, "the deadline has passed; what still ran is cut"),
        }
        let _ = self.upstreams.stop(LAST_GRACE).await;
        if let Err(left) = self.background.stop(LAST_GRACE).await {
            tracing::debug!(?left, "not waited for");
        }
        self.background.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn serve(&self, name: &'static str, listener: tokio::net::TcpListener, router: axum::Router) {
        let stop = self.background.token().clone();
        let limits = runtime::admin::Limits::default();
        let server = runtime::admin::serve(listener, router, limits, stop);
        self.background.spawn(name, server);
    }
}

/// The proxy's own ports, opened before anything else, so that one that is taken is known at once.
struct OwnPorts {
    admin: (tokio::net::TcpListener, SocketAddr),
    metrics: (tokio::net::TcpListener, SocketAddr),
    readiness: (tokio::net::TcpListener, SocketAddr),
}

impl OwnPorts {
    fn open(settings: &Settings) -> Result<Self, DaemonError> {
        let everywhere = match settings.role {
            Role::Static(_) => Ipv4Addr::LOCALHOST,
            Role::Sidecar | Role::Gateway => Ipv4Addr::UNSPECIFIED,
        };
        let open = |what, ip: Ipv4Addr, port| {
            let address = SocketAddr::from((ip, port));
            let port = |source| DaemonError::Port { what, source };
            let listener = bind(address).map_err(port)?;
            let bound = listener.local_addr().map_err(|source| port(BindError { address, source }))?;
            Ok::<_, DaemonError>((listener, bound))
        };
        Ok(OwnPorts {
            admin: open("admin", Ipv4Addr::LOCALHOST, settings.ports.admin)?,
            metrics: open("metrics", everywhere, settings.ports.metrics)?,
            readiness: open("readiness", everywhere, settings.ports.readiness)?,
        })
    }
}

/// Hands the identity out to the pod, where there is one and somebody may have it.
pub(crate) fn hand_out(
    settings: &Settings,
    identity: &identity::Identity,
    metrics: &Metrics,
    background: &Tasks,
) -> Result<(), SocketError> {
    let is_static = matches!(settings.role, Role::Static(_));
    let Some(path) = settings.workload_api.path.as_deref().filter(|_| !is_static) else { return Ok(()) };
    let counters = WorkloadMetrics::default();
    metrics.register(|registry| counters.register(registry));
    let api = WorkloadApi::open(path, settings.workload_api.users.clone(), identity.svids.clone(), counters)?;
    background.spawn("workload api", api.serve(background.token().clone()));
    Ok(())
}

/// Keeps up with who is where, some time after endpoints have changed, so that many changes are taken up together.
async fn learn_peers(snapshots: Snapshots, metrics: Arc<path_metrics::Metrics>) {
    let mut changes = snapshots.subscribe();
    loop {
        metrics.learn_peers();
        tokio::time::sleep(PEERS).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// How long newly connected workloads may stay unknown.
const PEERS: Duration = Duration::from_millis(500);

fn data_path(
    (settings, mark, own): (&Settings, Option<u32>, &identity::Identity),
    snapshots: &Snapshots,
    drain: &Drain,
) -> Result<Arc<DataPath>, DaemonError> {
    let workload = &settings.workload;
    let identity = Identity {
        workload: workload.owner.clone(),
        namespace: workload.namespace.clone(),
        app: workload.app.clone(),
        version: workload.version.clone(),
        cluster: workload.cluster.clone(),
    };
    let format = Format::new(settings.access_log_format.encoding, settings.access_log_format.source.as_deref())?;
    let access_log = access_log(&settings.access_log, format)?;
    let limits = &settings.limits;
    let fitting = crate::files::connections();
    if fitting < limits.connections {
        tracing::info!(
            fitting,
            wanted = limits.connections,
            "fewer connections than MESH_MAX_CONNECTIONS: files are short"
        );
    }
    let settings = data::Settings {
        mark,
        identity,
        svids: own.svids.clone(),
        access_log,
        explain_denials: settings.explain_denials,
        client_cert: settings.client_cert == ClientCert::SanitizeSet,
        tracing: settings.tracing,
        max_series: settings.max_series,
        limits: Limits { head: limits.head_bytes, fields: limits.headers },
        idle_timeout: limits.idle,
        head_timeout: limits.head_timeout,
        handshake_timeout: limits.handshake,
        body_idle_timeout: limits.body_idle,
        max_connections: limits.connections.min(fitting),
        max_connections_per_source: limits.connections_per_source,
        upgrade_idle_timeout: limits.upgrade_idle,
        tcp_idle_timeout: limits.tcp_idle,
        h2: settings.h2,
        stall_timeout: settings.stall_timeout,
    };
    Ok(DataPath::new(Arc::clone(snapshots.tables()), settings, drain.clone()))
}

fn access_log(path: &str, format: Format) -> Result<Option<AccessLog>, DaemonError> {
    let opened = match path {
        "off" => return Ok(None),
        "/dev/stdout" | "-" => AccessLog::to(io::stdout(), format),
        "/dev/stderr" => AccessLog::to(io::stderr(), format),
        path => AccessLog::open(Path::new(path), format),
    };
    opened.map(Some).map_err(|source| DaemonError::AccessLog { path: path.to_owned(), source })
}

/// Takes the configuration from its source: the file, at once, or Pilot, from now on.
fn follow(
    (settings, mark, identity): (&Settings, Option<u32>, &identity::Identity),
    sockets: &mut Sockets,
    (snapshots, (metrics, traffic), background): (&Snapshots, (&Metrics, &Arc<path_metrics::Metrics>), &Tasks),
) -> Result<Option<xds::Status>, DaemonError> {
    if let Role::Static(path) = &settings.role {
        static_config::load(path, snapshots)?;
        return Ok(None);
    }
    if settings.role == Role::Sidecar {
        for (what, port) in [("outbound", proxy_port::OUTBOUND), ("inbound", proxy_port::INBOUND)] {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            sockets.open_ahead(address).map_err(|source| DaemonError::Port { what, source })?;
            let ipv6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            if let Err(error) = sockets.open_ahead(ipv6) {
                tracing::debug!(reason = runtime::exit::chain(&error), "no connections of IPv6 wait for configuration");
            }
        }
    }
    let counters = xds::XdsMetrics::default();
    metrics.register(|registry| counters.register(registry));
    let status = xds::Status::new(counters);
    let client = xds::Client {
        pilot: settings.pilot.clone(),
        mark,
        node: xds::node(settings),
        identity: identity.clone(),
        metrics: Arc::clone(traffic),
        snapshots: snapshots.clone(),
        status: status.clone(),
    };
    background.spawn_vital("xds", {
        let stop = background.token().clone();
        async move {
            client.run(stop).await;
            Ok::<(), std::convert::Infallible>(())
        }
    });
    Ok(Some(status))
}
