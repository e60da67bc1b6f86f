//! What logs and exec have in common: containers of pods, and bytes from them.

use api::names::PROXY_CONTAINER;
use futures_util::AsyncReadExt as _;
use http::Request;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::resources::{name_of, namespace_of, text};

/// Names of a pod's containers: the application's first.
pub(crate) fn containers(pod: &Value) -> Vec<&str> {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| pod.pointer(&format!("/spec/{list}"))?.as_array())
        .flatten()
        .filter_map(|container| text(container, &["name"]))
        .collect()
}

/// The container that is meant: the one named, else the application's.
///
/// # Errors
/// When the pod has no container of that name.
pub(super) fn container(pod: &Value, wanted: Option<&str>) -> Result<String, Error> {
    let all = containers(pod);
    let Some(wanted) = wanted else {
        let annotated = text(pod, &["metadata", "annotations", "kubectl.kubernetes.io/default-container"]);
        let own = all.iter().find(|name| **name != PROXY_CONTAINER).or(all.first());
        return annotated.or(own.copied()).map(str::to_owned).ok_or_else(|| Error::failed("the pod has no containers"));
    };
    if all.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    let error = Error::failed(format!("pod {}/{} has no container `{wanted}`", namespace_of(pod), name_of(pod)));
    Err(match api::suggest::closest(wanted, all.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `-c {near}`?")),
        None => error.hint(format!("its containers: {}", all.join(", "))),
    })
}

/// The path of a container's log.
pub(crate) fn log_path(pod: &Value, container: &str, query: &str) -> String {
    format!("/api/v1/namespaces/{}/pods/{}/log?container={container}{query}", namespace_of(pod), name_of(pod))
}

/// What a log holds now.
///
/// # Errors
/// When there is none, or it does not come in time.
pub(crate) async fn read_log(cluster: &Cluster, path: &str) -> Result<String, Error> {
    let failed = |why: String| Error::failed("the log cannot be read").because(why);
    let request = Request::get(path).body(Vec::new()).map_err(|error| failed(error.to_string()))?;
    let read = async {
        let mut stream = cluster.client().request_stream(request).await.map_err(|error| match error {
            kube::Error::Api(status) => Error::failed(status.message.clone()),
            other => failed(other.to_string()),
        })?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.map_err(|error| failed(crate::error::io_words(&error)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(failed("it does not come in time".to_owned())))
}

/// The last lines that a container has written; empty when there is nothing to be had.
pub(super) async fn last_lines(cluster: &Cluster, pod: &Value, container: &str, lines: usize) -> String {
    if container.is_empty() {
        return String::new();
    }
    for query in [format!("&tailLines={lines}"), format!("&tailLines={lines}&previous=true")] {
        let Ok(request) = Request::get(log_path(pod, container, &query)).body(Vec::new()) else { continue };
        let Ok(mut stream) = cluster.client().request_stream(request).await else { continue };
        let mut text = String::new();
        let read = tokio::time::timeout(std::time::Duration::from_secs(2), stream.read_to_string(&mut text)).await;
        if matches!(read, Ok(Ok(_))) && !text.trim().is_empty() {
            return text;
        }
    }
    String::new()
}
