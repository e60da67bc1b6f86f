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

use crate::App;
use crate::args::Command;
use crate::error::Error;

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
