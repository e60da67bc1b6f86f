//! `create authentication-policy NAME`: whether workloads must prove who they are, from flags.

use api::names::{GROUP, VERSION};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::route_rule::create;
use super::write::WriteOptions;
use crate::app::App;
use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  # Whom would it cut off, if workloads of namespace default took connections by mutual TLS alone?
  meshctl create authentication-policy default --mode strict --dry-run=traffic
  # Do it, and wait until every proxy does so
  meshctl create authentication-policy default --mode strict --wait
  # One service, or one port of it
  meshctl create authentication-policy ratings --mode strict --service ratings
  meshctl create authentication-policy mongo --mode disable --service mongodb --port 27017
  # The whole mesh
  meshctl create authentication-policy default --mode strict -n mesh-system";

/// Arguments of `create authentication-policy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuthenticationPolicyArgs {
    /// Name of the policy
    #[arg(value_name = "NAME")]
    policy: String,
    /// Whether workloads must prove who they are by mutual TLS (strict), may (permissive), or are not asked to (disable)
    #[arg(long, value_enum, value_name = "strict|permissive|disable", hide_possible_values = true)]
    mode: Mode,
    /// Service of the namespace that the policy is about; can be repeated. Without one it is about the namespace, and in
    /// namespace mesh-system about the whole mesh
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// Port of the service, by number or name; can be repeated
    #[arg(long = "port", value_name = "PORT", requires = "services")]
    ports: Vec<String>,
    #[command(flatten)]
    options: WriteOptions,
}

/// The modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Strict,
    Permissive,
    Disable,
}

/// Runs `create authentication-policy`.
///
/// # Errors
/// When the policy is invalid, there already, or refused; and with `--dry-run=traffic` when it would cut somebody off.
pub fn run(app: &App, args: &AuthenticationPolicyArgs) -> Result<(), Error> {
    if args.services.len() > 1 && !args.ports.is_empty() {
        return Err(Error::usage("--port is of one service, and there are several --service")
            .hint("make a policy for each of them"));
    }
    create(app, &policy(args, app.global.namespace.as_deref()), &args.options)
}

/// The object that the flags mean.
fn policy(args: &AuthenticationPolicyArgs, namespace: Option<&str>) -> Value {
    let mut metadata = json!({ "name": args.policy });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let mode = match args.mode {
        Mode::Strict => "STRICT",
        Mode::Permissive => "PERMISSIVE",
        Mode::Disable => "DISABLE",
    };
    let mut spec = json!({ "peers": [{ "mtls": { "mode": mode } }] });
    let port = |text: &String| match text.parse::<i64>() {
        Ok(number) => json!({ "number": number }),
        Err(_) => json!({ "name": text }),
    };
    let target = |service: &String| {
        let mut target = json!({ "name": service });
        if !args.ports.is_empty() {
            target["ports"] = args.ports.iter().map(port).collect();
        }
        target
    };
    if !args.services.is_empty() {
        spec["targets"] = args.services.iter().map(target).collect();
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "AuthenticationPolicy", "metadata": metadata, "spec": spec,
    })
}
