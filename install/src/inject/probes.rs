//! Probes of the application that the proxy makes in the node's place.
//!
//! A kubelet speaks neither mutual TLS nor through the interception; what it asks of an intercepted port would be
//! answered by the proxy rather than by the application, or refused. So probes by HTTP, HTTPS, TCP and gRPC (and lifecycle
//! hooks by HTTP) are turned into requests to the proxy's metrics port, and the proxy is told, in the environment variable
//! [`VARIABLE`], what to ask the application for. Probes that run a command stay as they are.

use api::names::proxy_port;
use serde_json::{Map, Value, json};

use super::Refusal;

/// The variable that tells the proxy the original probes: JSON, by the path that stands for each.
pub(super) const VARIABLE: &str = "MESH_APP_PROBES";

/// A handler of the user's that asks the proxy from now on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rewrite {
    /// `containers` or `initContainers`.
    pub(crate) list: &'static str,
    /// Which of its items.
    pub(crate) index: usize,
    /// The name of that container.
    pub(crate) container: String,
    /// The probe or hook, as in `livenessProbe` or `lifecycle.preStop`.
    pub(crate) probe: &'static str,
    /// The handler's field: `httpGet`, `tcpSocket` or `grpc`.
    pub(crate) key: &'static str,
    /// The handler as the user wrote it.
    pub(crate) was: Value,
    /// The `httpGet` that takes its place.
    pub(crate) now: Value,
}

/// Probes and hooks, and the path that stands for each.
const PLACES: [(&str, &str, &str); 5] = [
    ("startupProbe", "app-health", "startupz"),
    ("readinessProbe", "app-health", "readyz"),
    ("livenessProbe", "app-health", "livez"),
    ("lifecycle.postStart", "app-lifecycle", "poststartz"),
    ("lifecycle.preStop", "app-lifecycle", "prestopz"),
];

/// Handlers that are rewritten.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// What is rewritten in a pod, and what the proxy is told.
pub(super) fn plan(pod: &Value) -> Result<(Vec<Rewrite>, Map<String, Value>), Refusal> {
    let (mut rewrites, mut told) = (Vec::new(), Map::new());
    for list in ["containers", "initContainers"] {
        let containers = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            // Init containers that end have neither probes nor hooks.
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            for (probe, folder, word) in PLACES {
                let Some((key, was)) = handler(container, probe) else { continue };
                let path = format!("/{folder}/{name}/{word}");
                let timeout = place(container, probe).and_then(|probe| probe.get("timeoutSeconds")).cloned();
                let mut original = original(container, key, was).ok_or_else(|| unclear(name, probe, key))?;
                original["timeoutSeconds"] = timeout.filter(|value| !value.is_null()).unwrap_or_else(|| json!(1));
                let now = json!({"path": path, "port": proxy_port::METRICS});
                told.insert(path, original);
                let (container, was) = (name.to_owned(), was.clone());
                rewrites.push(Rewrite { list, index, container, probe, key, was, now });
            }
        }
    }
    Ok((rewrites, told))
}

/// Puts the proxy's handlers into a pod.
pub(super) fn apply(pod: &mut Value, rewrites: Vec<Rewrite>) {
    for rewrite in rewrites {
        let Rewrite { list, index, probe, key, now, .. } = rewrite;
        let container = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(|list| list.get_mut(index));
        if let Some(place) = container.and_then(|container| place_mut(container, probe)).and_then(Value::as_object_mut)
        {
            place.shift_remove(key);
            place.insert("httpGet".to_owned(), now);
        }
    }
}

/// A handler as the user wrote it, as the status of a pod remembers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Original {
    /// The container.
    pub container: String,
    /// The probe or hook, as in `livenessProbe` or `lifecycle.preStop`.
    pub probe: String,
    /// The handler's field and its value, as in `tcpSocket: {port: 1}`.
    pub was: Map<String, Value>,
    /// The text of the handler, where it was written in brackets.
    pub text: Option<String>,
    /// The number of lines that hold it as comments, where it was written as lines.
    pub lines: Option<usize>,
}

impl Rewrite {
    /// What the status says of it.
    pub(super) fn status(&self) -> Value {
        json!({"container": self.container, "probe": self.probe, "was": {self.key: self.was}})
    }
}

impl Original {
    pub(super) fn of(status: &Value) -> Option<Self> {
        let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Original {
            container: text("container")?,
            probe: text("probe")?,
            was: status.get("was")?.as_object()?.clone(),
            text: text("text"),
            lines: status.get("lines").and_then(Value::as_u64).and_then(|lines| usize::try_from(lines).ok()),
        })
    }
}

/// Puts the user's handlers back.
pub(super) fn restore(spec: &mut Map<String, Value>, originals: &[Original]) {
    for original in originals {
        let lists = ["containers", "initContainers"];
        let container = lists.into_iter().find_map(|list| {
            let all = spec.get(list)?.as_array()?;
            let at = all.iter().position(|it| it.get("name").and_then(Value::as_str) == Some(&original.container))?;
            Some((list, at))
        });
        let Some((list, at)) = container else { continue };
        let container = spec.get_mut(list).and_then(|list| list.get_mut(at));
        let place =
            container.and_then(|container| place_mut(container, &original.probe)).and_then(Value::as_object_mut);
        if let Some(place) = place {
            place.shift_remove("httpGet");
            place.extend(original.was.clone());
        }
    }
}

/// The probe or hook of a container.
fn place<'a>(container: &'a Value, probe: &str) -> Option<&'a Value> {
    probe.split('.').try_fold(container, |value, key| value.get(key))
}

fn place_mut<'a>(container: &'a mut Value, probe: &str) -> Option<&'a mut Value> {
    probe.split('.').try_fold(container, |value, key| value.get_mut(key))
}

/// The handler of a probe or hook that is rewritten, if it has one: not one that asks another host than the pod.
fn handler<'a>(container: &'a Value, probe: &str) -> Option<(&'static str, &'a Value)> {
    let place = place(container, probe)?;
    let (key, handler) =
        HANDLERS.into_iter().find_map(|key| Some((key, place.get(key).filter(|it| it.is_object())?)))?;
    let host = handler.get("host").and_then(Value::as_str).unwrap_or_default();
    // A hook that only connects is one that no kubelet makes.
    let is_made = key == "httpGet" || !probe.starts_with("lifecycle");
    (host.is_empty() && is_made).then_some((key, handler))
}

/// What the proxy is to ask, with all defaults written out; `None` when the port makes no sense.
fn original(container: &Value, key: &str, handler: &Value) -> Option<Value> {
    let port = port(container, handler.get("port")?)?;
    let text = |field: &str, default: &str| {
        let text = handler.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        json!(text.unwrap_or(default))
    };
    Some(match key {
        "httpGet" => {
            let mut get = json!({"path": text("path", "/"), "port": port, "scheme": text("scheme", "HTTP")});
            let headers = handler.get("httpHeaders").and_then(Value::as_array).filter(|headers| !headers.is_empty());
            if let Some(headers) = headers {
                get["httpHeaders"] = json!(headers);
            }
            json!({"httpGet": get})
        }
        "grpc" => json!({"grpc": {"port": port, "service": text("service", "")}}),
        _ => json!({"tcpSocket": {"port": port}}),
    })
}

/// A port by its number, or by the name that the container gives it.
fn port(container: &Value, port: &Value) -> Option<u16> {
    let number = match port {
        Value::Number(number) => number.as_u64(),
        Value::String(name) => {
            let mut ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
            let named = ports.find(|port| port.get("name").and_then(Value::as_str) == Some(name));
            named.map_or_else(|| name.parse().ok(), |port| port.get("containerPort")?.as_u64())
        }
        _ => None,
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
}

fn unclear(container: &str, probe: &'static str, key: &str) -> Refusal {
    Refusal::Probe { container: container.to_owned(), probe, handler: key.to_owned() }
}

#[cfg(test)]
mod tests;
