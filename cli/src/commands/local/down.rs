//! `local down`: stops the mesh.

use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::Mesh;
use crate::app::App;
use crate::error::{Error, io_words};
use crate::wait::took;

const EXAMPLES: &str = "\
Examples:
  # Stop it; `local up` brings it back with all its objects
  meshctl local down
  # Stop it and forget everything
  meshctl local down --purge";

/// How long the mesh may take to end by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// Arguments of `local down`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DownArgs {
    /// Delete its objects, keys and logs too
    #[arg(long)]
    purge: bool,
}

/// Runs `local down`.
///
/// # Errors
/// When the mesh does not end, or its state cannot be deleted.
pub(super) fn run(app: &App, mesh: &Mesh, args: &DownArgs) -> Result<(), Error> {
    match mesh.record()? {
        Some(record) => {
            let started = Instant::now();
            app.block_on(stop(mesh, record.pid))?;
            app.ui.say(&format!("local mesh `{}` stopped after {}", mesh.name, took(started.elapsed())));
        }
        None => app.ui.say(&format!("local mesh `{}` does not run", mesh.name)),
    }
    super::kubeconfig::unmerge(app, mesh);
    if args.purge {
        return purge(app, mesh);
    }
    Ok(())
}

async fn stop(mesh: &Mesh, pid: u32) -> Result<(), Error> {
    terminate(pid);
    let started = Instant::now();
    let mut is_killed = false;
    while mesh.record()?.is_some_and(|record| record.pid == pid) || is_there(pid) {
        if started.elapsed() > LIMIT && !is_killed {
            send(pid, Signal::KILL);
            is_killed = true;
        }
        if started.elapsed() > LIMIT + Duration::from_secs(5) {
            return Err(Error::timeout(format!("local mesh `{}` does not end (process {pid})", mesh.name)));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Asks a process to end.
pub(super) fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

fn is_there(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn purge(app: &App, mesh: &Mesh) -> Result<(), Error> {
    if !mesh.dir.exists() {
        return Ok(());
    }
    // Whatever is not the state of a mesh is not ours to delete.
    // A mesh that could not start has left its log alone.
    if ["lock", "kubeconfig", "supervisor.log"].iter().all(|file| !mesh.dir.join(file).exists()) {
        return Err(Error::failed(format!("{} is not the state of a mesh; it was left as it is", mesh.dir.display())));
    }
    std::fs::remove_dir_all(&mesh.dir)
        .map_err(|e| Error::failed(format!("cannot delete {}: {}", mesh.dir.display(), io_words(&e))))?;
    app.ui.say(&format!("deleted {}", mesh.dir.display()));
    Ok(())
}
