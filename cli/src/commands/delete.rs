//! `delete`: by file, or by kind and name.

use std::time::Duration;

use api::problem::Problem;
use clap::Args;

use super::target::{Target, TargetArgs};
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, count};
use crate::flags::{DryRun, WaitArgs, duration};
use crate::mesh;
use crate::wait::{self, Change};

const EXAMPLES: &str = "\
Examples:
  # One rule, or several
  meshctl delete route-rule reviews-canary
  meshctl delete rr reviews-v3 ratings-v2 --wait
  # What files brought
  meshctl delete -f samples/bookinfo/route-rule-all-v1.yaml
  # Every rule of the namespace
  meshctl delete route-rules --all
  # Kubernetes' own kinds
  meshctl delete pod details-v1-6c9f8bcbcb-x2x8w";

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeleteArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Do not fail over what is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Change nothing: only say what would be deleted, or let the server check
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true, value_name = "client|server")]
    dry_run: Option<DryRun>,
    #[command(flatten)]
    wait: WaitArgs,
    /// How long `--wait` waits
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Format of the answer: table|name
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["table", "name"], default_value = "table", hide_default_value = true)]
    output: String,
}

/// Runs `delete`.
///
/// # Errors
/// When something to delete is not there (nothing is deleted then), or is refused.
pub fn run(app: &App, args: &DeleteArgs) -> Result<(), Error> {
    if args.targets.is_empty() {
        return Err(Error::usage("what to delete is missing")
            .hint("name it, as `meshctl delete route-rule NAME`, or give `-f FILE`"));
    }
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let mut doomed = Vec::new();
        for target in args.targets.find(app, &cluster).await? {
            let is_there = cluster.get(&target.resource, &target.namespace, &target.name).await?.is_some();
            doomed.push((target, is_there));
        }
        delete(app, &cluster, args, doomed).await
    })
}

async fn delete(app: &App, cluster: &Cluster, args: &DeleteArgs, doomed: Vec<(Target, bool)>) -> Result<(), Error> {
    let mut missing: Vec<Problem> = Vec::new();
    for (one, _) in doomed.iter().filter(|(_, is_there)| !is_there && !args.ignore_not_found) {
        missing.push(not_there(cluster, one).await?);
    }
    if !missing.is_empty() {
        return Err(Error::problems(
            format!("{} not there; nothing was deleted", count(missing.len(), "object")),
            missing,
        ));
    }
    let mut changes = Vec::new();
    let mut deleted = 0;
    for (one, _) in doomed.iter().filter(|(_, is_there)| *is_there) {
        if args.dry_run != Some(DryRun::Client) {
            let is_dry = args.dry_run == Some(DryRun::Server);
            cluster.delete(&one.resource, &one.namespace, &one.name, is_dry).await.map_err(|e| {
                e.because(format!("at {}; {} deleted before it", one.label(), count(deleted, "object")))
            })?;
            if one.resource.is_mesh() {
                changes.push(Change::deleted(&one.resource, &one.namespace, &one.name));
            }
        }
        deleted += 1;
        app.ui.line(&line(one, args))?;
    }
    if deleted == 0 {
        app.ui.say("nothing to delete");
    }
    match args.timeout.or(args.wait.wait) {
        Some(limit) if args.wait.wait.is_some() && args.dry_run.is_none() => {
            wait::until_applied(app, mesh::pilots(cluster), &changes, limit).await.map(drop)
        }
        _ => Ok(()),
    }
}

fn line(one: &Target, args: &DeleteArgs) -> String {
    let (word, name) = (one.resource.qualified_word(), &one.name);
    let suffix = match args.dry_run {
        Some(DryRun::Client) => " (client dry run)",
        Some(DryRun::Server) => " (server dry run)",
        None => "",
    };
    if args.output == "name" {
        format!("{word}/{name}")
    } else if one.resource.is_mesh() {
        format!("Deleted config {word}/{}/{name}{suffix}", one.namespace)
    } else {
        format!("{word} \"{name}\" deleted{suffix}")
    }
}

async fn not_there(cluster: &Cluster, one: &Target) -> Result<Problem, Error> {
    let problem = Problem::error(format!("{} is not there", one.label()));
    Ok(match one.neighbour(cluster).await? {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None => problem,
    })
}
