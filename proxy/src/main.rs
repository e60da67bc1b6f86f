//! `mesh-proxy`: the mesh's data plane.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};
use mesh_proxy::admin::request;
use mesh_proxy::daemon::{Daemon, DaemonError};
use mesh_proxy::settings::{PortFlags, Ports, Role, Settings};
use runtime::exit::{self, Code, Failure};
use runtime::settings::Env;
use runtime::{logging, signals, version};

/// The mesh's data plane: mediates every connection of the workload that it stands beside.
///
/// Settings come from the environment: POD_NAME, POD_NAMESPACE, POD_IP, SERVICE_ACCOUNT, MESH_PILOT_ADDRESS,
/// MESH_PILOT_ROOT or MESH_PILOT_ROOT_PEM, MESH_TOKEN_FILE, MESH_CONCURRENCY, MESH_LOG, MESH_LOG_FORMAT,
/// MESH_DRAIN_SECONDS, MESH_ACCESS_LOG, MESH_APP_PROBES, and the limits that docs/limits.md lists.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version = version::long(), arg_required_else_help = true)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run on the resources in FILE (YAML or JSON in Envoy's shape), without Pilot.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    ports: PortArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run beside an application whose connections are intercepted.
    Sidecar(PortArgs),
    /// Run at the edge of the mesh.
    Gateway(PortArgs),
    /// Only hand out the pod's identity, on a Unix socket: for a pod whose sidecar is a stock Envoy.
    Identity(PortArgs),
    /// Ask the admin port of the proxy in this network namespace, and print its answer.
    #[command(
        after_help = "Examples:\n  mesh-proxy request GET /clusters\n  mesh-proxy request POST '/logging?level=debug'"
    )]
    Request {
        /// GET or POST.
        method: String,
        /// Path and query.
        path: String,
        #[command(flatten)]
        ports: PortArgs,
    },
    /// Wait until the proxy in this network namespace is ready.
    ///
    /// Injection runs it before the application is started, where the proxy is no native sidecar.
    #[command(after_help = "Examples:\n  mesh-proxy wait\n  mesh-proxy wait --timeout 30 && exec my-application")]
    Wait {
        /// Give up after so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        #[command(flatten)]
        ports: PortArgs,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Copy, Args)]
struct PortArgs {
    /// Port of administration, on loopback; 0 takes a free one [default: 15000, or MESH_ADMIN_PORT].
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Port of metrics; 0 takes a free one [default: 15020, or MESH_METRICS_PORT].
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Port of readiness; 0 takes a free one [default: 15021, or MESH_READINESS_PORT].
    #[arg(long, value_name = "PORT")]
    readiness_port: Option<u16>,
}

impl From<PortArgs> for PortFlags {
    fn from(args: PortArgs) -> Self {
        PortFlags { admin: args.admin_port, metrics: args.metrics_port, readiness: args.readiness_port }
    }
}

fn main() -> ExitCode {
    exit::report(run(Cli::parse()))
}

fn run(cli: Cli) -> Result<(), Failure> {
    let hands_out_only = matches!(cli.command, Some(Command::Identity(_)));
    let (role, ports) = match (cli.command, cli.config) {
        (Some(Command::Version), _) => {
            println!("mesh-proxy {}", version::long());
            return Ok(());
        }
        (Some(Command::Request { method, path, ports }), _) => return ask(&method, &path, ports),
        (Some(Command::Wait { timeout, ports }), _) => return wait(Duration::from_secs(timeout), ports),
        (Some(Command::Sidecar(ports) | Command::Identity(ports)), _) => (Role::Sidecar, ports),
        (Some(Command::Gateway(ports)), _) => (Role::Gateway, ports),
        (None, Some(file)) => (Role::Static(file), cli.ports),
        (None, None) => return Err(Failure::usage("neither a role nor --config is given").with_hint("see --help")),
    };
    let settings = Settings::read(role, &Env::process(), ports.into()).map_err(Failure::usage)?;
    let logging = logging::init(settings.log_format, &settings.log_filter).map_err(Failure::usage)?;
    serve(settings, logging, hands_out_only)
}

fn serve(settings: Settings, logging: logging::Logging, hands_out_only: bool) -> Result<(), Failure> {
    let runtime = match settings.workers {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?,
    };
    let ended = runtime.block_on(async {
        let mut shutdown = signals::Shutdown::listen()?;
        if hands_out_only {
            return mesh_proxy::identity_only::run(settings, shutdown.recv()).await.map_err(explain);
        }
        let daemon = Daemon::start(settings, Some(logging)).map_err(explain)?;
        daemon.run(shutdown.recv()).await.map_err(explain)
    });
    // A look-up of a name may still hang in a thread of its own.
    runtime.shutdown_background();
    ended
}

fn explain(error: DaemonError) -> Failure {
    let hint = match &error {
        DaemonError::Intercepted(_) => "give it CAP_NET_RAW, or run it as user 1337 as the interception rules expect",
        DaemonError::Port { .. } => "stop what listens there, or choose another port with --admin-port and the like",
        DaemonError::AccessLogFormat(_) => {
            "docs/observability.md lists the operators; without MESH_ACCESS_LOG_FORMAT the default is used"
        }
        DaemonError::NoSocket => {
            "mount a volume that the pod's containers share at /var/run/secrets/workload-spiffe-uds, or set MESH_WORKLOAD_SOCKET"
        }
        DaemonError::AccessLog { .. } => "set MESH_ACCESS_LOG to a file that can be written, or to off",
        DaemonError::Static(_)
        | DaemonError::Probes(_)
        | DaemonError::WorkloadSocket(_)
        | DaemonError::Identity(_)
        | DaemonError::Task(_) => {
            return Failure::new(error);
        }
    };
    Failure::new(error).with_hint(hint)
}

fn ask(method: &str, path: &str, ports: PortArgs) -> Result<(), Failure> {
    use std::io::Write;
    let ports = Ports::read(&Env::process(), ports.into()).map_err(Failure::usage)?;
    let body = request::send(ports.admin, &method.to_ascii_uppercase(), path).map_err(|error| {
        let code = match &error {
            request::RequestError::Malformed(_) => Code::Usage,
            request::RequestError::Unanswered { .. } => Code::Unreachable,
            request::RequestError::Unreadable(_) | request::RequestError::Refused { .. } => Code::Failed,
        };
        Failure::new(error).with_code(code)
    })?;
    let mut out = std::io::stdout().lock();
    out.write_all(&body)?;
    if !body.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Pause between two questions whether the proxy is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the proxy is ready. Its reason for not being so is shown when the time is over.
fn wait(limit: Duration, ports: PortArgs) -> Result<(), Failure> {
    let ports = Ports::read(&Env::process(), ports.into()).map_err(Failure::usage)?;
    let begun = SystemTime::now();
    loop {
        let error = match request::send(ports.readiness, "GET", "/healthz/ready") {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if begun.elapsed().unwrap_or(limit) >= limit {
            let hint = "see the proxy's log: kubectl logs POD -c mesh-proxy";
            return Err(Failure::new(error).with_code(Code::Timeout).with_hint(hint));
        }
        std::thread::park_timeout(PAUSE);
    }
}
