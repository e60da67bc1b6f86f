//! The hidden `local supervise`, which becomes the mesh's supervisor. It runs before any thread exists.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use local::Options;

/// Runs the supervisor if the command line asks for it, as only `local up` does.
#[must_use]
pub fn hidden(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments {
        [_, first, second, rest @ ..] if first == "local" && second == "supervise" => Some(supervise(rest)),
        _ => None,
    }
}

fn supervise(arguments: &[OsString]) -> ExitCode {
    let Some(options) = options(arguments) else {
        eprintln!("error: `local supervise` is started by `local up`");
        return ExitCode::from(2);
    };
    if arguments.iter().any(|a| a == "--detach") {
        // The terminal's signals are not for the supervisor. It fails for the leader of a process group, who is one
        // already.
        let _ = rustix::process::setsid();
    }
    local::supervise(&options)
}

fn options(arguments: &[OsString]) -> Option<Options> {
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    Some(Options {
        state_dir: PathBuf::from(value("--state-dir")?),
        host_port: value("--port")?.to_str()?.parse().ok()?,
        next_free_port: arguments.iter().any(|a| a == "--next-free"),
        programs: PathBuf::from(value("--programs")?),
    })
}

/// The command that starts the supervisor.
pub(super) fn command(program: &Path, options: &Options, is_detached: bool) -> Command {
    let mut command = Command::new(program);
    command.args(["local", "supervise", "--state-dir"]).arg(&options.state_dir);
    command.args(["--port", &options.host_port.to_string(), "--programs"]).arg(&options.programs);
    if options.next_free_port {
        command.arg("--next-free");
    }
    if is_detached {
        command.arg("--detach");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_the_command_line_is_read_back() {
        let wanted = Options { state_dir: "/s".into(), host_port: 8080, next_free_port: true, programs: "/p".into() };
        let command = command(Path::new("meshctl"), &wanted, true);
        let arguments: Vec<OsString> = command.get_args().skip(2).map(ToOwned::to_owned).collect();
        let read = options(&arguments).expect("readable");
        assert_eq!((read.state_dir, read.host_port, read.next_free_port), ("/s".into(), 8080, true));
        assert_eq!(read.programs, PathBuf::from("/p"));
    }
}
