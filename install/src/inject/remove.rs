//! An injected pod in, the pod without its sidecar out.

use api::names::{INIT_CONTAINER, PROXY_CONTAINER, STATUS};
use serde_json::{Map, Value};

use super::object::pod_path;
use super::probes::{self, Original};
use super::socket::{self, Granted};

/// What injection says about itself on a pod, in the annotation [`STATUS`].
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Names of the init containers that were added.
    pub init_containers: Vec<String>,
    /// Names of the containers that were added.
    pub containers: Vec<String>,
    /// Names of the volumes that were added.
    pub volumes: Vec<String>,
    /// Fields that were not there before: `metadata`, `annotations`, `initContainers`, `volumes`.
    pub created: Vec<String>,
    /// Probes as they were.
    pub probes: Vec<Original>,
    /// What containers were given to reach the socket of the pod's identity.
    pub sockets: Vec<Granted>,
}

impl Status {
    /// The status of a pod; `None` when it has no sidecar. One that cannot be read counts as our usual one.
    #[must_use]
    pub fn of(pod: &Value) -> Option<Self> {
        let text = pod.get("metadata")?.get("annotations")?.get(STATUS)?.as_str()?;
        let status: Value = serde_json::from_str(text).unwrap_or_default();
        let names = |key: &str, otherwise: &[&str]| match status.get(key).and_then(Value::as_array) {
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => otherwise.iter().map(|name| (*name).to_owned()).collect(),
        };
        let items = |key: &str| status.get(key).and_then(Value::as_array).into_iter().flatten();
        Some(Status {
            init_containers: names("initContainers", &[INIT_CONTAINER, PROXY_CONTAINER]),
            containers: names("containers", &[]),
            volumes: names("volumes", &[PROXY_CONTAINER]),
            created: names("created", &["metadata", "annotations", "initContainers", "volumes"]),
            probes: items("probes").filter_map(Original::of).collect(),
            sockets: items("sockets").filter_map(Granted::of).collect(),
        })
    }

    /// Whether a field was not there before.
    #[must_use]
    pub fn created(&self, field: &str) -> bool {
        self.created.iter().any(|created| created == field)
    }
}

/// Removes the sidecar from the pod template of any object that has one; `None` when there is no sidecar.
#[must_use]
pub fn remove_object(object: &Value) -> Option<Value> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let path = pod_path(kind);
    let pod = remove_pod(path.iter().try_fold(object, |value, key| value.get(key))?)?;
    let mut object = object.clone();
    *path.iter().try_fold(&mut object, |value, key| value.get_mut(key))? = pod;
    Some(object)
}

/// Removes the sidecar from a pod or pod template; `None` when it has none.
#[must_use]
pub fn remove_pod(pod: &Value) -> Option<Value> {
    let status = Status::of(pod)?;
    let mut pod = pod.clone();
    let root = pod.as_object_mut()?;
    if let Some(spec) = root.get_mut("spec").and_then(Value::as_object_mut) {
        remove_items(spec, "initContainers", &status.init_containers, &status);
        remove_items(spec, "containers", &status.containers, &status);
        probes::restore(spec, &status.probes);
        socket::remove(spec, &status.sockets);
        remove_items(spec, "volumes", &status.volumes, &status);
    }
    let metadata = root.get_mut("metadata").and_then(Value::as_object_mut)?;
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut)?;
    annotations.shift_remove(STATUS);
    if annotations.is_empty() && status.created("annotations") {
        metadata.shift_remove("annotations");
    }
    if metadata.is_empty() && status.created("metadata") {
        root.shift_remove("metadata");
    }
    Some(pod)
}

fn remove_items(spec: &mut Map<String, Value>, key: &str, names: &[String], status: &Status) {
    let Some(items) = spec.get_mut(key).and_then(Value::as_array_mut) else { return };
    items.retain(|item| {
        let name = item.get("name").and_then(Value::as_str);
        !name.is_some_and(|name| names.iter().any(|own| own == name))
    });
    if items.is_empty() && status.created(key) {
        spec.shift_remove(key);
    }
}
