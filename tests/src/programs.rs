//! Where the programs under test are, and how they are run.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The path of a program of this workspace, built with the profile of the running test.
///
/// # Panics
///
/// When it has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    let folder = test.parent().and_then(std::path::Path::parent).expect("target/<profile>/deps/<test>");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built; run `make build` (or cargo build --workspace --bins) first",
        path.display()
    );
    path
}

/// A program that others wrote, as `scripts/get-peers` builds it. `None` where it has not been built, which is told, and
/// is a failure in CI.
///
/// # Panics
///
/// In CI, when it has not been built.
#[must_use]
pub fn peer(name: &str) -> Option<PathBuf> {
    let path = repository().join("target/peers").join(name);
    if path.exists() {
        return Some(path);
    }
    let lacks = format!("{name} is not built; run scripts/get-peers first (it needs Go)");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lacks}");
    println!("left out: {lacks}");
    None
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ has a parent").to_path_buf()
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Takes it when the exit code is 0.
    ///
    /// # Panics
    ///
    /// With all that was printed, when it is not.
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "`{}` ended with {}\n{}\n{}", self.command, self.code, self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end with nothing on standard input.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ran {
    finish(format!("{command:?}"), command.stdin(Stdio::null()))
}

fn finish(text: String, command: &mut Command) -> Ran {
    let output = command.output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|e| panic!("`{text}` cannot be started: {e}"));
    Ran {
        command: text,
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs a command to its end with this text on standard input.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run_with_input(command: &mut Command, input: &str) -> Ran {
    let file = Scratch::file("input", input);
    let text = format!("{command:?} < {input:?}");
    let input = std::fs::File::open(file.path()).expect("it was written just now");
    finish(text, command.stdin(input))
}

/// Asks until the answer is `Ok`, at most for `within`; the last refusal is the panic's message.
///
/// # Panics
///
/// When the time is over.
pub fn eventually<T>(within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = std::time::SystemTime::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(reason) => {
                let waited = start.elapsed().unwrap_or(within);
                assert!(waited < within, "after {within:?}: {reason}");
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
}

/// A file of a test, deleted with its value.
#[derive(Debug)]
pub struct Scratch(String);

impl Scratch {
    /// Writes a file whose name ends so.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    #[must_use]
    pub fn file(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Scratch(path.to_string_lossy().into_owned())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody misses it.
        let _ = std::fs::remove_file(&self.0);
    }
}
