//! A pod in, the same pod with a sidecar out, and back.
//!
//! What is added: the init container [`INIT_CONTAINER`] with the interception rules, the native sidecar
//! [`PROXY_CONTAINER`] (an init container that restarts always, so that it starts before the application and ends
//! after it), a volume with its token and one for the socket of its identity, and the annotation [`STATUS`], by which an injected pod is known again and can
//! be brought back. What the pod's annotations ask for is in `options`.

use api::names::{
    CLASSIC_INJECT, INIT_CONTAINER, INJECT, PROXY_CONTAINER, PROXY_UID, STATUS, STATUS_MUTUAL_TLS, SYSTEM_NAMESPACE,
    WORKLOAD_VOLUME, proxy_port,
};
use serde_json::{Map, Value, json};

use crate::values::Images;

mod containers;
mod object;
mod options;
mod probes;
mod remove;
mod socket;

pub use object::{inject_object, pod_path};
pub use probes::Original;
pub use remove::{Status, remove_object, remove_pod};
pub use socket::Granted;

pub(crate) use containers::{ca_token_source, proxy_env, proxy_security, proxy_volume, ready_probe};
pub(crate) use object::{extend_object, plan_object};

use options::Options;
pub(crate) use probes::Rewrite;
pub(crate) use socket::Grant;

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
        let address = format!("{}.{SYSTEM_NAMESPACE}.svc:{}", api::names::PILOT, api::names::pilot_port::XDS);
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
    /// It is in a namespace that is never injected.
    #[error("nothing is injected in its namespace")]
    SystemNamespace,
    /// It holds no pod template.
    #[error("it runs no pods")]
    NoPods,
    /// Nobody knows this kind, and it holds no pod template where one is looked for.
    #[error("unknown kind, and no pod template at spec.template")]
    UnknownKind,
    /// There is nothing to take out.
    #[error("it has no sidecar")]
    NoSidecar,
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
    /// A container or volume has the name of one of ours without being ours.
    #[error("a {what} is already called `{name}`, which is the sidecar's name")]
    NameTaken {
        /// `container` or `volume`.
        what: &'static str,
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
    /// A container uses a port that the proxy needs in the same network.
    #[error("container `{container}` uses port {port}, which is the proxy's")]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: u16,
    },
    /// A container runs as the proxy's user, so that the rules would take its connections for the proxy's.
    #[error(
        "{what} runs as user {PROXY_UID}, which is the proxy's: its connections would pass the mesh by; choose another user"
    )]
    UserTaken {
        /// ``container `app` ``, or the pod.
        what: String,
    },
    /// A probe asks for a port that its container does not have.
    #[error(
        "the {probe} of container `{container}` asks for a port ({handler}.port) that is neither a number nor a name of one of \
         the container's ports"
    )]
    Probe {
        /// The container.
        container: String,
        /// The probe.
        probe: &'static str,
        /// Its handler, as `httpGet`.
        handler: String,
    },
    /// An annotation asks for something that cannot be.
    #[error("annotation {key} is `{value}`: {reason}")]
    Annotation {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An annotation of ours that does not exist.
    #[error("there is no annotation {key}{}", hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    UnknownAnnotation {
        /// The annotation.
        key: String,
        /// One that exists, nearly spelt the same.
        hint: Option<&'static str>,
    },
}

/// What injection adds to a pod, and which of the fields that hold it are new.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Additions {
    /// Go before the pod's own init containers, whose network then works already.
    pub(crate) init_containers: Vec<Value>,
    /// Go before the pod's own containers: the proxy, where it is not to be a native sidecar.
    pub(crate) containers: Vec<Value>,
    /// Go before the pod's own volumes.
    pub(crate) volumes: Vec<Value>,
    /// Probes that ask the proxy from now on.
    pub(crate) rewrites: Vec<Rewrite>,
    /// Containers of the application that are given the socket of the pod's identity.
    pub(crate) grants: Vec<Grant>,
    /// The value of [`STATUS`].
    pub(crate) status: Value,
}

impl Additions {
    /// Stand-ins of the same number and names, for looking at where additions go rather than at what they are.
    pub(crate) fn stand_ins(self) -> Self {
        let names = |items: Vec<Value>| items.iter().map(stand_in).collect();
        Additions {
            init_containers: names(self.init_containers),
            containers: names(self.containers),
            volumes: names(self.volumes),
            ..self
        }
    }
}

/// An item of a list with nothing but its name.
pub(crate) fn stand_in(item: &Value) -> Value {
    json!({"name": item["name"]})
}

/// Injects a pod or a pod template (metadata and spec). Injecting twice gives what injecting once gives.
///
/// # Errors
///
/// [`Refusal`] when the pod asks for a sidecar that it cannot be given.
pub fn inject_pod(pod: &Value, injection: &Injection) -> Result<Outcome, Refusal> {
    Ok(match plan(pod, injection, None)? {
        Ok(additions) => Outcome::Injected(apply(pod.clone(), additions)?),
        Err(skip) => Outcome::Skipped(skip),
    })
}

/// What a pod would be given; `owner` is what it belongs to, where that is known better than from the pod.
fn plan(pod: &Value, injection: &Injection, owner: Option<&str>) -> Result<Result<Additions, Skip>, Refusal> {
    if is_in_system_namespace(pod) {
        return Ok(Err(Skip::SystemNamespace));
    }
    if let Some(skip) = skip(pod, injection)? {
        return Ok(Err(skip));
    }
    let options = Options::read(pod)?;
    refuse_clashes(pod, options.status_port)?;
    let (rewrites, told) = if options.rewrites_probes { probes::plan(pod)? } else { Default::default() };
    let proxy = containers::proxy(injection, &options, pod, (owner, told));
    let (mut init_containers, mut containers) = (vec![containers::init(injection, &options)], Vec::new());
    if options.is_native { &mut init_containers } else { &mut containers }.push(proxy);
    let names = |items: &[Value]| items.iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    let mut status = json!({
        "initContainers": names(&init_containers),
        "volumes": [PROXY_CONTAINER, WORKLOAD_VOLUME],
        "ports": options::application_ports(pod),
        "created": created(pod),
        (STATUS_MUTUAL_TLS): true,
    });
    if !containers.is_empty() {
        status["containers"] = json!(names(&containers));
    }
    if !rewrites.is_empty() {
        status["probes"] = rewrites.iter().map(Rewrite::status).collect();
    }
    let grants = if options.workload_socket { socket::plan(pod) } else { Vec::new() };
    if !grants.is_empty() {
        status["sockets"] = grants.iter().map(Grant::status).collect();
    }
    let volumes = vec![proxy_volume(), socket::volume()];
    Ok(Ok(Additions { init_containers, containers, volumes, rewrites, grants, status }))
}

/// Fields that injection makes, as they are not there. The volume that the API server adds to every pod does not count:
/// a template does not have it yet.
fn created(pod: &Value) -> Vec<&'static str> {
    let volumes = pod.pointer("/spec/volumes");
    [
        ("metadata", pod.get("metadata").is_none()),
        ("annotations", pod.pointer("/metadata/annotations").is_none()),
        ("initContainers", pod.pointer("/spec/initContainers").is_none()),
        ("volumes", volumes.is_none_or(|volumes| volumes.as_array().is_some_and(|own| socket::is_the_servers(own)))),
    ]
    .into_iter()
    .filter_map(|(name, is_created)| is_created.then_some(name))
    .collect()
}

/// Refuses pods whose containers would get into the proxy's way.
fn refuse_clashes(pod: &Value, status_port: u16) -> Result<(), Refusal> {
    use proxy_port::{ADMIN, INBOUND, METRICS, OUTBOUND};
    let is_proxys = |security: Option<&Value>| {
        security.and_then(|it| it.get("runAsUser")).and_then(Value::as_u64) == Some(u64::from(PROXY_UID))
    };
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if is_proxys(spec.get("securityContext")) {
        return Err(Refusal::UserTaken { what: "the pod".to_owned() });
    }
    for container in spec.get("containers").and_then(Value::as_array).into_iter().flatten() {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        if is_proxys(container.get("securityContext")) {
            return Err(Refusal::UserTaken { what: format!("container `{name}`") });
        }
        for port in container.get("ports").and_then(Value::as_array).into_iter().flatten() {
            let number = port.get("containerPort").and_then(Value::as_u64);
            let is_tcp = port.get("protocol").and_then(Value::as_str).is_none_or(|protocol| protocol == "TCP");
            let taken = [ADMIN, OUTBOUND, INBOUND, METRICS, status_port]
                .into_iter()
                .find(|own| Some(u64::from(*own)) == number);
            if let Some(port) = taken.filter(|_| is_tcp) {
                return Err(Refusal::PortTaken { container: name.to_owned(), port });
            }
        }
    }
    Ok(())
}

/// The pod with the additions.
fn apply(mut pod: Value, additions: Additions) -> Result<Value, Refusal> {
    probes::apply(&mut pod, additions.rewrites);
    socket::apply(&mut pod, additions.grants);
    let spec = child(&mut pod, "spec", "spec")?;
    for (key, mut items) in [
        ("initContainers", additions.init_containers),
        ("containers", additions.containers),
        ("volumes", additions.volumes),
    ] {
        if items.is_empty() {
            continue;
        }
        let place = spec.entry(key).or_insert(Value::Null);
        match place.take() {
            Value::Null => {}
            Value::Array(own) => items.extend(own),
            _ => return Err(Refusal::Shape { path: format!("spec.{key}"), expected: "a list" }),
        }
        *place = Value::Array(items);
    }
    let metadata = child(&mut pod, "metadata", "metadata")?;
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = json!({});
    }
    let annotations = annotations
        .as_object_mut()
        .ok_or(Refusal::Shape { path: "metadata.annotations".to_owned(), expected: "a map" })?;
    annotations.insert(STATUS.to_owned(), Value::String(additions.status.to_string()));
    Ok(pod)
}

/// Namespaces whose pods never get a sidecar.
const NEVER: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", SYSTEM_NAMESPACE];

/// Whether an object is where nothing is injected, whatever it asks for.
fn is_in_system_namespace(object: &Value) -> bool {
    object.pointer("/metadata/namespace").and_then(Value::as_str).is_some_and(|name| NEVER.contains(&name))
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
    for (list, what) in [("containers", "container"), ("initContainers", "container"), ("volumes", "volume")] {
        for item in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            let is_ours = match what {
                "container" => [PROXY_CONTAINER, INIT_CONTAINER].contains(&name),
                _ => [PROXY_CONTAINER, WORKLOAD_VOLUME].contains(&name),
            };
            if is_ours {
                return Err(Refusal::NameTaken { what, name: name.to_owned() });
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

#[cfg(test)]
mod tests;
