//! `delete`: by file, or by kind and name.

use std::time::Duration;

use api::problem::Problem;
use clap::Args;

use super::write::{Verb, label, plan};
use crate::App;
use crate::args::{DryRun, FileArgs, WaitArgs, duration};
use crate::cluster::{Cluster, Selection};
use crate::discovery::Kinds;
use crate::error::{Error, count};
use crate::mesh::{self, items};
use crate::objects;
use crate::resources::{Resource, name_of, namespace_of};
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
    /// Kind, and names; or KIND/NAME
    #[arg(value_name = "KIND NAME", num_args = 0.., conflicts_with = "files")]
    what: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Delete all of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Delete those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "all")]
    selector: Option<String>,
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

/// Something to delete.
struct Doomed {
    resource: Resource,
    namespace: String,
    name: String,
}

/// Runs `delete`.
///
/// # Errors
/// When something to delete is not there (nothing is deleted then), or is refused.
pub fn run(app: &App, args: &DeleteArgs) -> Result<(), Error> {
    if args.what.is_empty() && args.files.files.is_empty() {
        return Err(Error::usage("what to delete is missing")
            .hint("name it, as `meshctl delete route-rule NAME`, or give `-f FILE`"));
    }
    let objects = match args.files.files.is_empty() {
        true => None,
        false => Some(objects::parse_loosely(&objects::sources(&args.files)?)?),
    };
    app.block_on(async {
        let cluster = app.cluster_to_change().await?;
        let doomed = match objects {
            Some(objects) => plan(app, &cluster, Verb::Apply, objects)
                .await?
                .into_iter()
                .map(|p| {
                    (
                        Doomed {
                            name: name_of(&p.object.value).to_owned(),
                            resource: p.resource,
                            namespace: p.namespace,
                        },
                        p.current.is_some(),
                    )
                })
                .collect(),
            None => named(app, &cluster, args).await?,
        };
        delete(app, &cluster, args, doomed).await
    })
}

/// What is named on the command line, and whether it is there.
async fn named(app: &App, cluster: &Cluster, args: &DeleteArgs) -> Result<Vec<(Doomed, bool)>, Error> {
    let kinds = Kinds::default();
    let mut wanted: Vec<(Resource, String)> = Vec::new();
    if args.what.iter().all(|word| word.contains('/')) {
        for word in &args.what {
            let (kind, name) = word.split_once('/').unwrap_or((word, ""));
            wanted.push((kinds.of_word(cluster, kind).await?, name.to_owned()));
        }
    } else {
        let resource = kinds.of_word(cluster, &args.what[0]).await?;
        let names = &args.what[1..];
        if names.is_empty() {
            return selected(app, cluster, args, &resource).await;
        }
        if args.all || args.selector.is_some() {
            return Err(Error::usage("names cannot be given together with --all or --selector"));
        }
        wanted.extend(names.iter().map(|name| (resource.clone(), name.clone())));
    }
    let mut doomed = Vec::new();
    for (resource, name) in wanted {
        let namespace = if resource.is_namespaced { app.namespace(cluster).to_owned() } else { String::new() };
        let is_there = cluster.get(&resource, &namespace, &name).await?.is_some();
        doomed.push((Doomed { resource, namespace, name }, is_there));
    }
    Ok(doomed)
}

async fn selected(
    app: &App,
    cluster: &Cluster,
    args: &DeleteArgs,
    resource: &Resource,
) -> Result<Vec<(Doomed, bool)>, Error> {
    if !args.all && args.selector.is_none() {
        return Err(Error::usage(format!("which {} to delete is missing", resource.plural))
            .hint("give names, or `--all`, or labels with `-l`"));
    }
    let selection =
        Selection { namespace: Some(app.namespace(cluster)), labels: args.selector.as_deref(), ..Selection::default() };
    let list = cluster.list(resource, &selection).await?;
    Ok(items(&list)
        .map(|object| {
            let (namespace, name) = (namespace_of(object).to_owned(), name_of(object).to_owned());
            (Doomed { resource: resource.clone(), namespace, name }, true)
        })
        .collect())
}

async fn delete(app: &App, cluster: &Cluster, args: &DeleteArgs, doomed: Vec<(Doomed, bool)>) -> Result<(), Error> {
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
                e.because(format!(
                    "at {}; {} deleted before it",
                    label(&one.resource, &one.namespace, &one.name),
                    count(deleted, "object")
                ))
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
            wait::until_applied(app, mesh::pilots(cluster), &changes, limit).await
        }
        _ => Ok(()),
    }
}

fn line(one: &Doomed, args: &DeleteArgs) -> String {
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

async fn not_there(cluster: &Cluster, one: &Doomed) -> Result<Problem, Error> {
    let problem = Problem::error(format!("{} is not there", label(&one.resource, &one.namespace, &one.name)));
    let selection = Selection {
        namespace: Some(&one.namespace).filter(|n| !n.is_empty()).map(String::as_str),
        ..Selection::default()
    };
    let list = cluster.list(&one.resource, &selection).await?;
    Ok(match api::suggest::closest(&one.name, items(&list).map(name_of)) {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None => problem,
    })
}
