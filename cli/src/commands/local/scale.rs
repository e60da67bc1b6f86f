//! `local scale`: how many pods a Deployment has.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Mesh;
use super::workloads::{self, Wanted};
use crate::app::App;
use crate::error::{Error, count};
use crate::flags::duration;
use crate::mesh::known;
use crate::output::Format;
use crate::resources::{name_of, namespace_of};
use crate::wait::took;

const EXAMPLES: &str = "\
Examples:
  # Three pods of one version, and wait until they are ready
  meshctl local scale deploy/reviews-v1 --replicas 3 --wait
  # All versions of a service
  meshctl local scale -l app=reviews --replicas 2
  # None, to see what its callers do
  meshctl local scale deploy/ratings-v1 --replicas 0";

/// Arguments of `local scale`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScaleArgs {
    /// deploy/NAME, NAME or NAME.NAMESPACE
    #[arg(value_name = "DEPLOYMENT", required_unless_present = "selector")]
    targets: Vec<String>,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "targets")]
    selector: Option<String>,
    /// How many pods
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1000))]
    replicas: u32,
    /// Wait until all of them are ready, by default for up to 60s
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "DURATION", default_missing_value = "60s", value_parser = duration)]
    wait: Option<Duration>,
    /// Format of the answer: table|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `local scale`.
///
/// # Errors
/// When a Deployment is not there (nothing is changed then), or does not get there in time.
pub(super) fn run(app: &App, mesh: &Mesh, args: &ScaleArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = mesh.cluster_to_change(app).await?;
        let wanted = Wanted { targets: &args.targets, labels: args.selector.as_deref(), all: false };
        let found = workloads::find(app, &cluster, wanted).await?;
        let resource = known("deployments")?;
        let mut changed = Vec::new();
        let mut facts = Vec::new();
        for deployment in &found {
            let (namespace, name) = (namespace_of(deployment), name_of(deployment));
            let before = deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            let change = json!({ "spec": { "replicas": args.replicas } });
            let answer = cluster.merge(&resource, namespace, name, &change).await?;
            facts.push(json!({ "namespace": namespace, "name": name, "replicas": args.replicas, "before": before }));
            if args.output == Format::Table {
                let label = workloads::label(app, &cluster, deployment);
                let words = if before == u64::from(args.replicas) { "has" } else { "scaled to" };
                let pods = count(usize::try_from(args.replicas).unwrap_or(usize::MAX), "pod");
                let was =
                    if before == u64::from(args.replicas) { String::new() } else { format!(" (before: {before})") };
                app.ui.line(&format!("{label} {words} {pods}{was}"))?;
            }
            changed.push(answer);
        }
        show(app, &args.output, &facts)?;
        if let Some(limit) = args.wait {
            let time = workloads::until_rolled_out(app, mesh, &cluster, &changed, limit).await?;
            app.ui.say(&app.ui.err.good(&format!("ready in {}", took(time))));
        }
        Ok(())
    })
}

/// Shows what was done to Deployments, for programs.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn show(app: &App, output: &Format, facts: &[Value]) -> Result<(), Error> {
    let value = json!({ "deployments": facts });
    match output {
        Format::Json => app.ui.json(&value),
        Format::Yaml => app.ui.yaml(&value),
        Format::JsonPath(template) => app.ui.line(&template.render(&value)),
        Format::Name => facts_of(&value)
            .try_for_each(|it| app.ui.line(&format!("deployment.apps/{}", it["name"].as_str().unwrap_or_default()))),
        Format::Table | Format::Wide => Ok(()),
    }
}

fn facts_of(value: &Value) -> impl Iterator<Item = &Value> {
    value["deployments"].as_array().into_iter().flatten()
}
