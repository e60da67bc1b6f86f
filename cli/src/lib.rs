//! `meshctl`: the face of the mesh.
//!
//! A command is one file in [`commands`]. It is given an [`App`] (which mesh, which streams) and its own arguments, and
//! ends with `Ok` or an [`error::Error`]. Nothing that costs time exists before a command needs it: no runtime, no
//! client, no connection.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod args;
pub mod certificate;
pub mod cluster;
pub mod columns;
pub mod commands;
pub mod context;
pub mod discovery;
pub mod error;
pub mod jsonpath;
pub mod mesh;
pub mod objects;
pub mod output;
pub mod pod;
pub mod resources;
pub mod settings;
pub mod table;
pub mod wait;

use args::{Cli, Global};
use cluster::Cluster;
use error::{Error, Exit};
use output::Ui;
use settings::Settings;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every command is given.
pub struct App {
    /// Which mesh.
    pub global: Global,
    /// Where words go.
    pub ui: Ui,
    /// What the environment says.
    pub settings: Settings,
}

/// Runs the command line and says how the process ends.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    if let Some(code) = commands::local::hidden(&arguments) {
        return code;
    }
    match commands::completion::answer(&arguments) {
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

impl App {
    /// Runs a future to its end, on this thread.
    ///
    /// # Errors
    /// Those of the future, or when there is no runtime to be had.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::failed("cannot start").because(error::io_words(&e)))?;
        let result = runtime.block_on(future);
        // What is left (name look-ups, mostly) is not waited for.
        runtime.shutdown_background();
        result
    }

    /// Finds the mesh that is meant and prepares a connection to it.
    ///
    /// # Errors
    /// When it is not there, or when it is not clear which one is meant.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        Cluster::open(&context::find(&self.global, &self.settings)?).await
    }

    /// As [`App::cluster`], and says which mesh it is: for commands that change something.
    ///
    /// # Errors
    /// As [`App::cluster`].
    pub async fn cluster_to_change(&self) -> Result<Cluster, Error> {
        let cluster = self.cluster().await?;
        self.ui.say(&self.ui.err.dim(&format!("on {}", cluster.description)));
        Ok(cluster)
    }

    /// The namespace that is meant: `-n`, else the context's.
    #[must_use]
    pub fn namespace<'a>(&'a self, cluster: &'a Cluster) -> &'a str {
        self.global.namespace.as_deref().unwrap_or(&cluster.namespace)
    }
}
