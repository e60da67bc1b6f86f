//! `create -f`, and `create KIND NAME` with flags or questions.

use clap::{Args, Subcommand};

use super::authentication_policy::AuthenticationPolicyArgs;
use super::route_rule::RouteRuleArgs;
use super::write::{self, Verb, WriteArgs};
use crate::app::App;
use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  # From files; all of them are checked before anything is created
  meshctl create -f samples/bookinfo/route-rule-all-v1.yaml
  # Send a tenth of the requests to v3, and wait until every proxy does so
  meshctl create route-rule reviews-canary --destination reviews \\
      --route version=v1:90 --route version=v3:10 --precedence 2 --wait
  # Workloads of namespace default take connections from workloads alone that prove who they are: whom would that cut off?
  meshctl create authentication-policy default --mode strict --dry-run=traffic
  # From standard input
  cat rules.yaml | meshctl create -f -";

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    #[command(subcommand)]
    kind: Option<CreateKind>,
    #[command(flatten)]
    write: WriteArgs,
}

/// Kinds that can be made from flags.
#[derive(Debug, Subcommand)]
enum CreateKind {
    /// Makes a route rule from flags; on a terminal it asks for what is missing
    #[command(aliases = ["routerule", "rr"])]
    RouteRule(Box<RouteRuleArgs>),
    /// Makes an authentication policy from flags: whether workloads must prove who they are
    #[command(aliases = ["authenticationpolicy"])]
    AuthenticationPolicy(Box<AuthenticationPolicyArgs>),
}

/// Runs `create`.
///
/// # Errors
/// When anything is invalid, there already, or refused.
pub fn run(app: &App, args: CreateArgs) -> Result<(), Error> {
    match args.kind {
        Some(CreateKind::RouteRule(args)) => super::route_rule::run(app, *args),
        Some(CreateKind::AuthenticationPolicy(args)) => super::authentication_policy::run(app, &args),
        None => write::files(app, Verb::Create, &args.write),
    }
}
