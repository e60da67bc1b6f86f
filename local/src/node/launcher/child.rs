//! What a forked child of the launcher does until it executes a container's program.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, configure_capability_in_ambient_set,
    move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::spec::{Spec, Target, capability};
use super::{Namespaces, rootfs};
use crate::sys::{self, Fork, Signals};

/// Status of a process whose program could not be executed; the reason is on the pipe.
const CANNOT_START: i32 = 128;
/// Signals that a container's init passes on to its program.
const FORWARDED: [i32; 6] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// The descriptors of a request, by name.
struct Descriptors {
    spec: OwnedFd,
    streams: [OwnedFd; 3],
    failure: OwnedFd,
    network: OwnedFd,
    ipc: OwnedFd,
    host_name: OwnedFd,
}

/// Becomes the process that the request asks for; what goes wrong is written to the request's pipe.
pub(super) fn run(target: Option<Namespaces>, descriptors: Vec<OwnedFd>) -> ! {
    let Ok([spec, stdin, stdout, stderr, failure, network, ipc, host_name]) =
        <[OwnedFd; super::wire::DESCRIPTORS]>::try_from(descriptors)
    else {
        sys::exit_now(CANNOT_START)
    };
    let descriptors = Descriptors { spec, streams: [stdin, stdout, stderr], failure, network, ipc, host_name };
    let report = descriptors.failure.try_clone();
    let code = match set_up(target, descriptors) {
        Ok(code) => code,
        Err(error) => {
            if let Ok(report) = report {
                let _ = File::from(report).write_all(error.to_string().as_bytes());
            }
            CANNOT_START
        }
    };
    sys::exit_now(code)
}

/// Adds what was being done to an error.
trait Doing<T> {
    fn doing(self, what: &str) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> io::Result<T> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            io::Error::new(error.kind(), format!("{what}: {error}"))
        })
    }
}

fn set_up(target: Option<Namespaces>, descriptors: Descriptors) -> io::Result<i32> {
    sys::unblock_signals()?;
    let mut text = Vec::new();
    File::from(descriptors.spec).read_to_end(&mut text).doing("cannot read the launch request")?;
    let spec: Spec = serde_json::from_slice(&text)?;
    for (fd, kind) in [
        (&descriptors.network, LinkNameSpaceType::Network),
        (&descriptors.ipc, LinkNameSpaceType::InterProcessCommunication),
        (&descriptors.host_name, LinkNameSpaceType::HostNameAndNISDomainName),
    ] {
        move_into_link_name_space(fd.as_fd(), Some(kind)).doing("cannot enter the pod's namespaces")?;
    }
    match (target, &spec.target) {
        (Some(namespaces), _) => {
            move_into_link_name_space(namespaces.mount.as_fd(), Some(LinkNameSpaceType::Mount))
                .doing("cannot enter the container's file system")?;
            Err(execute(&spec, &descriptors.streams))
        }
        (None, Target::Container { mounts, staging, read_only }) => {
            sys::unshare(UnshareFlags::NEWNS).doing("cannot make a mount namespace")?;
            rootfs::build(staging, mounts, *read_only)?;
            run_as_init(&spec, &descriptors.streams, &descriptors.failure)
        }
        (None, Target::Running(pid)) => Err(io::Error::other(format!("container with process {pid} is not running"))),
    }
}

/// Forks the program and stays as the container's PID 1 until the program ends.
fn run_as_init(spec: &Spec, streams: &[OwnedFd; 3], failure: &OwnedFd) -> io::Result<i32> {
    let mut caught = FORWARDED.to_vec();
    caught.push(libc::SIGCHLD);
    let signals = Signals::block(&caught)?;
    match sys::fork().doing("cannot fork the container's program")? {
        Fork::Child => {
            sys::unblock_signals()?;
            let error = execute(spec, streams);
            let _ = File::from(failure.try_clone()?).write_all(error.to_string().as_bytes());
            sys::exit_now(CANNOT_START)
        }
        Fork::Parent(program) => {
            sys::close_all_except(&[])?;
            drop_capabilities(&[])?;
            let _ = rustix::thread::set_name(c"mesh-init");
            sys::exit_now(wait_for(program, &signals).unwrap_or(CANNOT_START))
        }
    }
}

fn wait_for(program: Pid, signals: &Signals) -> io::Result<i32> {
    loop {
        let signal = signals.wait()?;
        if signal != libc::SIGCHLD {
            if let Some(signal) = Signal::from_named_raw(signal) {
                let _ = kill_process(program, signal);
            }
            continue;
        }
        while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if ended == program {
                return Ok(status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                    .unwrap_or(255));
            }
        }
    }
}

/// Executes the program; returns only when that fails.
fn execute(spec: &Spec, streams: &[OwnedFd; 3]) -> io::Error {
    match prepare(spec, streams) {
        Ok(mut command) => {
            let error = command.exec();
            let program = spec.argv.first().map_or("", String::as_str);
            io::Error::new(error.kind(), format!("cannot execute `{program}`: {error}"))
        }
        Err(error) => error,
    }
}

fn prepare(spec: &Spec, streams: &[OwnedFd; 3]) -> io::Result<Command> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| io::Error::other("there is no program to run"))?;
    std::env::set_current_dir(&spec.directory)
        .doing(&format!("cannot use `{}` as working directory", spec.directory.display()))?;
    let _ = rustix::process::setsid();
    if spec.terminal {
        rustix::process::ioctl_tiocsctty(&streams[0]).doing("cannot use the terminal")?;
    }
    for (number, stream) in (0..).zip(streams) {
        sys::install_descriptor(stream.as_fd(), number)?;
    }
    drop_capabilities(&spec.capabilities)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
    debug_assert!(streams.iter().all(|stream| stream.as_raw_fd() > 2), "a stream took a standard descriptor's place");
    Ok(command)
}

/// Leaves this process, and everything it will ever execute, with the named capabilities alone.
fn drop_capabilities(names: &[String]) -> io::Result<()> {
    let mut kept = CapabilitySet::empty();
    for name in names {
        kept |= capability(name).ok_or_else(|| {
            io::Error::other(format!("capability {name} cannot be given; NET_ADMIN, NET_RAW, NET_BIND_SERVICE can"))
        })?;
    }
    for bit in 0..64u32 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor any above it.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).doing("cannot drop capabilities"),
        }
    }
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })
        .doing("cannot drop capabilities")?;
    for one in kept.iter() {
        configure_capability_in_ambient_set(one, true).doing("cannot keep a capability")?;
    }
    set_no_new_privs(true).doing("cannot refuse new privileges")
}
