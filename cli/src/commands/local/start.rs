//! Starting the supervisor, and waiting until its API answers.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use local::Options;
use local::supervisor::Record;
use tokio::time::{Instant, sleep};

use super::{Mesh, progress::Picture, supervise};
use crate::error::{Error, io_words};

/// How long the supervisor may take until its API answers.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(10);

/// A supervisor that was just started.
pub(super) struct Started {
    /// What it says about itself.
    pub(super) record: Record,
    /// Its process.
    pub(super) child: Child,
}

/// Starts the supervisor and waits until its API answers.
///
/// # Errors
/// In the supervisor's own words when it ends; when it does not get ready in time.
pub(super) async fn supervisor(
    mesh: &Mesh,
    port: Option<u16>,
    is_detached: bool,
    picture: &mut Picture,
) -> Result<Started, Error> {
    let program =
        std::env::current_exe().map_err(|e| Error::failed("cannot find the running program").because(io_words(&e)))?;
    let programs = program.parent().map(Path::to_path_buf).unwrap_or_default();
    check_programs(&programs)?;
    let options = Options {
        state_dir: mesh.dir.clone(),
        host_port: port.unwrap_or(8080),
        next_free_port: port.is_none(),
        programs,
    };
    let (log, log_path, from) = open_log(&mesh.dir)?;
    let output =
        log.try_clone().map_err(|e| Error::failed("cannot write the supervisor's log").because(io_words(&e)))?;
    let mut child = supervise::command(&program, &options, is_detached)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        .spawn()
        .map_err(|e| Error::failed("cannot start the supervisor").because(io_words(&e)))?;
    let started = Instant::now();
    loop {
        if let Some(record) = mesh.record()?.filter(|record| record.pid == child.id()) {
            return Ok(Started { record, child });
        }
        if let Ok(Some(status)) = child.try_wait() {
            picture.clear();
            return Err(ended(&log_path, from, &status.to_string()));
        }
        if started.elapsed() > LIMIT {
            picture.clear();
            let _ = child.kill();
            return Err(Error::timeout(format!("the supervisor did not get ready within {} s", LIMIT.as_secs()))
                .because(tail(&log_path, from))
                .hint(format!("its log is {}", log_path.display())));
        }
        picture.step("starting the mesh");
        sleep(EVERY).await;
    }
}

fn check_programs(programs: &Path) -> Result<(), Error> {
    let missing: Vec<&str> = ["mesh-proxy", "mesh-pilot", "mesh-ca"]
        .into_iter()
        .filter(|program| !programs.join(program).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("{} not beside meshctl in {}", missing.join(" and "), programs.display()))
        .hint("build them with `make`, or put them there"))
}

fn open_log(dir: &Path) -> Result<(File, PathBuf, u64), Error> {
    let failed = |path: &Path, e: &std::io::Error| {
        Error::failed(format!("cannot write {}: {}", path.display(), io_words(e)))
            .hint("choose another place with `--state-dir DIR`")
    };
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(dir)
        .map_err(|e| failed(dir, &e))?;
    let path = dir.join("supervisor.log");
    let file = File::options().create(true).append(true).open(&path).map_err(|e| failed(&path, &e))?;
    let from = file.metadata().map(|m| m.len()).unwrap_or(0);
    Ok((file, path, from))
}

/// What the supervisor said since it was started.
fn tail(path: &Path, from: u64) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(from)).is_ok()
    {
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The supervisor's own words, brought into the form that every error has.
fn ended(path: &Path, from: u64, status: &str) -> Error {
    let text = tail(path, from);
    let Some((_, said)) = text.split_once("error: ") else {
        return Error::failed(format!("the supervisor ended ({status})"))
            .because(text)
            .hint(format!("its log is {}", path.display()));
    };
    let (said, hint) = said.split_once("\nhint: ").map_or((said, None), |(said, hint)| (said, Some(hint)));
    let mut lines = said.lines();
    let mut error = Error::failed(lines.next().unwrap_or_default());
    for line in lines {
        error = error.because(line);
    }
    match hint {
        Some(hint) => error.hint(hint.trim_end()),
        None => error.hint(format!("its log is {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisors_words_become_an_error_with_its_hint() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("supervisor.log");
        std::fs::write(&path, "old\nerror: port 8080 is in use\nhint: choose another with --port\n").expect("written");
        let error = ended(&path, 4, "exit status: 1");
        assert_eq!(
            error.to_text(crate::paint::Paint::PLAIN),
            "error: port 8080 is in use\nhint: choose another with --port\n"
        );
    }
}
