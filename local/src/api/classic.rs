//! Groups and versions that are served as views of others: those of old files, and the second group of Events.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::object::{self, array, child, text};
use super::resources::{Resource, Resources};

/// How a caller sees the objects of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// As they are stored, except that `apiVersion` is this.
    Version(String),
    /// A Deployment of an old group.
    OldDeployment(String),
    /// An Ingress of an old group.
    OldIngress(String),
    /// An Event of `events.k8s.io`.
    NewEvent,
}

/// Old groups: group, version, plural, and the group where the resource lives today.
pub(super) const OLD: &[(&str, &str, &str, &str)] = &[
    ("extensions", "v1beta1", "deployments", "apps"),
    ("extensions", "v1beta1", "ingresses", "networking.k8s.io"),
    ("apps", "v1beta1", "deployments", "apps"),
    ("apps", "v1beta2", "deployments", "apps"),
    ("networking.k8s.io", "v1beta1", "ingresses", "networking.k8s.io"),
    ("events.k8s.io", "v1", "events", ""),
];

impl View {
    /// Finds the resource behind a path, and how it is seen from there.
    pub(super) fn find(
        resources: &Resources,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<(Arc<Resource>, Self)> {
        if let Some(resource) = resources.by_path(group, version, plural) {
            return Some((resource.clone(), Self::Version(resource.api_version(version))));
        }
        let (.., home) = OLD.iter().find(|(g, v, p, _)| (*g, *v, *p) == (group, version, plural))?;
        let resource = resources.by_path(home, "v1", plural)?.clone();
        let api_version = format!("{group}/{version}");
        let view = match plural {
            "deployments" => Self::OldDeployment(api_version),
            "ingresses" => Self::OldIngress(api_version),
            _ => Self::NewEvent,
        };
        Some((resource, view))
    }

    /// The `apiVersion` that the caller sees.
    pub(super) fn api_version(&self) -> &str {
        match self {
            Self::Version(version) | Self::OldDeployment(version) | Self::OldIngress(version) => version,
            Self::NewEvent => "events.k8s.io/v1",
        }
    }

    /// Turns what a caller sent into what is stored.
    pub(super) fn read(&self, mut sent: Value) -> Value {
        match self {
            Self::Version(_) | Self::OldDeployment(_) => {}
            Self::OldIngress(_) => ingress_to_current(&mut sent),
            Self::NewEvent => event_to_core(&mut sent),
        }
        // The stored version is put in by the store.
        sent
    }

    /// Turns what is stored into what the caller sees.
    pub(super) fn show(&self, stored: &Value) -> Value {
        let mut shown = stored.clone();
        match self {
            Self::Version(_) | Self::OldDeployment(_) => {}
            Self::OldIngress(_) => ingress_to_old(&mut shown),
            Self::NewEvent => event_from_core(&mut shown),
        }
        if let Some(map) = shown.as_object_mut() {
            map.insert("apiVersion".into(), self.api_version().into());
        }
        shown
    }
}

fn backends(ingress: &mut Value, change: fn(&mut Map<String, Value>), default: (&str, &str)) {
    let spec = child(ingress, "spec");
    if let Some(mut backend) = spec.shift_remove(default.0) {
        if let Some(map) = backend.as_object_mut() {
            change(map);
        }
        spec.insert(default.1.to_owned(), backend);
    }
    for rule in spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten() {
            if let Some(backend) = path.get_mut("backend").and_then(Value::as_object_mut) {
                change(backend);
            }
        }
    }
}

fn ingress_to_current(ingress: &mut Value) {
    let change = |backend: &mut Map<String, Value>| {
        let Some(name) = backend.shift_remove("serviceName") else { return };
        let port = match backend.shift_remove("servicePort") {
            Some(Value::String(text)) => match text.parse::<u16>() {
                Ok(number) => json!({"number": number}),
                Err(_) => json!({"name": text}),
            },
            Some(number) => json!({"number": number}),
            None => json!({}),
        };
        backend.insert("service".into(), json!({"name": name, "port": port}));
    };
    backends(ingress, change, ("backend", "defaultBackend"));
}

fn ingress_to_old(ingress: &mut Value) {
    let change = |backend: &mut Map<String, Value>| {
        let Some(service) = backend.shift_remove("service") else { return };
        backend.insert("serviceName".into(), service["name"].clone());
        let port = &service["port"];
        backend.insert(
            "servicePort".into(),
            if port["name"].is_string() { port["name"].clone() } else { port["number"].clone() },
        );
    };
    backends(ingress, change, ("defaultBackend", "backend"));
}

fn rename(event: &mut Value, from: &str, to: &str) {
    if let Some(map) = event.as_object_mut()
        && let Some(value) = map.shift_remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}

fn event_to_core(event: &mut Value) {
    rename(event, "note", "message");
    rename(event, "regarding", "involvedObject");
    rename(event, "deprecatedCount", "count");
    rename(event, "deprecatedFirstTimestamp", "firstTimestamp");
    rename(event, "deprecatedLastTimestamp", "lastTimestamp");
    rename(event, "deprecatedSource", "source");
    rename(event, "reportingController", "reportingComponent");
    if event["involvedObject"]["namespace"].is_null() {
        let namespace = object::namespace(event).to_owned();
        child(event, "involvedObject").insert("namespace".into(), namespace.into());
    }
}

fn event_from_core(event: &mut Value) {
    rename(event, "message", "note");
    rename(event, "involvedObject", "regarding");
    rename(event, "count", "deprecatedCount");
    rename(event, "firstTimestamp", "deprecatedFirstTimestamp");
    rename(event, "lastTimestamp", "deprecatedLastTimestamp");
    rename(event, "source", "deprecatedSource");
    rename(event, "reportingComponent", "reportingController");
}

/// Whether an object's own `apiVersion` and `kind` (if it has them) are those of the path it was sent to.
pub(super) fn belongs(view: &View, kind: &str, sent: &Value) -> bool {
    let (api_version, sent_kind) = (text(sent, "/apiVersion"), text(sent, "/kind"));
    (api_version.is_empty() || api_version == view.api_version()) && (sent_kind.is_empty() || sent_kind == kind)
}

/// Whether an Ingress has a rule at all; used by tables.
pub(super) fn hosts(ingress: &Value) -> Vec<&str> {
    array(ingress, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host"))
        .map(|host| if host.is_empty() { "*" } else { host })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ingress_is_stored_as_a_current_one_and_shown_as_it_was() {
        let old = json!({
            "apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "gateway"},
            "spec": {
                "backend": {"serviceName": "d", "servicePort": "http"},
                "rules": [{"http": {"paths": [{"path": "/productpage", "backend": {"serviceName": "productpage", "servicePort": 9080}}]}}],
            },
        });
        let view = View::OldIngress("extensions/v1beta1".into());
        let stored = view.read(old.clone());
        assert_eq!(
            stored.pointer("/spec/rules/0/http/paths/0/backend"),
            Some(&json!({"service": {"name": "productpage", "port": {"number": 9080}}}))
        );
        assert_eq!(
            stored.pointer("/spec/defaultBackend"),
            Some(&json!({"service": {"name": "d", "port": {"name": "http"}}}))
        );
        assert_eq!(view.show(&stored), old);
    }
}
