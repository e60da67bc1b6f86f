//! Probes: whether a container has started, is alive, and is ready.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::context::PodContext;
use super::launcher::{LaunchError, Streams};
use super::probe_grpc::{self, HealthError};

/// Why a probe has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// There was no answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The container could not be reached.
    #[error("{0}")]
    Unreachable(#[from] std::io::Error),
    /// It answered, but not well.
    #[error("HTTP probe failed with status {0}")]
    Status(u16),
    /// It answered something that is not HTTP.
    #[error("the answer is not HTTP: {0:?}")]
    NotHttp(String),
    /// Its gRPC health service did not say that it serves.
    #[error(transparent)]
    Grpc(#[from] HealthError),
    /// The command failed.
    #[error("command failed with {exit}{output}")]
    Command {
        /// How it ended.
        exit: String,
        /// What it said.
        output: String,
    },
    /// The command could not be run.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// The probe names a port that the container does not have.
    #[error("the container has no port named {0:?}")]
    NoPort(String),
    /// The container does not run (any more).
    #[error("the container is not running")]
    NotRunning,
    /// The probe has a form that the node does not know.
    #[error("this kind of probe is not known")]
    Unknown,
}

/// Why a container must be ended.
#[derive(Debug)]
pub(crate) struct Unhealthy {
    kind: &'static str,
    error: ProbeError,
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed its {} probe ({})", self.kind, self.error)
    }
}

/// First pause between two attempts of a probe that has not succeeded yet; it doubles until the probe's period, so
/// that what starts fast is seen fast. Such early attempts do not count as failures.
const EAGER: Duration = Duration::from_millis(10);

/// Keeps `started` and `ready` of a running container up to date; returns only when the container must be ended.
pub(crate) async fn watch(context: &Arc<PodContext>, container: &Container) -> Unhealthy {
    if let Some(startup) = &container.startup_probe
        && let Err(error) = first_success(context, container, startup, "startup").await
    {
        return Unhealthy { kind: "startup", error };
    }
    context.update(&container.name, |state| {
        state.started = true;
        state.ready = container.readiness_probe.is_none();
    });
    let alive = async {
        match &container.liveness_probe {
            Some(probe) => liveness(context, container, probe).await,
            None => std::future::pending().await,
        }
    };
    let ready = async {
        if let Some(probe) = &container.readiness_probe {
            readiness(context, container, probe).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        unhealthy = alive => unhealthy,
        unhealthy = ready => unhealthy,
    }
}

fn seconds(value: Option<i32>, default: u64, least: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default).max(least))
}

fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10, 1)
}

fn failures_allowed(probe: &Probe) -> i32 {
    probe.failure_threshold.unwrap_or(3).max(1)
}

/// Tries until the probe succeeds, or has failed as often as it may.
async fn first_success(
    context: &Arc<PodContext>,
    container: &Container,
    probe: &Probe,
    kind: &str,
) -> Result<(), ProbeError> {
    sleep(seconds(probe.initial_delay_seconds, 0, 0)).await;
    let mut pause = EAGER;
    let mut counted = Instant::now();
    let mut failures = 0;
    loop {
        let error = match attempt(context, container, probe).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if counted.elapsed() >= period(probe) {
            counted = Instant::now();
            failures += 1;
            context.event(
                "Warning",
                "Unhealthy",
                &format!("container {}: {kind} probe failed: {error}", container.name),
            );
            if failures >= failures_allowed(probe) {
                return Err(error);
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(period(probe));
    }
}

async fn liveness(context: &Arc<PodContext>, container: &Container, probe: &Probe) -> Unhealthy {
    sleep(seconds(probe.initial_delay_seconds, 0, 0)).await;
    let mut failures = 0;
    loop {
        sleep(period(probe)).await;
        match attempt(context, container, probe).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                let message = format!("container {}: liveness probe failed: {error}", container.name);
                context.event("Warning", "Unhealthy", &message);
                if failures >= failures_allowed(probe) {
                    return Unhealthy { kind: "liveness", error };
                }
            }
        }
    }
}

async fn readiness(context: &Arc<PodContext>, container: &Container, probe: &Probe) {
    sleep(seconds(probe.initial_delay_seconds, 0, 0)).await;
    let needed = probe.success_threshold.unwrap_or(1).max(1);
    let (mut failures, mut successes) = (0, 0);
    let mut ready = false;
    let mut pause = EAGER;
    loop {
        match attempt(context, container, probe).await {
            Ok(()) => (failures, successes) = (0, successes + 1),
            Err(error) => {
                (failures, successes) = (failures + 1, 0);
                if ready {
                    let message = format!("container {}: readiness probe failed: {error}", container.name);
                    context.event("Warning", "Unhealthy", &message);
                }
            }
        }
        if !ready && successes >= needed {
            ready = true;
        } else if ready && failures >= failures_allowed(probe) {
            ready = false;
            pause = EAGER;
        }
        context.update(&container.name, |state| state.ready = ready);
        let wait = if ready { period(probe) } else { pause };
        pause = (pause * 2).min(period(probe));
        sleep(wait).await;
    }
}

async fn attempt(context: &Arc<PodContext>, container: &Container, probe: &Probe) -> Result<(), ProbeError> {
    let limit = seconds(probe.timeout_seconds, 1, 1);
    let outcome = timeout(limit, async {
        if let Some(get) = &probe.http_get {
            http_get(context, container, get).await
        } else if let Some(socket) = &probe.tcp_socket {
            tcp(context, container, socket).await
        } else if let Some(command) = &probe.exec {
            exec(context, &container.name, command).await
        } else if let Some(grpc) = &probe.grpc {
            let port = port(container, &IntOrString::Int(grpc.port))?;
            let stream = connect(context, None, port).await?;
            let service = grpc.service.as_deref().unwrap_or_default();
            Ok(probe_grpc::check(stream, &format!("{}:{port}", context.network.address), service).await?)
        } else {
            Err(ProbeError::Unknown)
        }
    });
    outcome.await.unwrap_or(Err(ProbeError::Timeout(limit)))
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, ProbeError> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let name = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| ProbeError::NoPort(name()))
}

async fn connect(context: &PodContext, host: Option<&str>, port: u16) -> Result<TcpStream, ProbeError> {
    let address = context.network.address.to_string();
    Ok(TcpStream::connect((host.filter(|host| !host.is_empty()).unwrap_or(&address), port)).await?)
}

async fn tcp(context: &PodContext, container: &Container, socket: &TCPSocketAction) -> Result<(), ProbeError> {
    connect(context, socket.host.as_deref(), port(container, &socket.port)?).await.map(drop)
}

/// Asks for a page; every status from 200 to 399 is a success.
pub(crate) async fn http_get(
    context: &PodContext,
    container: &Container,
    get: &HTTPGetAction,
) -> Result<(), ProbeError> {
    let port = port(container, &get.port)?;
    let stream = connect(context, get.host.as_deref(), port).await?;
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let headers = get.http_headers.iter().flatten();
    let own_host = headers.clone().any(|header| header.name.eq_ignore_ascii_case("host"));
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
    if !own_host {
        request.push_str(&format!("Host: {}:{port}\r\n", context.network.address));
    }
    for header in headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("User-Agent: mesh-node-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    let status = if get.scheme.as_deref() == Some("HTTPS") {
        let stream = context.shared.probe_tls.connect(context.network.address, stream).await?;
        ask(stream, &request).await?
    } else {
        ask(stream, &request).await?
    };
    if (200..400).contains(&status) { Ok(()) } else { Err(ProbeError::Status(status)) }
}

async fn ask(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) -> Result<u16, ProbeError> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(1024)).read_until(b'\n', &mut line).await?;
    let line = String::from_utf8_lossy(&line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    status.ok_or_else(|| ProbeError::NotHttp(line.trim_end().to_owned()))
}

/// Runs a command in the container; exit code 0 is a success.
pub(crate) async fn exec(context: &PodContext, container: &str, exec: &ExecAction) -> Result<(), ProbeError> {
    let running = context.running(container).ok_or(ProbeError::NotRunning)?;
    let (sender, mut output) = pipe::pipe()?;
    let stdout = sender.into_blocking_fd()?;
    let stderr = stdout.try_clone()?;
    let streams = Streams { stdin: std::fs::File::open("/dev/null")?.into(), stdout, stderr };
    let process = context.execute(&running, exec.command.clone().unwrap_or_default(), false, streams).await?;
    let mut process = KillOnDrop(process);
    let mut text = Vec::new();
    (&mut output).take(4096).read_to_end(&mut text).await?;
    let exit = process.0.wait().await;
    if exit.status() == 0 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    let output = if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
    Err(ProbeError::Command { exit: exit.to_string(), output })
}

/// Ends a command whose result nobody waits for any more.
struct KillOnDrop(super::launcher::Process);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.signal(rustix::process::Signal::KILL);
        }
    }
}
