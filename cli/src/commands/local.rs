//! `local`: a mesh on this machine.

mod down;
mod exec;
mod export;
mod failures;
mod forward;
mod kubeconfig;
mod logs;
mod progress;
mod restart;
mod scale;
mod start;
mod status;
pub(crate) mod streams;
mod supervise;
mod up;
mod workloads;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::cluster::Cluster;
use crate::context;
use crate::error::Error;

pub use supervise::hidden;

const EXAMPLES: &str = "\
Examples:
  # Start a mesh with an application in it
  meshctl local up -f samples/bookinfo/bookinfo.yaml --wait
  # See how it is, and call a service from within
  meshctl local status
  meshctl local exec deploy/productpage -- curl -s reviews:9080/reviews/0
  # After a build: replace what has changed, without a failed request
  meshctl local restart --wait
  # Stop it; it comes back as it was with `local up`
  meshctl local down";

/// Arguments of `local`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct LocalArgs {
    #[command(subcommand)]
    command: LocalCommand,
    /// Where the mesh keeps its state; by default below $XDG_STATE_HOME or ~/.local/state
    #[arg(long, global = true, value_name = "DIR", help_heading = "Which mesh")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum LocalCommand {
    /// Starts the mesh, or applies files to the running one
    Up(up::UpArgs),
    /// Shows whether the mesh runs, and what runs in it
    Status(status::StatusArgs),
    /// Stops the mesh; its objects are kept
    Down(down::DownArgs),
    /// Runs a program in a pod
    Exec(exec::ExecArgs),
    /// Shows what a container has written
    Logs(logs::LogsArgs),
    /// Changes how many pods a Deployment has
    Scale(scale::ScaleArgs),
    /// Replaces pods by new ones without a failed request, as after a build
    Restart(restart::RestartArgs),
    /// Leads ports of this machine into a pod
    PortForward(forward::ForwardArgs),
    /// Prints the path of the kubeconfig, or adds it to yours
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Prints what was made in the mesh, as a file that can be applied again
    Export(export::ExportArgs),
}

/// A local mesh by name and place; it may run or not.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    name: String,
    dir: PathBuf,
}

impl Mesh {
    /// The mesh that the command line means.
    fn of(app: &App, state_dir: Option<PathBuf>) -> Result<Self, Error> {
        for (given, flag) in
            [(app.global.context.is_some(), "--context"), (app.global.kubeconfig.is_some(), "--kubeconfig")]
        {
            if given {
                return Err(Error::usage(format!("{flag} names a mesh that is not local"))
                    .hint("local meshes are chosen with `--name`"));
            }
        }
        let name = app.global.mesh.clone().unwrap_or_else(|| "default".to_owned());
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            || name.starts_with('.')
        {
            return Err(
                Error::usage(format!("`{name}` cannot be the name of a mesh")).hint("use letters, digits and dashes")
            );
        }
        let dir = match state_dir {
            Some(dir) => std::path::absolute(&dir).unwrap_or(dir),
            None => context::state_dir(&name, &app.settings)?,
        };
        Ok(Mesh { name, dir })
    }

    /// ` --name NAME`, where it is needed.
    fn flag(&self) -> String {
        if self.name == "default" { String::new() } else { format!(" --name {}", self.name) }
    }

    fn record(&self) -> Result<Option<local::supervisor::Record>, Error> {
        local::supervisor::read_record(&self.dir).map_err(|e| {
            Error::failed(format!("cannot read the state of local mesh `{}` in {}", self.name, self.dir.display()))
                .because(crate::error::io_words(&e))
        })
    }

    /// The record of the supervisor that runs, or the error that it does not.
    fn running(&self) -> Result<local::supervisor::Record, Error> {
        self.record()?.ok_or_else(|| self.not_running())
    }

    fn not_running(&self) -> Error {
        Error::unreachable(format!("local mesh `{}` does not run", self.name))
            .hint(format!("start it with `meshctl local up{}`", self.flag()))
    }

    async fn cluster(&self) -> Result<Cluster, Error> {
        self.running()?;
        Cluster::open(&context::local(&self.name, &self.dir)?).await
    }

    /// As [`Mesh::cluster`], and says which mesh it is.
    async fn cluster_to_change(&self, app: &App) -> Result<Cluster, Error> {
        let cluster = self.cluster().await?;
        app.ui.say(&app.ui.err.dim(&format!("on {}", cluster.description)));
        Ok(cluster)
    }
}

/// Runs a command on a local mesh.
///
/// # Errors
/// Why it did not do what it was asked to.
pub fn run(app: &App, args: LocalArgs) -> Result<(), Error> {
    let mesh = Mesh::of(app, args.state_dir)?;
    match args.command {
        LocalCommand::Up(args) => up::run(app, &mesh, &args),
        LocalCommand::Status(args) => status::run(app, &mesh, &args),
        LocalCommand::Down(args) => down::run(app, &mesh, &args),
        LocalCommand::Exec(args) => exec::run(app, &mesh, args),
        LocalCommand::Logs(args) => logs::run(app, &mesh, &args),
        LocalCommand::Scale(args) => scale::run(app, &mesh, &args),
        LocalCommand::Restart(args) => restart::run(app, &mesh, &args),
        LocalCommand::PortForward(args) => forward::run(app, &mesh, &args),
        LocalCommand::Kubeconfig(args) => kubeconfig::run(app, &mesh, &args),
        LocalCommand::Export(args) => export::run(app, &mesh, &args),
    }
}

/// Why the objects of a mesh cannot be read, with the way out.
fn journal_error(error: &local::api::OpenError) -> Error {
    let words = std::iter::successors(std::error::Error::source(error), |it| it.source())
        .fold(error.to_string(), |words, cause| format!("{words}: {cause}"));
    match words.split_once("\nhint: ") {
        Some((what, hint)) => Error::failed(what).hint(hint),
        None => Error::failed(words),
    }
}
