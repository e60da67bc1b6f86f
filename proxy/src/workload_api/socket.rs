//! The Unix socket: how it is made, who may connect, and how many at once.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use runtime::counted::Counted;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tonic::transport::server::UdsConnectInfo;

use super::WorkloadMetrics;

/// Connections at once. A pod has a handful of processes, each of which needs one.
pub(super) const CONNECTIONS: usize = 64;
/// Wait after a connection could not be taken, as when files are short.
const PAUSE: Duration = Duration::from_millis(100);

/// Whose processes may ask for the identity, beside having the socket's volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Users {
    /// Everybody's.
    #[default]
    Any,
    /// Those of these user IDs.
    These(Vec<u32>),
}

impl Users {
    /// Whether a process of this user may ask.
    #[must_use]
    pub fn may_ask(&self, user: u32) -> bool {
        match self {
            Users::Any => true,
            Users::These(users) => users.contains(&user),
        }
    }

    /// The socket's mode: others than its owner may connect only where one of them may ask.
    fn mode(&self, own: u32) -> u32 {
        match self {
            Users::These(users) if users.iter().all(|user| *user == own) => 0o600,
            _ => 0o666,
        }
    }
}

impl FromStr for Users {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" {
            return Ok(Users::Any);
        }
        text.split(',').map(|user| user.trim().parse()).collect::<Result<_, _>>().map(Users::These)
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something that is no socket is there.
    #[error("{} is there already, and is no socket", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// The path names no file in a directory.
    #[error("{} cannot be the path of a socket", path.display())]
    Path {
        /// As given.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{} cannot be {what}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// `made` or `looked at`.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A process that has connected, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) user: u32,
    pub(super) group: u32,
    /// As seen from here; none where it runs in a process namespace that is not visible.
    pub(super) process: Option<i32>,
}

impl Peer {
    /// Who is at the other end, if the kernel says.
    pub(super) fn of(info: &UdsConnectInfo) -> Option<Self> {
        let seen = info.peer_cred.as_ref()?;
        let process = seen.pid().filter(|process| *process > 0);
        Some(Peer { user: seen.uid(), group: seen.gid(), process })
    }
}

/// A listening socket; its file is taken away with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    file: File,
}

/// The socket's file, to be taken away if it is still ours.
#[derive(Debug)]
struct File {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    pub(super) fn open(path: &Path, users: &Users) -> Result<Self, SocketError> {
        let failed = |what| move |source| SocketError::System { path: path.to_owned(), what, source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::Taken { path: path.to_owned() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("looked at")(error)),
        }
        let name = path.file_name().ok_or_else(|| SocketError::Path { path: path.to_owned() })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        // Made beside its place and then moved there: nobody sees it with another mode, and an old one is never missing.
        let made = path.with_file_name(hidden);
        let made_at = made.as_path();
        let _ = std::fs::remove_file(made_at);
        let open = || {
            let listener = UnixListener::bind(made_at)?;
            let own = std::fs::symlink_metadata(made_at)?;
            std::fs::set_permissions(made_at, PermissionsExt::from_mode(users.mode(own.uid())))?;
            std::fs::rename(made_at, path)?;
            Ok((listener, own.ino()))
        };
        let (listener, inode) = open().map_err(failed("made"))?;
        Ok(Socket { listener, file: File { path: path.to_owned(), inode } })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The connections, as they come; those over the bound are closed.
    pub(super) fn incoming(
        self,
        metrics: WorkloadMetrics,
    ) -> impl Stream<Item = Result<Counted<UnixStream>, Infallible>> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        stream::unfold((self, permits, metrics), |(socket, permits, metrics)| async move {
            loop {
                let stream = match socket.listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the socket of identities could not be taken");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    metrics.refused("connections");
                    continue;
                };
                return Some((Ok(Counted::new(stream, permit)), (socket, permits, metrics)));
            }
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A process that was started since may have made its own.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
