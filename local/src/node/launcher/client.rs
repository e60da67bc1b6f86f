//! The node's end of the launcher's socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::spec::{Exit, LaunchError, Spec, Target};
use super::wire::{self, Reply, Request};
use crate::node::netns::PodNamespaces;

/// Asks the launcher for processes and hears how they end.
pub(crate) struct Launcher {
    /// Carries sequenced packets, whatever the type's name says.
    socket: UnixStream,
    next_id: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    started: Option<oneshot::Sender<Result<i32, LaunchError>>>,
    ended: oneshot::Sender<Exit>,
}

/// The standard streams of a process.
pub(crate) struct Streams {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A process that the launcher started: a container's init, or a command in a container.
#[derive(Debug)]
pub(crate) struct Process {
    /// Process ID as the node sees it.
    pub pid: i32,
    ended: oneshot::Receiver<Exit>,
    exit: Option<Exit>,
}

impl Process {
    /// Waits for the end; may be asked again.
    pub(crate) async fn wait(&mut self) -> Exit {
        match self.exit {
            Some(exit) => exit,
            None => {
                let exit = (&mut self.ended).await.unwrap_or(Exit { code: None, signal: Some(libc::SIGKILL) });
                *self.exit.insert(exit)
            }
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.exit.is_none() {
            self.exit = self.ended.try_recv().ok();
        }
        self.exit.is_some()
    }

    /// Sends a signal; a process that has ended already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Launcher {
    /// Wraps the socket that [`super::fork_launcher`] returned.
    ///
    /// # Errors
    /// When the socket cannot be watched by the runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Arc<Self>> {
        rustix::fs::fcntl_setfl(&socket, rustix::fs::fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            socket: UnixStream::from_std(socket.into())?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(HashMap::new()),
        }))
    }

    /// Passes on what the launcher says, until it is gone.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            let received =
                self.socket.async_io(Interest::READABLE, || wire::receive::<Reply>(self.socket.as_fd())).await?;
            match received {
                Some((reply, _)) => self.settle(reply),
                None => return Err(io::Error::other("the launcher has ended")),
            }
        }
    }

    fn settle(&self, reply: Reply) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            Reply::Started { id, pid } => {
                if let Some(started) = waiting.get_mut(&id).and_then(|entry| entry.started.take()) {
                    let _ = started.send(Ok(pid));
                }
            }
            Reply::Refused { id, error } => {
                if let Some(started) = waiting.remove(&id).and_then(|entry| entry.started) {
                    let _ = started.send(Err(LaunchError::System(error)));
                }
            }
            Reply::Exited { id, exit } => {
                if let Some(entry) = waiting.remove(&id) {
                    let _ = entry.ended.send(exit);
                }
            }
        }
    }

    /// Starts a process and waits until its program runs.
    ///
    /// # Errors
    /// Says why the program does not run.
    pub(crate) async fn start(
        &self,
        spec: &Spec,
        namespaces: &PodNamespaces,
        streams: Streams,
    ) -> Result<Process, LaunchError> {
        let text = spec_file(spec)?;
        let (failure_sender, mut failure) = pipe::pipe()?;
        let failure_fd = failure_sender.into_blocking_fd()?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (started_sender, started) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Waiting { started: Some(started_sender), ended: ended_sender });
        let target_pid = match spec.target {
            Target::Running(pid) => Some(pid),
            Target::Container { .. } => None,
        };
        let fds: [BorrowedFd<'_>; wire::DESCRIPTORS] = [
            text.as_fd(),
            streams.stdin.as_fd(),
            streams.stdout.as_fd(),
            streams.stderr.as_fd(),
            failure_fd.as_fd(),
            namespaces.network.as_fd(),
            namespaces.ipc.as_fd(),
            namespaces.host_name.as_fd(),
        ];
        self.socket
            .async_io(Interest::WRITABLE, || wire::send(self.socket.as_fd(), &Request { id, target_pid }, &fds))
            .await?;
        drop(failure_fd);
        drop(streams);
        let pid = started.await.map_err(|_| LaunchError::Gone)??;
        let mut reason = String::new();
        failure.read_to_string(&mut reason).await?;
        if reason.is_empty() { Ok(Process { pid, ended, exit: None }) } else { Err(LaunchError::Setup(reason)) }
    }
}

/// Writes the spec into a file without a name, as it may be longer than a message.
fn spec_file(spec: &Spec) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"launch", MemfdFlags::CLOEXEC)?;
    let text = serde_json::to_vec(spec)?;
    let mut written = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        written += rustix::io::pwrite(&fd, rest, written as u64)?;
    }
    Ok(fd)
}
