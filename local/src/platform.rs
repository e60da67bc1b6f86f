//! Starting, finding and ending a mesh on this machine, from outside.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::supervisor::{Record, SuperviseError, make_private_dir, read_record};

/// The name of the mesh that is meant when none is named.
pub const DEFAULT_NAME: &str = "default";

/// Where a mesh keeps its state.
///
/// `state_home` is `$XDG_STATE_HOME` and `home` the home directory; the former goes first.
///
/// # Errors
/// When neither is known, or the name is not one for a directory.
pub fn state_dir(name: &str, state_home: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, PlatformError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(valid) {
        return Err(PlatformError::Name { name: name.to_owned() });
    }
    let base = match (state_home.filter(|path| path.is_absolute()), home) {
        (Some(state_home), _) => state_home.to_path_buf(),
        (None, Some(home)) => home.join(".local/state"),
        (None, None) => return Err(PlatformError::NoHome),
    };
    Ok(base.join("meshctl").join(name))
}

/// Why a mesh could not be started, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A name that is not one.
    #[error("`{name}` is not a name for a mesh; use letters, digits, `-`, `_` and `.`")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no place for its state.
    #[error("neither $XDG_STATE_HOME nor $HOME is set; name a directory with --state-dir")]
    NoHome,
    /// The supervisor has refused or failed; it says why itself.
    #[error("{message}")]
    Supervisor {
        /// What it said, without the leading `error: `.
        message: String,
    },
    /// The supervisor is not up in time.
    #[error("the mesh was not up within {}s; its log is {log}", after.as_secs())]
    Slow {
        /// How long was waited.
        after: Duration,
        /// Where its log is.
        log: String,
    },
    /// The supervisor does not end.
    #[error("process {pid} of the mesh has not ended within {}s; end it with `kill -9 {pid}`", after.as_secs())]
    Stubborn {
        /// Its process ID.
        pid: u32,
        /// How long was waited.
        after: Duration,
    },
    /// The system refused something.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be started as asked.
    #[error(transparent)]
    Refused(#[from] SuperviseError),
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> PlatformError {
    move |source| PlatformError::System { doing: doing.into(), source }
}

/// How a supervisor is started.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// The program, usually `meshctl` itself.
    pub program: PathBuf,
    /// Its arguments, by which it comes to call [`crate::supervise`].
    pub arguments: Vec<String>,
    /// The state directory that those arguments name.
    pub state_dir: PathBuf,
    /// How long to wait until it is up.
    pub patience: Duration,
}

/// How often a fact that only polling can show is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Starts a supervisor that outlives the caller, and waits until its API answers.
///
/// # Errors
/// With the supervisor's own words when it refuses.
pub async fn spawn_supervisor(spawn: &Spawn) -> Result<Record, PlatformError> {
    make_private_dir(&spawn.state_dir).map_err(system(format!("make {}", spawn.state_dir.display())))?;
    let log_path = spawn.state_dir.join("supervisor.log");
    let mut child = start(spawn, &log_path)?;
    let deadline = Instant::now() + spawn.patience;
    loop {
        let record = status(&spawn.state_dir)?;
        if let Some(record) = record.filter(|record| record.pid == child.id()) {
            return Ok(record);
        }
        if child.try_wait().map_err(system("wait for the supervisor"))?.is_some() {
            return Err(PlatformError::Supervisor { message: last_words(&log_path) });
        }
        if Instant::now() >= deadline {
            return Err(PlatformError::Slow { after: spawn.patience, log: log_path.display().to_string() });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn start(spawn: &Spawn, log_path: &Path) -> Result<Child, PlatformError> {
    use std::os::unix::process::CommandExt as _;
    let log = std::fs::File::create(log_path).map_err(system(format!("write {}", log_path.display())))?;
    let errors = log.try_clone().map_err(system("use the log"))?;
    let mut command = Command::new(&spawn.program);
    command.args(&spawn.arguments).stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/").process_group(0);
    command.spawn().map_err(system(format!("start {}", spawn.program.display())))
}

/// What a supervisor that has ended said last.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    match text.rsplit_once("error: ").filter(|(before, _)| before.is_empty() || before.ends_with('\n')) {
        Some((_, message)) => message.trim_end().to_owned(),
        None if text.trim().is_empty() => "the supervisor has ended without a word".to_owned(),
        None => text.trim_end().to_owned(),
    }
}

/// The supervisor that runs on a state directory, if one does.
///
/// # Errors
/// When its record cannot be read.
pub fn status(state_dir: &Path) -> Result<Option<Record>, PlatformError> {
    read_record(state_dir).map_err(system(format!("read {}", state_dir.join("supervisor.json").display())))
}

/// What [`down`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    /// Whether a mesh was running.
    pub was_running: bool,
    /// Whether its state was removed.
    pub purged: bool,
}

/// Ends the mesh of a state directory: pods get their time to end, and what has not ended by then is killed.
///
/// With `purge` the state is removed too. Nothing running is no error.
///
/// # Errors
/// When the supervisor does not end even when killed, or the state cannot be removed.
pub async fn down(state_dir: &Path, patience: Duration, purge: bool) -> Result<Down, PlatformError> {
    let record = status(state_dir)?;
    if let Some(record) = &record {
        signal(record, Signal::TERM);
        if !has_ended(record, patience).await {
            signal(record, Signal::KILL);
            let after = Duration::from_secs(5);
            if !has_ended(record, after).await {
                return Err(PlatformError::Stubborn { pid: record.pid, after: patience + after });
            }
        }
    }
    let mut purged = false;
    if purge && state_dir.exists() {
        std::fs::remove_dir_all(state_dir).map_err(system(format!("remove {}", state_dir.display())))?;
        purged = true;
    }
    Ok(Down { was_running: record.is_some(), purged })
}

fn signal(record: &Record, signal: Signal) {
    if let Some(pid) = i32::try_from(record.pid).ok().and_then(Pid::from_raw)
        && record.is_alive()
    {
        let _ = kill_process(pid, signal);
    }
}

async fn has_ended(record: &Record, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while record.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_lies_in_the_state_home_and_names_cannot_lead_out_of_it() {
        let home = Path::new("/home/ann");
        let of = |name: &str, state_home: Option<&str>| state_dir(name, state_home.map(Path::new), Some(home)).ok();
        assert_eq!(of("default", None), Some("/home/ann/.local/state/meshctl/default".into()));
        assert_eq!(of("b", Some("/var/x")), Some("/var/x/meshctl/b".into()));
        assert_eq!(of("b", Some("relative")), Some("/home/ann/.local/state/meshctl/b".into()));
        for wrong in ["", "..", "a/b", ".hidden", "a b"] {
            assert_eq!(of(wrong, None), None, "{wrong}");
        }
    }
}
