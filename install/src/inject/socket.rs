//! The socket at which the proxy hands the pod's identity out (SPIFFE Workload API, SDS).
//!
//! Every pod has the volume, and in it the socket; into the application's containers it is mounted only where an annotation
//! asks for it, as whoever can reach it can have the private key.

use std::path::Path;

use api::names::{WORKLOAD_SOCKET, WORKLOAD_VARIABLE, WORKLOAD_VOLUME};
use serde_json::{Map, Value, json};

/// A container of the application that is given the socket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grant {
    /// Which of the pod's containers.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) container: String,
    /// What is added: which list of the container, the item, and whether the list is new.
    pub(crate) items: Vec<(&'static str, Value, bool)>,
}

/// Directory of the socket.
fn directory() -> &'static str {
    Path::new(WORKLOAD_SOCKET).parent().and_then(Path::to_str).unwrap_or("/")
}

/// The volume, alone the pod's.
pub(super) fn volume() -> Value {
    json!({"name": WORKLOAD_VOLUME, "emptyDir": {}})
}

/// Where the proxy makes the socket.
pub(super) fn proxy_mount() -> Value {
    json!({"name": WORKLOAD_VOLUME, "mountPath": directory()})
}

/// What the pod's containers lack to reach the socket.
pub(super) fn plan(pod: &Value) -> Vec<Grant> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let wanted = [
        // Read-only: connecting needs no more, and nobody puts another socket in its place.
        ("volumeMounts", json!({"name": WORKLOAD_VOLUME, "mountPath": directory(), "readOnly": true})),
        ("env", json!({"name": WORKLOAD_VARIABLE, "value": format!("unix://{WORKLOAD_SOCKET}")})),
    ];
    let grants = containers.enumerate().map(|(index, container)| {
        let lacks = |(list, item): &(&'static str, Value)| {
            let own = container.get(list).and_then(Value::as_array);
            let is_there = own.is_some_and(|own| own.iter().any(|it| it.get("name") == item.get("name")));
            (!is_there).then(|| {
                (*list, item.clone(), container.get(list).is_none() || own.is_some_and(|own| is_the_servers(own)))
            })
        };
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        Grant { index, container: name.to_owned(), items: wanted.iter().filter_map(lacks).collect() }
    });
    grants.filter(|grant| !grant.items.is_empty()).collect()
}

/// Whether a list holds only what the API server adds to every pod: a template does not have it yet. An empty one is the
/// user's.
pub(super) fn is_the_servers(items: &[Value]) -> bool {
    let is_servers = |item: &Value| {
        item.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    !items.is_empty() && items.iter().all(is_servers)
}

/// Puts what is lacking into a pod, before what the user wrote.
pub(super) fn apply(pod: &mut Value, grants: Vec<Grant>) {
    for Grant { index, items, .. } in grants {
        let container = pod.pointer_mut(&format!("/spec/containers/{index}")).and_then(Value::as_object_mut);
        let Some(container) = container else { continue };
        for (list, item, _) in items {
            let place = container.entry(list).or_insert(Value::Null);
            if place.is_null() {
                *place = json!([]);
            }
            if let Some(own) = place.as_array_mut() {
                own.insert(0, item);
            }
        }
    }
}

/// What was added to a container, as the status of a pod remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The container.
    pub container: String,
    /// Which lists hold an item of ours, its name, and whether the list was made for it.
    pub items: Vec<(&'static str, &'static str, bool)>,
}

impl Grant {
    /// What the status says of it.
    pub(super) fn status(&self) -> Value {
        let lists: Map<String, Value> =
            self.items.iter().map(|(list, _, is_new)| ((*list).to_owned(), json!(is_new))).collect();
        json!({"container": self.container, "lists": lists})
    }
}

impl Granted {
    pub(super) fn of(status: &Value) -> Option<Self> {
        let container = status.get("container")?.as_str()?.to_owned();
        let lists = status.get("lists")?.as_object()?;
        let known = [("volumeMounts", WORKLOAD_VOLUME), ("env", WORKLOAD_VARIABLE)];
        let items = known.into_iter().filter_map(|(list, name)| Some((list, name, lists.get(list)?.as_bool()?)));
        Some(Granted { container, items: items.collect() })
    }
}

/// Takes out what was added.
pub(super) fn remove(spec: &mut Map<String, Value>, granted: &[Granted]) {
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(granted) = granted.iter().find(|granted| granted.container == name).cloned() else { continue };
        for (list, item, is_new) in granted.items {
            let Some(own) = container.get_mut(list).and_then(Value::as_array_mut) else { continue };
            own.retain(|it| it.get("name").and_then(Value::as_str) != Some(item));
            if own.is_empty() && is_new {
                container.shift_remove(list);
            }
        }
    }
}
