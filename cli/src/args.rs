//! The command line: what can be typed, what it means, and what is said to a slip.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    authz, ca, completion, create, debug, delete, describe, diff, edit, get, inject, install, local, proxy_config,
    proxy_status, validate, version, wait, write,
};
use crate::error::{EXIT_CODES, Error};

const EXAMPLES: &str = "\
Examples:
  # A mesh on this machine
  meshctl local up -f samples/bookinfo/bookinfo.yaml --wait
  # Change routing, and know when it holds
  meshctl create -f rules.yaml --wait
  # What is configured
  meshctl get route-rules -A
  # Whether every proxy follows
  meshctl proxy-status";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    about = "Installs, configures, inspects and debugs the mesh",
    after_help = EXAMPLES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Cli {
    /// Which mesh, and where in it.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a mesh on this machine, without root, containers or Kubernetes
    Local(local::LocalArgs),
    /// Creates objects; fails if one is there already
    Create(create::CreateArgs),
    /// Replaces objects; fails if one is not there
    Replace(write::ReplaceArgs),
    /// Creates or updates objects
    Apply(write::ApplyArgs),
    /// Deletes objects by file, or by kind and name
    Delete(delete::DeleteArgs),
    /// Shows what `apply` would change
    Diff(diff::DiffArgs),
    /// Changes an object in an editor
    Edit(edit::EditArgs),
    /// Waits until proxies have applied objects, or objects are as they should be
    Wait(wait::WaitForArgs),
    /// Shows objects
    Get(get::GetArgs),
    /// Shows what applies to a pod, a service or a rule, and what is wrong with it
    Describe(describe::DescribeArgs),
    /// Checks files without a mesh, and reports all problems at once
    Validate(validate::ValidateArgs),
    /// Adds the sidecar to the workloads of a file, without a mesh
    #[command(visible_alias = "inject")]
    KubeInject(inject::InjectArgs),
    /// Takes the sidecar out of the workloads of a file again
    Uninject(inject::UninjectArgs),
    /// Shows whether every proxy follows the control plane
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::StatusArgs),
    /// Shows what a proxy has been told: listeners, routes, clusters, endpoints
    #[command(visible_alias = "pc")]
    ProxyConfig(proxy_config::ConfigArgs),
    /// Shows and manages identities: the CA, certificates, join tokens
    Ca(ca::CaArgs),
    /// Collects configuration, logs, events and versions into one archive
    Debug(debug::DebugArgs),
    /// Says who may call what, and why
    Authz(authz::AuthzArgs),
    /// Installs the control plane in a Kubernetes cluster
    Install(install::InstallArgs),
    /// Removes the control plane from a Kubernetes cluster
    Uninstall(install::UninstallArgs),
    /// Prints what a shell needs to complete commands, names, pods, …
    Completion(completion::CompletionArgs),
    /// Shows the versions of client, control plane and proxies
    Version(version::VersionArgs),
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

/// Parses the command line.
///
/// # Errors
/// When it makes no sense, or when help is asked for.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    <Cli as clap::FromArgMatches>::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))
}

/// The whole command line, with the exit codes in every help.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command().after_help_exit_codes()
}

trait ExitCodes {
    fn after_help_exit_codes(self) -> Self;
}

impl ExitCodes for clap::Command {
    /// Appends the exit codes to the help of every command.
    fn after_help_exit_codes(mut self) -> Self {
        let text = match self.get_after_help() {
            Some(examples) => format!("{examples}\n\n{EXIT_CODES}"),
            None => EXIT_CODES.to_owned(),
        };
        self = self.after_help(text).disable_help_subcommand(true);
        let names: Vec<String> = self.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            self = self.mut_subcommand(name, ExitCodes::after_help_exit_codes);
        }
        self
    }
}

/// Whether the answer is to be JSON, as far as can be told before the command line is understood.
#[must_use]
pub fn asks_for_json(arguments: &[OsString]) -> bool {
    let words: Vec<_> = arguments.iter().skip(1).map(|a| a.to_string_lossy()).take_while(|a| a != "--").collect();
    words.iter().enumerate().any(|(i, word)| match word.as_ref() {
        "-o" | "--output" => words.get(i + 1).is_some_and(|next| next == "json"),
        "-ojson" | "-o=json" | "--output=json" => true,
        _ => false,
    })
}

/// Turns clap's words into ours: what, and what next.
#[must_use]
pub fn explain(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) => Some(list.join(", ")),
        _ => None,
    };
    let first = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) => list.first().cloned(),
        _ => None,
    };
    let invalid = text(ContextKind::InvalidArg).map(|argument| plain(&argument).to_owned()).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let help = "see `--help` of the command";
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let error = Error::usage(format!("there is no command `{word}`"));
            match first(ContextKind::SuggestedSubcommand) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("see `meshctl --help` for all commands"),
            }
        }
        ErrorKind::UnknownArgument => {
            let error = Error::usage(if invalid.starts_with('-') {
                format!("there is no flag `{invalid}` here")
            } else {
                format!("`{invalid}` is one argument too many")
            });
            match first(ContextKind::SuggestedArg) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(help),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => Error::usage(format!("{invalid} needs a value")).hint(help),
        ErrorKind::InvalidValue => {
            let valid = text(ContextKind::ValidValue);
            let error = Error::usage(format!("{invalid} cannot be `{value}`"));
            match (first(ContextKind::SuggestedValue), valid) {
                (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
                (None, Some(valid)) => error.hint(format!("it can be {valid}")),
                _ => error.hint(help),
            }
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Error::usage(format!("{invalid} cannot be `{value}`: {why}"))
        }
        ErrorKind::MissingRequiredArgument => Error::usage(format!("missing {invalid}")).hint(help),
        ErrorKind::ArgumentConflict => {
            let prior = text(ContextKind::PriorArg).map(|argument| plain(&argument).to_owned()).unwrap_or_default();
            if prior.is_empty() || prior == invalid {
                return Error::usage(format!("{invalid} can be given only once"));
            }
            Error::usage(format!("{invalid} cannot be given together with {prior}"))
        }
        ErrorKind::NoEquals => Error::usage(format!("{invalid} takes its value after `=`")),
        _ => {
            let rendered = error.render().to_string();
            let line = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::usage(line).hint(help)
        }
    }
}

/// `<KIND>...` → `KIND`, `--output <FORMAT>` → `--output`.
fn plain(argument: &str) -> &str {
    match argument.split_once(' ') {
        Some((flag, _)) if flag.starts_with('-') => flag,
        _ if argument.starts_with('-') => argument.split(['[', '=']).next().unwrap_or(argument),
        _ => argument.trim_end_matches("...").trim_start_matches(['<', '[']).trim_end_matches(['>', ']']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_consistent() {
        Cli::command().debug_assert();
    }

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
