//! The launcher: a process with one thread, forked before any thread exists, that starts everything pods run.
//!
//! A program with threads cannot safely fork and then mount, change namespaces and drop capabilities; the launcher can.
//! The node sends it a [`Spec`] and descriptors over a socket; it answers with the process ID and later with how the
//! process ended. It lives below the supervisor's PID 1 and above every container:
//!
//! ```text
//! PID 1 (node, tokio) ── launcher ──┬── init of container A ── its program …
//!                                   └── init of container B ── its program …
//! ```
//!
//! A container's init is PID 1 of the container's own PID namespace: it forwards signals, reaps orphans, and ends with
//! its program, upon which the kernel ends whatever else runs in that namespace.

mod child;
mod client;
mod rootfs;
mod spec;
pub(crate) mod wire;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, wait};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::sys::{self, Fork, Signals};

pub(crate) use client::{Launcher, Process, Streams};
pub(crate) use spec::{Exit, LaunchError, Mount, MountKind, Spec, Target};
use wire::{Reply, Request};

/// Forks the launcher and returns the node's end of its socket.
///
/// # Errors
/// When the process already has threads, or the system has no more processes or descriptors.
pub(crate) fn fork_launcher() -> io::Result<OwnedFd> {
    let (node, launcher) = wire::socket_pair()?;
    match sys::fork()? {
        Fork::Parent(_) => Ok(node),
        Fork::Child => {
            let code = match run(&launcher) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("launcher: {error}");
                    1
                }
            };
            sys::exit_now(code)
        }
    }
}

/// Serves the socket until the node is gone.
fn run(socket: &OwnedFd) -> io::Result<()> {
    sys::close_all_except(&[0, 1, 2, socket.as_raw_fd()])?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::setsid()?;
    let _ = rustix::thread::set_name(c"mesh-launcher");
    let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let signal_fd = signals.descriptor()?;
    let home: OwnedFd = std::fs::File::open("/proc/self/ns/pid")?.into();
    let mut running = HashMap::new();
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&signal_fd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (asked, signalled) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if asked {
            let Some((request, descriptors)) = wire::receive::<Request>(socket.as_fd())? else { return Ok(()) };
            let reply = match start(&home, request.target_pid, descriptors) {
                Ok(pid) => {
                    running.insert(pid, request.id);
                    Reply::Started { id: request.id, pid: pid.as_raw_pid() }
                }
                Err(error) => Reply::Refused { id: request.id, error: error.to_string() },
            };
            wire::send(socket.as_fd(), &reply, &[])?;
        }
        if signalled {
            let mut buffer = [0u8; 1024];
            while rustix::io::read(&signal_fd, &mut buffer).is_ok_and(|read| read == buffer.len()) {}
            reap(socket, &mut running)?;
        }
    }
}

fn reap(socket: &OwnedFd, running: &mut HashMap<Pid, u64>) -> io::Result<()> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let Some(id) = running.remove(&pid) {
            let exit = Exit { code: status.exit_status(), signal: status.terminating_signal() };
            wire::send(socket.as_fd(), &Reply::Exited { id, exit }, &[])?;
        }
    }
    Ok(())
}

/// Forks the process that becomes a container's init, or one that enters a container.
fn start(home: &OwnedFd, target_pid: Option<i32>, descriptors: Vec<OwnedFd>) -> io::Result<Pid> {
    let target = target_pid.map(open_namespaces).transpose()?;
    match &target {
        None => sys::unshare(UnshareFlags::NEWPID)?,
        Some(namespaces) => move_into_link_name_space(namespaces.pid.as_fd(), Some(LinkNameSpaceType::ProcessID))?,
    }
    let forked = sys::fork();
    match forked {
        Ok(Fork::Child) => child::run(target, descriptors),
        Ok(Fork::Parent(pid)) => {
            move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
            Ok(pid)
        }
        Err(error) => {
            move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
            Err(error)
        }
    }
}

/// The namespaces of a running container that a process of `exec` joins.
pub(in crate::node) struct Namespaces {
    pid: OwnedFd,
    mount: OwnedFd,
}

fn open_namespaces(pid: i32) -> io::Result<Namespaces> {
    let open = |name: &str| std::fs::File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from);
    Ok(Namespaces { pid: open("pid")?, mount: open("mnt")? })
}
