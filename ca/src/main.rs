//! `mesh-ca`, the mesh's certificate authority.

use std::process::ExitCode;

use clap::Parser;
use mesh_ca::daemon;
use mesh_ca::settings::{Flags, Settings};
use runtime::exit::{self, Failure};
use runtime::settings::Env;

fn main() -> ExitCode {
    exit::report(start())
}

fn start() -> Result<(), Failure> {
    let settings = Settings::read(Flags::parse(), &Env::process()).map_err(Failure::usage)?;
    runtime::logging::init(settings.log_format, &settings.log).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(daemon::run(settings))
}
