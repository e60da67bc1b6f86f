//! `describe`: what applies to a pod, a service, a rule or a policy, and what is wrong with it.
//!
//! Services, endpoints, rules and their order come from [`api::registry`], by which Pilot makes its model too; what
//! proxies have applied is asked of Pilot. When Pilot is away that part is left out and said.

pub(super) mod live;
mod object;
mod pod;
mod problems;
mod report;
mod rules;
mod service;

use clap::Args;
use serde_json::Value;

use self::live::Live;
use self::report::Report;
use super::target::Target;
use crate::app::App;
use crate::cluster::Cluster;
use crate::discovery::Kinds;
use crate::error::Error;
use crate::mesh;
use crate::output::Format;
use crate::resources::{name_of, namespace_of};

const EXAMPLES: &str = "\
Examples:
  # A pod: its sidecar, its services, the rules that its requests meet, its problems
  meshctl describe pod/reviews-v1-5d8f7c6b9d-x2k4z
  meshctl describe deploy/productpage
  # A service: ports and protocols, rules in the order in which they are asked, endpoints, policies
  meshctl describe service reviews
  # A rule: its place among the others, and who has applied it
  meshctl describe route-rule reviews-canary
  # For a program
  meshctl describe service reviews -o json";

/// Arguments of `describe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DescribeArgs {
    /// Kind, KIND/NAME, or a pod
    #[arg(value_name = "KIND", required = true)]
    kind: String,
    /// Name
    #[arg(value_name = "NAME")]
    object: Option<String>,
    /// Format of the answer: table|json|yaml|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `describe`.
///
/// # Errors
/// When the object is not there or the server cannot be asked. Problems that are found are no failure: they are the
/// answer.
pub fn run(app: &App, args: &DescribeArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = app.cluster().await?;
        let (target, object) = find(app, &cluster, args).await?;
        let report = match (target.resource.kind.as_str(), target.resource.is_mesh()) {
            ("Pod", _) => {
                let mut live = Live::load(&cluster).await?;
                pod::describe(&cluster, &mut live, &object).await?
            }
            ("Service", _) => {
                let mut live = Live::load(&cluster).await?;
                service::describe(&cluster, &mut live, &object).await?
            }
            ("RouteRule" | "DestinationPolicy", true) => {
                let mut live = Live::load(&cluster).await?;
                rules::describe(&mut live, &target, &object).await?
            }
            _ => object::describe(&cluster, &target, &object).await?,
        };
        show(app, &report, &args.output)
    })
}

/// The object that is meant: `KIND NAME`, `KIND/NAME`, or a pod by any of the words for one. A workload means one of its
/// pods.
async fn find(app: &App, cluster: &Cluster, args: &DescribeArgs) -> Result<(Target, Value), Error> {
    let namespace = app.namespace(cluster);
    let (kind, name) = match (args.kind.split_once('/'), &args.object) {
        (Some((kind, name)), None) => (kind, name.to_owned()),
        (None, Some(name)) => (args.kind.as_str(), name.clone()),
        (Some(_), Some(extra)) => return Err(Error::usage(format!("`{extra}` is one argument too many"))),
        (None, None) => return pod_of(cluster, namespace, &args.kind).await,
    };
    let resource = Kinds::default().of_word(cluster, kind).await?;
    if ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"].contains(&resource.kind.as_str()) {
        return pod_of(cluster, namespace, &format!("{kind}/{name}")).await;
    }
    // `NAME.NAMESPACE`, as Pilot and `proxy-status` write pods and services.
    let namespace = if resource.is_namespaced { namespace.to_owned() } else { String::new() };
    let target = Target { resource, namespace, name };
    if let Some(object) = cluster.get(&target.resource, &target.namespace, &target.name).await? {
        return Ok((target, object));
    }
    if let Some((name, namespace)) = target.name.rsplit_once('.')
        && let Some(object) = cluster.get(&target.resource, namespace, name).await?
    {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        return Ok((Target { name, namespace, ..target }, object));
    }
    Err(target.not_there(cluster).await?)
}

async fn pod_of(cluster: &Cluster, namespace: &str, word: &str) -> Result<(Target, Value), Error> {
    let pod = mesh::find_pod(cluster, namespace, word).await?;
    let (namespace, name) = (namespace_of(&pod).to_owned(), name_of(&pod).to_owned());
    Ok((Target { resource: mesh::known("pods")?, namespace, name }, pod))
}

fn show(app: &App, report: &Report, format: &Format) -> Result<(), Error> {
    match format {
        Format::Json => app.ui.json(&report.to_json()),
        Format::Yaml => app.ui.yaml(&report.to_json()),
        Format::JsonPath(template) => app.ui.print(&template.render(&report.to_json())),
        Format::Name => app.ui.line(&report.title),
        Format::Table | Format::Wide => app.ui.print(&report.to_text(app.ui.out)),
    }
}
