//! Pods that do not work: said with the reason and the last lines that they wrote.

use std::time::Duration;

use serde_json::Value;

use super::Mesh;
use super::progress::{Failure, Picture, PodState, key};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::wait::took;

/// Fails if a pod does not work and time will not heal it.
pub(super) async fn stop_at_failures(
    cluster: &Cluster,
    mesh: &Mesh,
    pods: &[Value],
    picture: &mut Picture,
) -> Result<(), Error> {
    let failing: Vec<(&Value, Failure)> = pods
        .iter()
        .filter_map(|pod| match PodState::of(pod) {
            PodState::Failing(failure) if failure.is_final() => Some((pod, failure)),
            _ => None,
        })
        .collect();
    if failing.is_empty() {
        return Ok(());
    }
    picture.clear();
    let mut error = Error::failed(format!("{} cannot start", crate::error::count(failing.len(), "pod")));
    for (pod, failure) in &failing {
        error = error.because(told(cluster, pod, failure).await);
    }
    Err(error.hint(format!(
        "the mesh runs; mend the cause and apply again with `meshctl local up{} -f FILE`, or stop it with `meshctl local down{}`",
        mesh.flag(),
        mesh.flag()
    )))
}

/// The error that pods did not get ready in time.
pub(super) async fn late(cluster: &Cluster, mesh: &Mesh, pods: &[Value], limit: Duration) -> Result<Error, Error> {
    let mut error = Error::timeout(format!("not everything is ready after {}", took(limit)));
    if pods.is_empty() {
        error = error.because("there are no pods yet");
    }
    for pod in pods {
        match PodState::of(pod) {
            PodState::Ready => {}
            PodState::Starting(what) => error = error.because(format!("{}: {what}", key(pod))),
            PodState::Failing(failure) => error = error.because(told(cluster, pod, &failure).await),
        }
    }
    Ok(error.hint(format!("the mesh goes on starting; see `meshctl local status{}`", mesh.flag())))
}

/// A pod's failure with its reason and the last lines that the container wrote.
async fn told(cluster: &Cluster, pod: &Value, failure: &Failure) -> String {
    let mut words = format!("{}: {} {}: {}", key(pod), failure.container, failure.reason, failure.message);
    let log = super::streams::last_lines(cluster, pod, &failure.container, 5).await;
    for line in log.lines() {
        words.push_str("\n  | ");
        words.push_str(line);
    }
    words
}
