//! Runs `meshctl` in an environment of its own, and compares what it says with golden files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A home directory with fixtures in it, and nothing that belongs to whoever runs the tests.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for entry in std::fs::read_dir(here("fixtures")).expect("fixtures").flatten() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
        }
        Home { dir, arguments: Vec::new() }
    }

    /// Every command gets these arguments too.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, "")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("meshctl starts");
        let mut stdin = child.stdin.take().expect("piped");
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).expect("text").replace(&self.dir.path().display().to_string(), "HOME")
        };
        Ran { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code().unwrap_or(-1) }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command
            .args(arguments)
            .args(&self.arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("COLUMNS", "100")
            .current_dir(self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs commands and compares the transcript with `golden/NAME.txt`; `BLESS=1` rewrites it.
    pub(crate) fn transcript(&self, name: &str, commands: &[&[&str]]) {
        let mut text = String::new();
        for arguments in commands {
            let ran = self.run(arguments);
            text.push_str(&format!("$ meshctl {}\n", quoted(arguments)));
            text.push_str(&ran.stdout);
            for line in ran.stderr.lines() {
                text.push_str(format!("2> {line}").trim_end());
                text.push('\n');
            }
            if ran.code != 0 {
                text.push_str(&format!("exit {}\n", ran.code));
            }
            text.push('\n');
        }
        compare(name, &text);
    }
}

/// Compares a text with `golden/NAME.txt`.
pub(crate) fn compare(name: &str, text: &str) {
    let path = here("golden").join(format!("{name}.txt"));
    if bless() {
        std::fs::write(&path, text).expect("written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name} is not as it was (BLESS=1 rewrites it). Now:\n{text}");
}

#[expect(clippy::disallowed_methods, reason = "a switch of the tests")]
pub(crate) fn bless() -> bool {
    std::env::var("BLESS").is_ok()
}

fn here(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir)
}

fn quoted(arguments: &[&str]) -> String {
    let quote = |a: &&str| if a.contains([' ', '*', '{', '$']) { format!("'{a}'") } else { (*a).to_owned() };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}
