//! A pod in, the same pod with a sidecar out.
//!
//! What is added: the init container [`INIT_CONTAINER`] with the interception rules, the native sidecar
//! [`PROXY_CONTAINER`] (an init container that restarts always, so that it starts before the application and ends
//! after it), a volume with its token, and the annotation [`STATUS`], by which an injected pod is known again.

use api::names::{
    CLASSIC_INJECT, INIT_CONTAINER, INJECT, PROXY_CONTAINER, PROXY_DIR, PROXY_UID, STATUS, TOKEN_AUDIENCE, proxy_port,
};
use serde_json::{Map, Value, json};

use crate::rules::Interception;
use crate::values::Images;

/// What injection depends on: the same for the webhook and the CLI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Where the images are.
    pub images: Images,
    /// Pilot's address, `host:port`.
    pub pilot_address: String,
    /// The root (PEM) that vouches for Pilot.
    pub pilot_root: String,
    /// Whether a pod that says nothing gets a sidecar.
    pub default: bool,
}

impl Injection {
    /// Injects by default, towards Pilot's usual address.
    #[must_use]
    pub fn new(images: Images, pilot_root: &str) -> Self {
        let address =
            format!("{}.{}.svc:{}", api::names::PILOT, api::names::SYSTEM_NAMESPACE, api::names::pilot_port::XDS);
        Injection { images, pilot_address: address, pilot_root: pilot_root.to_owned(), default: true }
    }
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The object with a sidecar.
    Injected(Value),
    /// Left as it is.
    Skipped(Skip),
}

/// Why an object was left as it is. None of these is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// It has a sidecar already.
    #[error("it has a sidecar already")]
    AlreadyInjected,
    /// Its annotation or label says so.
    #[error("sidecar.meshctl.io/inject is false")]
    OptedOut,
    /// Nothing asks for it.
    #[error("injection is off and the pod does not ask for it")]
    NotAsked,
    /// Interception would catch the whole node's traffic.
    #[error("it uses the host's network")]
    HostNetwork,
    /// It holds no pod template.
    #[error("it runs no pods")]
    NoPods,
}

/// Why a pod cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object does not have the shape of a pod.
    #[error("{path} is not {expected}")]
    Shape {
        /// Where, as `spec.containers`.
        path: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A container has the name of one of ours without being ours.
    #[error("a container is already called `{name}`, which is the sidecar's name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The value of the inject annotation or label is neither true nor false.
    #[error("{key} is `{value}`; it is `true` or `false`")]
    Policy {
        /// Annotation or label.
        key: String,
        /// Its value.
        value: String,
    },
}

/// Injects the pod template of any object that has one (Deployment, CronJob, Pod, …); also each item of a List.
///
/// # Errors
///
/// [`Refusal`] when the object asks for a sidecar that it cannot be given.
pub fn inject_object(object: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let path: &[&str] = match kind {
        "Pod" => return inject_pod(object, injection),
        "List" => return inject_list(object, injection),
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    let Some(template) = path.iter().try_fold(object, |value, key| value.get(key)) else {
        return Ok(Outcome::Skipped(Skip::NoPods));
    };
    if template.get("spec").and_then(|spec| spec.get("containers")).is_none() {
        return Ok(Outcome::Skipped(Skip::NoPods));
    }
    let injected = match inject_pod(template, injection)? {
        Outcome::Injected(template) => template,
        skipped @ Outcome::Skipped(_) => return Ok(skipped),
    };
    let mut object = object.clone();
    if let Some(place) = path.iter().try_fold(&mut object, |value, key| value.get_mut(key)) {
        *place = injected;
    }
    Ok(Outcome::Injected(object))
}

fn inject_list(list: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    let mut list = list.clone();
    let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) else {
        return Ok(Outcome::Skipped(Skip::NoPods));
    };
    let mut any = false;
    for item in items {
        if let Outcome::Injected(injected) = inject_object(item, injection)? {
            *item = injected;
            any = true;
        }
    }
    Ok(if any { Outcome::Injected(list) } else { Outcome::Skipped(Skip::NoPods) })
}

/// Injects a pod or a pod template (metadata and spec). Injecting twice gives what injecting once gives.
///
/// # Errors
///
/// [`Refusal`] when the pod asks for a sidecar that it cannot be given.
pub fn inject_pod(pod: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    if let Some(skip) = skip(pod, injection)? {
        return Ok(Outcome::Skipped(skip));
    }
    let mut pod = pod.clone();
    let spec = child(&mut pod, "spec", "spec")?;
    let ports = application_ports(spec);
    let own = [init_container(injection), proxy_container(injection)];
    // The rules come first, then the proxy: the application's own init containers already have a working network.
    let mut init: Vec<Value> = own.into();
    init.append(&mut list(spec, "initContainers")?);
    spec.insert("initContainers".to_owned(), Value::Array(init));
    let mut volumes = list(spec, "volumes")?;
    volumes.push(proxy_volume());
    spec.insert("volumes".to_owned(), Value::Array(volumes));
    let status = json!({
        "initContainers": [INIT_CONTAINER, PROXY_CONTAINER],
        "volumes": [PROXY_CONTAINER],
        "ports": ports,
    });
    let metadata = child(&mut pod, "metadata", "metadata")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let annotations = annotations
        .as_object_mut()
        .ok_or(Refusal::Shape { path: "metadata.annotations".to_owned(), expected: "a map" })?;
    annotations.insert(STATUS.to_owned(), Value::String(status.to_string()));
    Ok(Outcome::Injected(pod))
}

/// Decides whether the pod is left alone, from what it says about itself.
fn skip(pod: &Value, injection: &Injection) -> Result<Option<Skip>, Refusal> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if meta(pod, "annotations", STATUS).is_some() {
        return Ok(Some(Skip::AlreadyInjected));
    }
    let asked = policy(pod)?;
    if asked == Some(false) {
        return Ok(Some(Skip::OptedOut));
    }
    if asked.is_none() && !injection.default {
        return Ok(Some(Skip::NotAsked));
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Ok(Some(Skip::HostNetwork));
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if name == PROXY_CONTAINER || name == INIT_CONTAINER {
                return Err(Refusal::NameTaken { name: name.to_owned() });
            }
        }
    }
    Ok(None)
}

/// What annotation and label say; the annotation wins, ours before the classic one.
fn policy(pod: &Value) -> Result<Option<bool>, Refusal> {
    for (place, key) in
        [("annotations", INJECT), ("labels", INJECT), ("annotations", CLASSIC_INJECT), ("labels", CLASSIC_INJECT)]
    {
        let Some(value) = meta(pod, place, key) else { continue };
        return match value.to_ascii_lowercase().as_str() {
            "true" | "enabled" | "yes" | "y" | "on" => Ok(Some(true)),
            "false" | "disabled" | "no" | "n" | "off" => Ok(Some(false)),
            _ => Err(Refusal::Policy { key: key.to_owned(), value: value.to_owned() }),
        };
    }
    Ok(None)
}

fn meta<'a>(pod: &'a Value, place: &str, key: &str) -> Option<&'a str> {
    pod.get("metadata")?.get(place)?.get(key)?.as_str()
}

fn child<'a>(value: &'a mut Value, key: &str, path: &str) -> Result<&'a mut Map<String, Value>, Refusal> {
    let shape = || Refusal::Shape { path: path.to_owned(), expected: "a map" };
    let parent = value.as_object_mut().ok_or_else(shape)?;
    let child = parent.entry(key).or_insert_with(|| json!({}));
    if child.is_null() {
        *child = json!({});
    }
    child.as_object_mut().ok_or_else(shape)
}

fn list(spec: &mut Map<String, Value>, key: &str) -> Result<Vec<Value>, Refusal> {
    match spec.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Refusal::Shape { path: format!("spec.{key}"), expected: "a list" }),
    }
}

fn application_ports(spec: &Map<String, Value>) -> Vec<u64> {
    let containers = spec.get("containers").and_then(Value::as_array).into_iter().flatten();
    let ports = containers.flat_map(|c| c.get("ports").and_then(Value::as_array).into_iter().flatten());
    let mut ports: Vec<u64> = ports.filter_map(|port| port.get("containerPort")?.as_u64()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn init_container(injection: &Injection) -> Value {
    json!({
        "name": INIT_CONTAINER,
        "image": injection.images.init,
        "imagePullPolicy": "IfNotPresent",
        "command": ["nft"],
        "args": [Interception::default().render()],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    })
}

fn proxy_container(injection: &Injection) -> Value {
    json!({
        "name": PROXY_CONTAINER,
        "image": injection.images.proxy,
        "imagePullPolicy": "IfNotPresent",
        "args": ["sidecar"],
        "restartPolicy": "Always",
        "env": proxy_env(&injection.pilot_address, &injection.pilot_root),
        "ports": [{"name": "mesh-metrics", "containerPort": proxy_port::METRICS, "protocol": "TCP"}],
        "startupProbe": ready_probe(1, 600),
        "readinessProbe": ready_probe(10, 3),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": proxy_security(),
        "volumeMounts": [{"name": PROXY_CONTAINER, "mountPath": PROXY_DIR, "readOnly": true}],
    })
}

/// The proxy runs as a user of its own without any capability: the rules know its connections by that user.
pub(crate) fn proxy_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsGroup": PROXY_UID,
        "runAsNonRoot": true,
        "runAsUser": PROXY_UID,
    })
}

/// The environment of a proxy, sidecar or gateway.
pub(crate) fn proxy_env(pilot_address: &str, pilot_root: &str) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        {"name": "MESH_PILOT_ADDRESS", "value": pilot_address},
        {"name": "MESH_PILOT_ROOT_PEM", "value": pilot_root},
    ])
}

pub(crate) fn ready_probe(period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": proxy_port::READINESS},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

/// The volume with the token by which the proxy proves itself to Pilot.
pub(crate) fn proxy_volume() -> Value {
    json!({
        "name": PROXY_CONTAINER,
        "projected": {"sources": [
            {"serviceAccountToken": {"audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
        ]},
    })
}

#[cfg(test)]
mod tests;
