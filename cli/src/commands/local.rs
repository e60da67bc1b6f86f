//! `local`: a mesh on this machine.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::App;
use crate::error::Error;

/// File in a local mesh's state directory that holds the root which vouches for its Pilot.
pub const ROOT_FILE: &str = "root-cert.pem";

/// Arguments of `local`.
#[derive(Debug, Args)]
pub struct LocalArgs {}

/// Hidden.
#[must_use]
pub fn hidden(_arguments: &[OsString]) -> Option<ExitCode> {
    None
}

/// Runs.
///
/// # Errors
/// None.
pub fn run(_app: &App, _args: LocalArgs) -> Result<(), Error> {
    Err(Error::failed("not there"))
}
