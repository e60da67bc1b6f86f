//! `local restart`: new pods in the place of the old ones, without a request that fails in between.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Mesh;
use super::scale::show;
use super::workloads::{self, Wanted};
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::error::Error;
use crate::flags::duration;
use crate::mesh::{items, known};
use crate::output::Format;
use crate::resources::{name_of, namespace_of, text};
use crate::wait::took;

const EXAMPLES: &str = "\
Examples:
  # After a build: those whose programs are new, and wait until they serve
  cargo build && meshctl local restart --wait
  # One, or all versions of a service
  meshctl local restart deploy/reviews-v1
  meshctl local restart -l app=reviews --wait
  # Everything, the control plane and the gateway too
  meshctl local restart --all --wait";

/// Arguments of `local restart`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestartArgs {
    /// deploy/NAME, NAME or NAME.NAMESPACE; without any, those whose programs have changed since they were started
    #[arg(value_name = "DEPLOYMENT")]
    targets: Vec<String>,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "targets")]
    selector: Option<String>,
    /// All of them, in every namespace unless -n names one
    #[arg(long, conflicts_with_all = ["targets", "selector"])]
    all: bool,
    /// Wait until the new pods are ready and the old ones are leaving, by default for up to 120s
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "DURATION", default_missing_value = "120s", value_parser = duration)]
    wait: Option<Duration>,
    /// Format of the answer: table|json|yaml|name|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// The annotation that makes a template another one; `kubectl rollout restart` uses the same.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// Runs `local restart`.
///
/// # Errors
/// When a Deployment is not there (nothing is changed then), or does not get there in time.
pub(super) fn run(app: &App, mesh: &Mesh, args: &RestartArgs) -> Result<(), Error> {
    app.block_on(async {
        let cluster = mesh.cluster_to_change(app).await?;
        let by_change = args.targets.is_empty() && args.selector.is_none() && !args.all;
        let found = if by_change {
            changed(app, &cluster).await?
        } else {
            let wanted = Wanted { targets: &args.targets, labels: args.selector.as_deref(), all: args.all };
            workloads::find(app, &cluster, wanted).await?.into_iter().map(|it| (it, BTreeSet::new())).collect()
        };
        if found.is_empty() {
            app.ui.say("no program has changed since it was started; name Deployments, or give --all");
        }
        let now = jiff::Timestamp::now().to_string();
        let change = json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED: now } } } } });
        let resource = known("deployments")?;
        let (mut answers, mut facts) = (Vec::new(), Vec::new());
        for (deployment, programs) in &found {
            let (namespace, name) = (namespace_of(deployment), name_of(deployment));
            answers.push(cluster.merge(&resource, namespace, name, &change).await?);
            facts.push(json!({ "namespace": namespace, "name": name, "changedPrograms": programs }));
            if args.output == Format::Table {
                let label = workloads::label(app, &cluster, deployment);
                let why = match programs.is_empty() {
                    true => String::new(),
                    false => format!(" (new: {})", programs.iter().cloned().collect::<Vec<_>>().join(", ")),
                };
                app.ui.line(&format!("{label} restarted{why}"))?;
            }
        }
        show(app, &args.output, &facts)?;
        if let (Some(limit), false) = (args.wait, found.is_empty()) {
            let time = workloads::until_rolled_out(app, mesh, &cluster, &answers, limit).await?;
            app.ui.say(&app.ui.err.good(&format!("rolled out in {}", took(time))));
        }
        Ok(())
    })
}

/// The Deployments of which a pod runs a program that is another one on disk now, with those programs.
async fn changed(app: &App, cluster: &Cluster) -> Result<Vec<(Value, BTreeSet<String>)>, Error> {
    let selection = Selection { namespace: app.global.namespace.as_deref(), ..Selection::default() };
    let (pods, deployments, sets) = (known("pods")?, known("deployments")?, known("replicasets")?);
    let (pods, deployments, sets) = tokio::try_join!(
        cluster.list(&pods, &selection),
        cluster.list(&deployments, &selection),
        cluster.list(&sets, &selection)
    )?;
    let mut found: Vec<(Value, BTreeSet<String>)> = Vec::new();
    for pod in items(&pods).filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()) {
        let programs = changed_programs(pod);
        if programs.is_empty() {
            continue;
        }
        let owner = owner(pod, &sets).and_then(|set| owner(set, &deployments));
        let Some(deployment) = owner else {
            app.ui.warn(&format!(
                "pod {}/{} runs an old {}, but no Deployment would make it anew; delete it and apply its file again",
                namespace_of(pod),
                name_of(pod),
                programs.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
            continue;
        };
        match found.iter_mut().find(|(known, _)| known["metadata"]["uid"] == deployment["metadata"]["uid"]) {
            Some((_, known)) => known.extend(programs),
            None => found.push((deployment.clone(), programs)),
        }
    }
    Ok(found)
}

fn owner<'a>(object: &Value, among: &'a Value) -> Option<&'a Value> {
    let uid = text(object.pointer("/metadata/ownerReferences/0")?, &["uid"])?;
    items(among).find(|it| it["metadata"]["uid"] == uid)
}

/// File names of programs that a pod's containers run and that have changed on disk.
fn changed_programs(pod: &Value) -> BTreeSet<String> {
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .flat_map(|list| pod.pointer(&format!("/status/{list}")).and_then(Value::as_array).into_iter().flatten())
        .filter(|status| status.pointer("/state/running").is_some())
        .filter_map(|status| text(status, &["imageID"]))
        .flat_map(local::changed_programs)
        .map(|path| path.file_name().map_or_else(|| path.display().to_string(), |it| it.to_string_lossy().into_owned()))
        .collect()
}
