//! The Deployments that a command means, and how far their pods are.

use std::time::Duration;

use api::suggest::closest;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Mesh;
use super::failures::{late, stop_at_failures};
use super::progress::Picture;
use crate::app::App;
use crate::cluster::{Cluster, Selection};
use crate::error::Error;
use crate::mesh::{items, known, of_app};
use crate::resources::{self, name_of, namespace_of};

/// How often the pods are looked at.
const EVERY: Duration = Duration::from_millis(50);

/// What the command line names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// `deploy/NAME`, `NAME` or `NAME.NAMESPACE`.
    pub(super) targets: &'a [String],
    /// Label selector.
    pub(super) labels: Option<&'a str>,
    /// All of them, in the namespace of `-n` or in every one.
    pub(super) all: bool,
}

/// Finds the Deployments that are meant.
///
/// # Errors
/// When one is not there, or none is meant.
pub(super) async fn find(app: &App, cluster: &Cluster, wanted: Wanted<'_>) -> Result<Vec<Value>, Error> {
    let resource = known("deployments")?;
    if wanted.targets.is_empty() {
        let here = app.namespace(cluster);
        let namespace = if wanted.all { app.global.namespace.as_deref() } else { Some(here) };
        let selection = Selection { namespace, labels: wanted.labels, ..Selection::default() };
        let list = cluster.list(&resource, &selection).await?;
        let found: Vec<Value> = items(&list).cloned().collect();
        if found.is_empty() {
            let which = wanted.labels.map(|labels| format!(" with labels {labels}")).unwrap_or_default();
            let place = namespace.map_or_else(|| "any namespace".to_owned(), |it| format!("namespace {it}"));
            return Err(Error::failed(format!("there is no Deployment{which} in {place}"))
                .hint("see `meshctl get deployments -A`"));
        }
        return Ok(found);
    }
    try_join_all(wanted.targets.iter().map(|word| one(app, cluster, word))).await
}

async fn one(app: &App, cluster: &Cluster, word: &str) -> Result<Value, Error> {
    let resource = known("deployments")?;
    let name = match word.split_once('/') {
        Some((kind, name)) if resources::by_word(kind).is_some_and(|it| it.kind == "Deployment") => name,
        Some((kind, _)) => {
            return Err(Error::usage(format!("`{kind}` in `{word}` is not a kind that has replicas here"))
                .hint("write deploy/NAME, as `meshctl get deployments` shows them"));
        }
        None => word,
    };
    let namespace = app.namespace(cluster);
    if let Some(found) = cluster.get(&resource, namespace, name).await? {
        return Ok(found);
    }
    if let Some((name, other)) = name.rsplit_once('.')
        && let Some(found) = cluster.get(&resource, other, name).await?
    {
        return Ok(found);
    }
    let list = cluster.list(&resource, &Selection { namespace: Some(namespace), ..Selection::default() }).await?;
    if let Some(found) = of_app(&list, name) {
        return Ok(found);
    }
    let error = Error::failed(format!("there is no deployment `{name}` in namespace {namespace}"));
    let near = closest(name, items(&list).map(name_of))
        .or_else(|| items(&list).map(name_of).find(|deployment| deployment.starts_with(name)));
    Err(match near {
        Some(near) => error.hint(format!("did you mean `deploy/{near}`?")),
        None => {
            error.hint(format!("see `meshctl get deployments -n {namespace}`, or choose another namespace with -n"))
        }
    })
}

/// `deployment.apps/NAME`, with its namespace unless that is the one which is meant anyway.
pub(super) fn label(app: &App, cluster: &Cluster, deployment: &Value) -> String {
    let (namespace, name) = (namespace_of(deployment), name_of(deployment));
    if namespace == app.namespace(cluster) {
        format!("deployment.apps/{name}")
    } else {
        format!("deployment.apps/{name} -n {namespace}")
    }
}

fn number(object: &Value, path: &str) -> u64 {
    object.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

/// Whether a Deployment is as it was wanted at least in that generation: all pods of its newest template, all available.
pub(super) fn is_rolled_out(deployment: &Value, generation: u64) -> bool {
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    number(deployment, "/status/observedGeneration") >= generation
        && number(deployment, "/status/updatedReplicas") == wanted
        && number(deployment, "/status/replicas") == wanted
        && number(deployment, "/status/availableReplicas") >= wanted
}

/// Waits until every one of these Deployments, as the API server answered them when they were changed, is rolled out.
///
/// # Errors
/// When the time is over, or a new pod cannot start and time will not heal it.
pub(super) async fn until_rolled_out(
    app: &App,
    mesh: &Mesh,
    cluster: &Cluster,
    changed: &[Value],
    limit: Duration,
) -> Result<Duration, Error> {
    let started = Instant::now();
    let mut picture = Picture::new(app.ui, started);
    let (deployments, pods) = (known("deployments")?, known("pods")?);
    let all = Selection::default();
    loop {
        let lists = try_join_all([cluster.list(&deployments, &all), cluster.list(&pods, &all)]).await?;
        let missing: Vec<&Value> = changed
            .iter()
            .filter(|wanted| {
                !items(&lists[0]).any(|found| is_same(found, wanted) && is_rolled_out(found, generation(wanted)))
            })
            .collect();
        if missing.is_empty() {
            picture.clear();
            return Ok(started.elapsed());
        }
        let of_missing: Vec<Value> =
            items(&lists[1]).filter(|pod| missing.iter().any(|it| is_alive_of(pod, it))).cloned().collect();
        if started.elapsed() > Duration::from_secs(1) {
            picture.step(&format!("{} of {} rolled out", changed.len() - missing.len(), changed.len()));
        }
        stop_at_failures(cluster, mesh, &of_missing, &mut picture).await?;
        if started.elapsed() > limit {
            picture.clear();
            return Err(late(cluster, mesh, &of_missing, limit).await?);
        }
        sleep(EVERY).await;
    }
}

fn generation(deployment: &Value) -> u64 {
    number(deployment, "/metadata/generation")
}

fn is_same(one: &Value, other: &Value) -> bool {
    one["metadata"]["uid"] == other["metadata"]["uid"]
}

/// Whether a pod is one that a Deployment's selector means, and is not on its way out.
fn is_alive_of(pod: &Value, deployment: &Value) -> bool {
    let labels = deployment.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    namespace_of(pod) == namespace_of(deployment)
        && pod.pointer("/metadata/deletionTimestamp").is_none()
        && labels.is_some_and(|labels| labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_rolled_out_when_its_newest_pods_are_available_and_no_other_is_left() {
        let deployment = |replicas: u64, updated: u64, available: u64, observed: u64| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {
                "observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available,
            }})
        };
        for (found, expected) in [
            (deployment(2, 2, 2, 2), true),
            (deployment(3, 2, 3, 2), false),
            (deployment(2, 1, 2, 2), false),
            (deployment(2, 2, 1, 2), false),
            (deployment(2, 2, 2, 1), false),
        ] {
            assert_eq!(is_rolled_out(&found, 2), expected, "{found}");
        }
        let none = json!({"metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {"observedGeneration": 1}});
        assert!(is_rolled_out(&none, 1));
    }
}
