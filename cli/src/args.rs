//! The command line: what can be typed, what it means, and what is said to a slip.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser};

use crate::commands::Command;
use crate::error::{EXIT_CODES, Error};
use crate::flags::Global;

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
}
