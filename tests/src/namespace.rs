//! A namespace of users and mounts, for what only root may do elsewhere.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A namespace of users and mounts of its own, which lives as long as this.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one, and mounts there as a script says, which is given a directory as `$0`.
    ///
    /// # Panics
    ///
    /// When that cannot be done.
    #[must_use]
    pub fn with(mount: &str, directory: &Path) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--", "sh", "-c"])
            .arg(format!("{mount} && echo mounted && exec cat"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut line = String::new();
        let output = holder.stdout.take().expect("a pipe");
        let _ = BufReader::new(output).read_line(&mut line).expect("it speaks");
        assert_eq!(line, "mounted\n", "nothing could be mounted: {mount}");
        Namespace { holder }
    }

    /// What stands before a command that is to run there, with its state in this directory.
    #[must_use]
    pub fn enter(&self, state: &Path) -> Vec<String> {
        let target = format!("--target={}", self.holder.id());
        let state = format!("XDG_STATE_HOME={}", state.display());
        ["nsenter", &target, "--user", "--mount", "--preserve-credentials", "--", "env", &state]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
