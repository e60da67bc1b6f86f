//! What several commands take: which mesh, files, how long to wait, and what a dry run is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Which mesh, and where in it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which mesh")]
pub struct Global {
    /// Namespace; by default that of the context
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Kubeconfig file; by default $KUBECONFIG, else a running local mesh, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A local mesh, by the name it was started with
    #[arg(long = "name", global = true, value_name = "MESH", conflicts_with_all = ["context", "kubeconfig"])]
    pub mesh: Option<String>,
}

/// How long to wait until every proxy has applied a change.
#[derive(Debug, Clone, Default, Args)]
pub struct WaitArgs {
    /// Wait until every proxy concerned has applied the change, by default for up to 30s
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "DURATION", default_missing_value = "30s", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// Reads `-f`.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// File, directory, or `-` for standard input; can be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Look into directories within directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// What `--dry-run` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Nothing is sent
    Client,
    /// The server checks it and changes nothing
    Server,
}

/// What `--dry-run` can be where objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trial {
    /// Nothing is sent
    Client,
    /// The server checks it and changes nothing
    Server,
    /// Of authentication policies: whom they would cut off, by what proxies have seen
    Traffic,
}

/// Reads a duration: `3s`, `500ms`, `1m30s`.
///
/// # Errors
/// When the text is no duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let not = || "not a duration, write it as `3s`, `500ms` or `1m30s`".to_owned();
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(not)?;
        let number: f64 = rest[..digits].parse().map_err(|_| not())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(not()),
        };
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| not())?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(not()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_usual() {
        for (text, millis) in [("3s", 3000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "3", "s", "3x", "-1s", "3 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
