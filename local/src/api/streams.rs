//! What the API asks of the node that runs the pods: logs, exec and port forwarding.

use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::ApiResult;

/// Streams into and out of running pods.
///
/// The API has checked that the pod exists and that the container is one of its own before it calls.
pub trait PodStreams: Send + Sync + 'static {
    /// The log of one container. The receiver ends when the log does (with `follow`: when the container has ended).
    fn log(&self, request: LogRequest) -> BoxFuture<'_, ApiResult<mpsc::Receiver<io::Result<Bytes>>>>;

    /// Runs a command in one container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, ApiResult<ExecSession>>;

    /// Connects to a port on 127.0.0.1 inside a pod's network.
    fn port_forward(&self, pod: PodRef, port: u16) -> BoxFuture<'_, ApiResult<Box<dyn Duplex>>>;
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Which log, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Which pod.
    pub pod: PodRef,
    /// Which of its containers (also init containers).
    pub container: String,
    /// Whether to go on when the end is reached.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Only that many last lines.
    pub tail_lines: Option<u64>,
    /// Only lines younger than that many seconds.
    pub since_seconds: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only that many bytes.
    pub limit_bytes: Option<u64>,
}

/// What to run, where, and with which streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Which pod.
    pub pod: PodRef,
    /// Which of its containers.
    pub container: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Whether the caller sends input.
    pub stdin: bool,
    /// Whether the caller reads output.
    pub stdout: bool,
    /// Whether the caller reads errors apart; never with `tty`.
    pub stderr: bool,
    /// Whether the program gets a terminal.
    pub tty: bool,
}

/// A running command. Dropping it ends the command.
pub struct ExecSession {
    /// The command's input; shutting it down is its end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// The command's output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// The command's errors.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes the terminal's new size.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves to the exit code when the command has ended (128 + signal when a signal ended it), or says why it
    /// could not be run.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub height: u16,
}
