//! What PID 1 of the mesh runs: the API, the controllers and the node, in one runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::Tasks;
use runtime::logging::{self, Format};
use rustix::mount::{MountFlags, mount};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::host_ports::HostPorts;
use super::record::{PortRecord, Record};
use super::{Listeners, Options};
use crate::api::{Api, ApiConfig, ApiError, PodRef, StartError, Store, TokenRequest, kubeconfig};
use crate::node::{self, API_ADDRESS, FromHost, HostSockets, Launcher, Network, NodeStreams, ProbeTls, Shared, Tokens};
use crate::sys;

/// Why the mesh cannot run.
#[derive(Debug, thiserror::Error)]
enum InnerError {
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
    #[error("cannot open the store of the mesh: {0}")]
    Store(#[from] crate::api::OpenError),
    #[error("the local API failed: {0}")]
    Api(#[from] ApiError),
    #[error("the local API cannot be started: {0}")]
    Start(#[from] StartError),
    #[error(transparent)]
    Services(#[from] node::ServicesError),
    #[error("the TLS library cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Runs the mesh in this process, which is PID 1 of its namespaces and has one thread.
pub(super) fn run(options: &Options, listeners: &Listeners, supervisor: (u32, u64), asks: OwnedFd) -> u8 {
    match prepare(options).and_then(|(run_dir, launcher)| {
        if let Err(error) = logging::init(Format::Text, "info") {
            eprintln!("warning: {error}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| InnerError::System("start the runtime", error))?;
        let outcome = runtime.block_on(serve(options, (listeners, asks), supervisor, run_dir, launcher));
        runtime.shutdown_timeout(Duration::from_millis(100));
        outcome
    }) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            1
        }
    }
}

/// What must happen before any thread exists.
fn prepare(options: &Options) -> Result<(PathBuf, OwnedFd), InnerError> {
    let launcher = node::fork_launcher().map_err(|error| InnerError::System("start the launcher", error))?;
    let run_dir = options.state_dir.join("run");
    mount_run(&run_dir).map_err(|error| InnerError::System("mount a file system in memory", error))?;
    node::set_up_root().map_err(|error| InnerError::System("set up the mesh's network", error))?;
    Ok((run_dir, launcher))
}

fn mount_run(run_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(run_dir)?;
    mount("tmpfs", run_dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0700"))?;
    std::fs::create_dir(run_dir.join("root"))
}

async fn serve(
    options: &Options,
    (listeners, asks): (&Listeners, OwnedFd),
    supervisor: (u32, u64),
    run_dir: PathBuf,
    launcher: OwnedFd,
) -> Result<(), InnerError> {
    let system = |doing: &'static str| move |error| InnerError::System(doing, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(system("receive signals"))?;
    // They were blocked so that none was lost before there was someone to receive them.
    sys::unblock_signals().map_err(system("receive signals"))?;
    let launcher = Launcher::new(launcher).map_err(system("talk to the launcher"))?;
    let store = Arc::new(Store::open(&options.state_dir)?);
    node::forget_earlier_runs(&store)?;
    // Pods end first, while everything that they use is still there.
    let (token, pods_token) = (CancellationToken::new(), CancellationToken::new());
    let tracker = TaskTracker::new();
    let streams = Arc::new(NodeStreams::default());
    let config = ApiConfig { pki: options.state_dir.join("pki") };
    let api = Api::open(Arc::clone(&store), &config, Arc::clone(&streams) as _)?;
    let shared = Arc::new(Shared {
        store: Arc::clone(&store),
        launcher: Arc::clone(&launcher),
        network: Arc::new(Network::default()),
        tokens: Arc::new(PodTokens(Arc::clone(&api))),
        domain: ::api::names::DEFAULT_DOMAIN.to_owned(),
        state_dir: options.state_dir.clone(),
        staging_dir: run_dir.join("root"),
        run_dir,
        programs: options.programs.clone(),
        probe_tls: ProbeTls::new()?,
        tracker: tracker.clone(),
        pods: Mutex::default(),
    });
    streams.connect(&shared);
    let tasks = Tasks::under(&token);
    let host = from_host(listeners, asks).map_err(system("use the host's ports"))?;
    node::start_services(&shared, host, &token).await?;
    let port = listeners.api.local_addr().map_err(system("listen for the API"))?.port();
    crate::api::serve(&api, api_listeners(&listeners.api).map_err(system("listen for the API"))?, &tasks)?;
    crate::controllers::start(&api, &tasks);
    let name = options.state_dir.file_name().map_or("default".into(), |name| name.to_string_lossy());
    kubeconfig::write(&options.state_dir.join("kubeconfig"), &name, port, api.pki())
        .map_err(system("write the kubeconfig"))?;
    record(options, listeners, supervisor).map_err(system("write supervisor.json"))?;
    let node = node::run(shared, pods_token.clone());
    tokio::pin!(node);
    tokio::select! {
        outcome = launcher.run() => return outcome.map_err(system("go on without the launcher")),
        outcome = &mut node => return outcome.map_err(InnerError::from),
        _ = terminate.recv() => {}
    }
    tracing::info!("the mesh is told to end");
    pods_token.cancel();
    let outcome = tokio::select! {
        outcome = launcher.run() => outcome.map_err(system("go on without the launcher")),
        outcome = &mut node => outcome.map_err(InnerError::from),
    };
    token.cancel();
    outcome
}

/// What the supervisor opened on the host, for this runtime.
fn from_host(listeners: &Listeners, asks: OwnedFd) -> io::Result<FromHost> {
    let gateway = listeners.host_ports.first().map(|port| {
        let listeners = port.listeners.iter().map(adopt).collect::<io::Result<_>>()?;
        io::Result::Ok(HostSockets { port: port.port, listeners })
    });
    Ok(FromHost {
        gateway: gateway.transpose()?,
        more: HostPorts::new(asks),
        resolver: listeners.resolver.as_ref().map(std::net::UdpSocket::try_clone).transpose()?,
    })
}

fn adopt(listener: &std::net::TcpListener) -> io::Result<TcpListener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Tokens of the API, as volumes want them.
struct PodTokens(Arc<Api>);

impl Tokens for PodTokens {
    fn issue(&self, pod: &PodRef, account: &str, audience: Option<&str>, seconds: i64) -> Result<String, ApiError> {
        let request = TokenRequest {
            namespace: pod.namespace.clone(),
            service_account: account.to_owned(),
            audiences: audience.map(str::to_owned).into_iter().collect(),
            seconds: u64::try_from(seconds).ok(),
            pod: Some(pod.name.clone()),
        };
        self.0.tokens().issue(self.0.store(), &request).map(|token| token.token)
    }
}

fn record(options: &Options, listeners: &Listeners, (pid, start_ticks): (u32, u64)) -> io::Result<()> {
    let port = |port: &super::HostPort| {
        let addresses = port.listeners.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<_>>()?;
        Ok(PortRecord { port: port.port, addresses })
    };
    let record = Record {
        pid,
        start_ticks,
        started: crate::api::object::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: listeners.api.local_addr()?,
        host_ports: listeners.host_ports.iter().map(port).collect::<io::Result<_>>()?,
    };
    record.write(&options.state_dir)
}

/// The API's sockets: one on the host, one at its Service's address in the mesh.
fn api_listeners(host: &std::net::TcpListener) -> io::Result<Vec<TcpListener>> {
    let inside = std::net::TcpListener::bind((API_ADDRESS, 443))?;
    Ok(vec![adopt(host)?, adopt(&inside)?])
}
