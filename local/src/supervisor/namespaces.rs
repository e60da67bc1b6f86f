//! Makes the mesh's namespaces and the process that is PID 1 in them.

use std::fs;
use std::io;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, getgid, getuid, set_child_subreaper, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use super::{SuperviseError, needs, system};
use crate::sys::{self, Fork};

/// Forks PID 1 of new namespaces, which runs `inside` and exits with what it returns; returns its process ID.
///
/// Between the supervisor and PID 1 stands, for a moment, a process that makes the namespaces and ends: the supervisor
/// itself stays in those of the host, where it owns the host's ports.
pub(super) fn enter(inside: impl FnOnce() -> u8) -> Result<Pid, SuperviseError> {
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| system("adopt processes")(error.into()))?;
    let supervisor = std::process::id();
    let (failure, failure_writer) = pipe()?;
    // Held by the supervisor alone: PID 1 sees by its end that the supervisor has gone.
    let (alive, alive_writer) = pipe()?;
    match sys::fork().map_err(system("start a process"))? {
        Fork::Child => {
            drop(failure);
            drop(alive_writer);
            make(supervisor, failure_writer, &alive, inside)
        }
        Fork::Parent(maker) => {
            drop(failure_writer);
            let mut message = String::new();
            fs::File::from(failure).read_to_string(&mut message).map_err(system("make namespaces"))?;
            let _ = rustix::process::waitpid(Some(maker), WaitOptions::empty());
            std::mem::forget(alive_writer);
            parse_outcome(&message)
        }
    }
}

/// Reads what the maker wrote: the process ID of PID 1 as the host sees it, or an error.
fn parse_outcome(message: &str) -> Result<Pid, SuperviseError> {
    if let Some(pid) = message.strip_prefix("pid ").and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw) {
        return Ok(pid);
    }
    let (step, code) = message.split_once(' ').unwrap_or(("", "0"));
    let error = code.trim().parse().map_or_else(|_| io::Error::other(message.to_owned()), io::Error::from_raw_os_error);
    match step {
        "namespaces" => Err(needs::explain(error).into()),
        _ => Err(system("set up the user namespace")(error)),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SuperviseError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| system("make a pipe")(error.into()))
}

/// The process in between: makes the namespaces, forks PID 1, says so and ends.
fn make(supervisor: u32, report: OwnedFd, alive: &OwnedFd, inside: impl FnOnce() -> u8) -> ! {
    let mut report = fs::File::from(report);
    let (uid, gid) = (getuid(), getgid());
    let flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    let outcome = sys::unshare(flags).map_err(|error| ("namespaces", error)).and_then(|()| {
        map_ids(uid.as_raw(), gid.as_raw()).map_err(|error| ("ids", error))?;
        sys::fork().map_err(|error| ("namespaces", error))
    });
    match outcome {
        Ok(Fork::Child) => {
            drop(report);
            sys::exit_now(i32::from(become_init(supervisor, alive, inside)))
        }
        Ok(Fork::Parent(pid)) => {
            let _ = write!(report, "pid {}", pid.as_raw_pid());
            sys::exit_now(0)
        }
        Err((step, error)) => {
            let _ = write!(report, "{step} {}", error.raw_os_error().unwrap_or(0));
            sys::exit_now(1)
        }
    }
}

/// Maps the one user and group this process has to 0.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn become_init(supervisor: u32, alive: &OwnedFd, inside: impl FnOnce() -> u8) -> u8 {
    match tie_to_supervisor(supervisor, alive).and_then(|()| mount_proc()) {
        Ok(()) => inside(),
        Err(error) => {
            eprintln!("error: cannot set up the mesh's namespaces: {error}");
            1
        }
    }
}

/// Lets the kernel kill this process when the supervisor ends, however it ends.
///
/// The death signal is tied to the parent of the moment. That is the maker until it has ended, so this waits until the
/// supervisor is the parent, as the host's /proc (which is still mounted) shows it.
fn tie_to_supervisor(supervisor: u32, alive: &OwnedFd) -> io::Result<()> {
    loop {
        let status = fs::read_to_string("/proc/self/status")?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim);
        if parent == Some(supervisor.to_string().as_str()) {
            break;
        }
        check_alive(alive)?;
        rustix::thread::sched_yield();
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    check_alive(alive)
}

fn check_alive(alive: &OwnedFd) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(alive, PollFlags::IN)];
    poll(&mut fds, Some(&now))?;
    if fds[0].revents().contains(PollFlags::HUP) { Err(io::Error::other("the supervisor has ended")) } else { Ok(()) }
}

fn mount_proc() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(())
}
