//! What the API asks of the node: logs, commands in containers, and connections into pods.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::unix::pipe;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::Shared;
use super::context::{PodContext, RunningContainer};
use super::follow;
use super::launcher::{Process, Streams};
use super::terminal::Terminal;
use crate::api::{
    ApiError, ApiResult, Duplex, ExecRequest, ExecSession, LogRequest, PodRef, PodStreams, Reason, TerminalSize,
};

/// The node as the API sees it. The API is made before the node, so this is filled in afterwards.
#[derive(Default)]
pub(crate) struct NodeStreams {
    shared: OnceLock<Arc<Shared>>,
}

/// Chunks of a log that wait for a slow reader.
const LOG_CHUNKS: usize = 16;
/// Sizes of a terminal that wait to be set; only the last one matters.
const SIZES: usize = 4;

impl NodeStreams {
    /// Connects the API to the node.
    pub(crate) fn connect(&self, shared: &Arc<Shared>) {
        let _ = self.shared.set(Arc::clone(shared));
    }

    fn shared(&self) -> ApiResult<&Arc<Shared>> {
        self.shared.get().ok_or_else(|| ApiError::new(Reason::ServiceUnavailable, "the node is not up yet"))
    }

    fn pod(&self, pod: &PodRef) -> ApiResult<Arc<PodContext>> {
        let gone = || ApiError::bad_request(format!("pod {}/{} is not running", pod.namespace, pod.name));
        self.shared()?.pod(pod).ok_or_else(gone)
    }

    fn running(&self, pod: &PodRef, container: &str) -> ApiResult<(Arc<PodContext>, RunningContainer)> {
        let context = self.pod(pod)?;
        match context.running(container) {
            Some(running) => Ok((context, running)),
            None => Err(ApiError::bad_request(format!("container {container} of pod {} is not running", pod.name))),
        }
    }
}

impl PodStreams for NodeStreams {
    fn log(&self, request: LogRequest) -> BoxFuture<'_, ApiResult<mpsc::Receiver<io::Result<Bytes>>>> {
        async move {
            let shared = self.shared()?;
            let (sender, receiver) = mpsc::channel(LOG_CHUNKS);
            let source = follow::Source::find(shared, &request)?;
            shared.tracker.spawn(follow::send(source, request, sender));
            Ok(receiver)
        }
        .boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, ApiResult<ExecSession>> {
        async move {
            let (context, running) = self.running(&request.pod, &request.container)?;
            let session = if request.tty {
                with_terminal(&context, &running, request).await
            } else {
                with_pipes(&context, &running, request).await
            };
            session.map_err(|error| ApiError::internal(error.to_string()))
        }
        .boxed()
    }

    fn port_forward(&self, pod: PodRef, port: u16) -> BoxFuture<'_, ApiResult<Box<dyn Duplex>>> {
        async move {
            let context = self.pod(&pod)?;
            let stream = connect(&context, port).await.map_err(|error| {
                ApiError::internal(format!("cannot connect to port {port} of pod {}: {error}", pod.name))
            })?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    }
}

/// Connects to a port on 127.0.0.1 inside a pod's network, or on ::1 when nobody listens there.
async fn connect(context: &PodContext, port: u16) -> io::Result<TcpStream> {
    let (v4, v6) = context.network.namespaces.run(|| Ok((TcpSocket::new_v4()?, TcpSocket::new_v6()))).await?;
    let stream = match (v4.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await, v6) {
        (Err(refused), Ok(v6)) => {
            v6.connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await.map_err(|_| refused)?
        }
        (connected, _) => connected?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

type ExecError = Box<dyn std::error::Error + Send + Sync>;

async fn with_pipes(
    context: &PodContext,
    container: &RunningContainer,
    request: ExecRequest,
) -> Result<ExecSession, ExecError> {
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(std::os::fd::OwnedFd::from);
    let (stdin, own_stdin) = if request.stdin {
        let (sender, receiver) = pipe::pipe()?;
        (receiver.into_blocking_fd()?, Some(sender))
    } else {
        (null()?, None)
    };
    let output = |wanted: bool| -> io::Result<_> {
        if !wanted {
            return Ok((null()?, None));
        }
        let (sender, receiver) = pipe::pipe()?;
        Ok((sender.into_blocking_fd()?, Some(receiver)))
    };
    let (stdout, own_stdout) = output(request.stdout)?;
    let (stderr, own_stderr) = output(request.stderr)?;
    let streams = Streams { stdin, stdout, stderr };
    let process = context.execute(container, request.command, false, streams).await?;
    Ok(ExecSession {
        stdin: own_stdin.map(|it| Box::new(it) as _),
        stdout: own_stdout.map(|it| Box::new(it) as _),
        stderr: own_stderr.map(|it| Box::new(it) as _),
        resize: None,
        exit: exit(process),
    })
}

async fn with_terminal(
    context: &Arc<PodContext>,
    container: &RunningContainer,
    request: ExecRequest,
) -> Result<ExecSession, ExecError> {
    let Terminal { reader, writer, control, program } = Terminal::open()?;
    let streams = Streams { stdin: program.try_clone()?, stdout: program.try_clone()?, stderr: program };
    let process = context.execute(container, request.command, true, streams).await?;
    let (sizes, mut wanted) = mpsc::channel::<TerminalSize>(SIZES);
    context.shared.tracker.spawn(async move {
        while let Some(size) = wanted.recv().await {
            if let Err(error) = control.resize(size) {
                tracing::debug!(%error, "a terminal could not be resized");
            }
        }
    });
    Ok(ExecSession {
        stdin: request.stdin.then(|| Box::new(writer) as _),
        stdout: Some(Box::new(reader)),
        stderr: None,
        resize: Some(sizes),
        exit: exit(process),
    })
}

/// Ends the command when nobody waits for it any more.
struct EndOnDrop(Process);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.signal(rustix::process::Signal::KILL);
        }
    }
}

fn exit(process: Process) -> BoxFuture<'static, Result<i32, String>> {
    let mut process = EndOnDrop(process);
    async move { Ok(process.0.wait().await.status()) }.boxed()
}
