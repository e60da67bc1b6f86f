//! `meshctl`: the face of the mesh.
//!
//! A command is one file in [`commands`]. It is given an [`app::App`] (which mesh, which streams) and its own arguments, and
//! ends with `Ok` or an [`error::Error`]. Nothing that costs time exists before a command needs it: no runtime, no
//! client, no connection.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod app;
pub mod args;
pub mod certificate;
pub mod cluster;
pub mod columns;
pub mod commands;
pub mod context;
pub mod discovery;
pub mod error;
pub mod flags;
pub mod jsonpath;
pub mod mesh;
pub mod objects;
pub mod output;
pub mod paint;
pub mod pod;
pub mod resources;
pub mod settings;
pub mod table;
pub mod wait;

use app::App;
use args::Cli;
use error::Exit;
use output::Ui;
use settings::Settings;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the command line and says how the process ends.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    if let Some(code) = commands::local::hidden(&arguments) {
        return code;
    }
    match commands::completion::answer(args::command, &arguments) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        // A shell that waits at the cursor has no place for words.
        Err(_) => return ExitCode::from(Exit::Failed as u8),
    }
    let settings = Settings::of_process();
    let ui = Ui::of_process(&settings);
    let as_json = args::asks_for_json(&arguments);
    let exit = match args::parse(arguments) {
        Err(error) => usage(&error, as_json, &ui),
        Ok(Cli { global, command }) => {
            let app = App { global, ui, settings };
            match commands::run(&app, command) {
                Ok(()) => Exit::Ok as u8,
                Err(error) => output::report(&error, as_json, &ui),
            }
        }
    };
    ExitCode::from(exit)
}

/// Help and version are data and go to standard output; mistakes are errors like any other.
fn usage(error: &clap::Error, as_json: bool, ui: &Ui) -> u8 {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !as_json {
        ui.say(error.render().to_string().trim_end());
        return Exit::Usage as u8;
    }
    if error.use_stderr() {
        let error = args::explain(error);
        return output::report(&error, as_json, ui);
    }
    let _ = ui.print(&error.render().to_string());
    Exit::Ok as u8
}
