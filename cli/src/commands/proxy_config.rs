//! pc
use clap::Args;

use crate::App;
use crate::error::Error;

/// Arguments.
#[derive(Debug, Args)]
pub struct ConfigArgs {}

/// Runs.
///
/// # Errors
/// None.
pub fn run(_app: &App, _args: &ConfigArgs) -> Result<(), Error> {
    Err(Error::failed("not there"))
}
