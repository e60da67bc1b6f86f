//! What the launcher is asked to start, and how it ended.

use std::fmt;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// One process to start: a container's program, or a command in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Program and arguments; the program is looked up in `PATH` of `env` unless it has a slash.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory inside the container.
    pub directory: PathBuf,
    /// Names of the capabilities that the program keeps, as in a pod's `securityContext`, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Whether standard input is a terminal that becomes the controlling one.
    pub terminal: bool,
    /// Where the process runs.
    pub target: Target,
}

/// Where a process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// In a file system and PID namespace of its own.
    Container {
        /// What is mounted, in order; targets are paths inside the container.
        mounts: Vec<Mount>,
        /// Directory of the node on which the container's root is mounted (in its own mount namespace).
        staging: PathBuf,
        /// Whether the root, with everything in it that is not mounted, refuses writing.
        read_only: bool,
    },
    /// In those of the running container whose init has this process ID.
    Running(i32),
}

/// One mount of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where, inside the container.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountKind {
    /// A file or directory of the node.
    Bind(PathBuf),
    /// A symbolic link with this destination; not a mount, but part of the file system.
    Link(PathBuf),
    /// An empty file system in memory.
    Memory,
    /// An empty directory.
    Directory,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Exit status, when it ended by itself.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// The exit code as Kubernetes reports it: 128 plus the signal for a process that a signal ended.
    pub(crate) fn status(self) -> i32 {
        self.code.or_else(|| self.signal.map(|signal| 128 + signal)).unwrap_or(255)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown end"),
        }
    }
}

/// Why a process was not started.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The launcher is gone, and with it every pod.
    #[error("the launcher has ended")]
    Gone,
    /// The system refused a process or a descriptor.
    #[error("the system refused to start a process: {0}")]
    System(String),
    /// The container's file system or namespaces could not be set up, or its program could not be executed.
    #[error("{0}")]
    Setup(String),
}

impl From<std::io::Error> for LaunchError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error.to_string())
    }
}

/// The capabilities that a pod may ask for; what is not among them is refused by name.
pub(crate) fn capability(name: &str) -> Option<CapabilitySet> {
    match name.strip_prefix("CAP_").unwrap_or(name) {
        "NET_ADMIN" => Some(CapabilitySet::NET_ADMIN),
        "NET_RAW" => Some(CapabilitySet::NET_RAW),
        "NET_BIND_SERVICE" => Some(CapabilitySet::NET_BIND_SERVICE),
        _ => None,
    }
}
