//! The supervisor of a mesh on one machine.
//!
//! ```text
//! supervisor (host namespaces: lock, host ports)
//!   └── PID 1 (own user, network, mount, PID, IPC and UTS namespaces: API, controllers, node, DNS)
//!         └── launcher ── containers …
//! ```
//!
//! PID 1 is killed by the kernel when the supervisor ends, and everything else when PID 1 ends, so that no way of
//! dying leaves a process, mount, interface or socket behind.

mod host_ports;
mod inner;
mod listeners;
mod namespaces;
mod needs;
mod record;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

use crate::sys::Signals;

pub use listeners::PortInUse;
pub(crate) use listeners::{HostPort, Listeners};
pub use needs::Missing;
pub(crate) use needs::find_program;
pub use record::{PortRecord, Record, read_record};

/// How a mesh on this machine is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the mesh keeps its objects, keys and logs.
    pub state_dir: PathBuf,
    /// Port on the host for the first LoadBalancer port of the mesh (the ingress gateway's).
    pub host_port: u16,
    /// Whether the next free port is taken when `host_port` is in use.
    pub next_free_port: bool,
    /// Directory of `mesh-proxy`, `mesh-pilot` and `mesh-ca`; usually that of the running program.
    pub programs: PathBuf,
}

/// Why a mesh could not be started or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The machine lacks something.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A port on the host cannot be had.
    #[error(transparent)]
    Port(#[from] PortInUse),
    /// Another supervisor runs on the same state.
    #[error("a mesh is already running on {state_dir} (process {pid}); stop it with `meshctl local down`")]
    Running {
        /// The state directory.
        state_dir: String,
        /// Process ID of its supervisor.
        pid: String,
    },
    /// The state directory cannot be used.
    #[error("cannot use {path}: {source}; choose another directory with --state-dir")]
    State {
        /// The file or directory.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Runs a mesh until it is told to end (SIGTERM or SIGINT) or fails.
///
/// The calling process must have one thread: call this before any runtime or logger exists. What it says goes to
/// standard error.
#[must_use]
pub fn supervise(options: &Options) -> ExitCode {
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError::System { doing, source }
}

/// What the supervisor may know of its caller's environment.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "XDG_STATE_HOME", "RUST_BACKTRACE"];

/// Executes this program again without the rest of the environment, if there is a rest: whatever runs in a pod can
/// read the environment of its init, which is a fork of this process, and the user's secrets are no business of it.
fn leave_environment_behind() -> Result<(), SuperviseError> {
    use std::os::unix::process::CommandExt as _;
    let known = |name: &std::ffi::OsStr| ENVIRONMENT.iter().any(|known| name == *known);
    if std::env::vars_os().all(|(name, _)| known(&name)) {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(system("find the running program"))?;
    let kept = std::env::vars_os().filter(|(name, _)| known(name));
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).env_clear().envs(kept);
    Err(system("start the supervisor again")(command.exec()))
}

fn run(options: &Options) -> Result<ExitCode, SuperviseError> {
    leave_environment_behind()?;
    needs::check_programs()?;
    let _lock = lock(&options.state_dir)?;
    record::remove(&options.state_dir);
    let listeners = Listeners::open(options)?;
    let signals =
        Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD]).map_err(system("watch signals"))?;
    let own = std::process::id();
    let identity = (own, record::start_ticks(own).unwrap_or(0));
    let (requests, asks) = crate::node::wire::socket_pair().map_err(system("make a socket"))?;
    let init = namespaces::enter(|| inner::run(options, &listeners, identity, asks))?;
    drop(listeners);
    let code = wait(init, &signals, &requests).map_err(system("wait for the mesh"))?;
    record::remove(&options.state_dir);
    Ok(code)
}

/// Waits for PID 1, passes on the wish to end, and opens ports on the host that it asks for.
fn wait(init: Pid, signals: &Signals, requests: &OwnedFd) -> io::Result<ExitCode> {
    let pending = signals.descriptor()?;
    let mut is_asked = true;
    loop {
        let mut fds = vec![PollFd::new(&pending, PollFlags::IN)];
        if is_asked {
            fds.push(PollFd::new(requests, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.get(1).is_some_and(|it| !it.revents().is_empty()) {
            // PID 1 may end in the middle of a question.
            is_asked = host_ports::answer(requests).unwrap_or(false);
        }
        // One record of 128 bytes per signal, which begins with its number.
        let mut record = [0u8; 128];
        while matches!(rustix::io::read(&pending, &mut record), Ok(128)) {
            let [a, b, c, d, ..] = record;
            if i32::from_ne_bytes([a, b, c, d]) != libc::SIGCHLD {
                let _ = kill_process(init, Signal::TERM);
            }
        }
        while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if ended == init {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                return Ok(ExitCode::from(code));
            }
        }
    }
}

fn lock(state_dir: &Path) -> Result<File, SuperviseError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| SuperviseError::State { path, source }
    };
    make_private_dir(state_dir).map_err(failed(state_dir))?;
    let path = state_dir.join("lock");
    let file =
        File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0).map_err(failed(&path))?;
            io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes()).map_err(failed(&path))?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            Err(SuperviseError::Running { state_dir: state_dir.display().to_string(), pid })
        }
        Err(error) => Err(failed(&path)(error.into())),
    }
}

/// Makes a directory that only its owner can look into.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Addresses that the supervisor listens on for one port of the host.
pub(crate) fn loopback_addresses(port: u16) -> [SocketAddr; 2] {
    use std::net::{Ipv4Addr, Ipv6Addr};
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}
