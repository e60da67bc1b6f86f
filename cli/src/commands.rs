//! One file per command.

pub mod authentication_policy;
pub mod authz;
pub mod ca;
pub mod completion;
pub mod create;
pub mod debug;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod edit;
pub mod get;
pub mod inject;
pub mod install;
pub mod local;
pub mod proxy_config;
pub mod proxy_status;
pub mod route_rule;
pub mod target;
pub mod traffic;
pub mod validate;
pub mod version;
pub mod wait;
pub mod write;

use clap::Subcommand;

use crate::app::App;
use crate::error::Error;

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

/// Runs a command.
///
/// # Errors
/// Why it did not do what it was asked to.
pub fn run(app: &App, command: Command) -> Result<(), Error> {
    match command {
        Command::Local(args) => local::run(app, args),
        Command::Create(args) => create::run(app, args),
        Command::Replace(args) => write::replace(app, &args),
        Command::Apply(args) => write::apply(app, &args),
        Command::Delete(args) => delete::run(app, &args),
        Command::Diff(args) => diff::run(app, &args),
        Command::Edit(args) => edit::run(app, &args),
        Command::Wait(args) => wait::run(app, &args),
        Command::Get(args) => get::run(app, &args),
        Command::Describe(args) => describe::run(app, &args),
        Command::Validate(args) => validate::run(app, &args),
        Command::KubeInject(args) => inject::run(app, &args),
        Command::Uninject(args) => inject::remove(app, &args),
        Command::ProxyStatus(args) => proxy_status::run(app, &args),
        Command::ProxyConfig(args) => proxy_config::run(app, &args),
        Command::Ca(args) => ca::run(app, &args),
        Command::Debug(args) => debug::run(app, &args),
        Command::Authz(args) => authz::run(app, &args),
        Command::Install(args) => install::run(app, &args),
        Command::Uninstall(args) => install::uninstall(app, &args),
        Command::Completion(args) => completion::run(app, &args),
        Command::Version(args) => version::run(app, &args),
    }
}
