//! Keeps as many pods of a ReplicaSet as it wants.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, Key, concerns_others, is_controlled_by, key, keys, owner, write_status};
use crate::api::object::{array, child, has_condition, text};
use crate::api::{Api, ApiResult, Caller, DeleteOptions, Event, Store, events, object};

pub(super) const REPLICASETS: &str = "replicasets.apps";

pub(super) struct ReplicaSets {
    api: Arc<Api>,
}

impl ReplicaSets {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }

    async fn make_pod(&self, set: &Value) -> ApiResult<()> {
        let template = &set["spec"]["template"];
        let mut metadata = template["metadata"].clone();
        let fields = child_of(&mut metadata);
        fields.remove("creationTimestamp");
        let prefix: String = object::name(set).chars().take(57).collect();
        fields.insert("generateName".into(), format!("{prefix}-").into());
        fields.insert("namespace".into(), object::namespace(set).into());
        fields.insert("ownerReferences".into(), json!([object::controller_reference(set)]));
        let pod = json!({"metadata": metadata, "spec": template["spec"]});
        let made = self.api.create("pods", pod, &Caller::system("replicaset-controller")).await;
        let store = self.api.store();
        match &made {
            Ok(pod) => {
                let message = format!("Created pod: {}", object::name(pod));
                events::record(store, "replicaset-controller", set, ("Normal", "SuccessfulCreate"), &message);
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                events::record(store, "replicaset-controller", set, ("Warning", "FailedCreate"), &message);
            }
        }
        made.map(|_| ())
    }
}

fn child_of(metadata: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("made an object above")
}

impl Controller for ReplicaSets {
    const WATCHED: &'static [&'static str] = &[REPLICASETS, "pods"];

    fn all(&self) -> Vec<Key> {
        keys(self.api.store(), REPLICASETS)
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        match &*event.resource {
            "pods" if !concerns_others(event) => vec![],
            "pods" => owner(&event.object, "ReplicaSet").into_iter().collect(),
            _ => vec![key(&event.object)],
        }
    }

    async fn reconcile(&self, (namespace, name): &Key) -> ApiResult<()> {
        let store = self.api.store();
        let set = store.get(REPLICASETS, namespace, name)?;
        let mut failure = None;
        if !object::is_deleting(&set) {
            let alive = alive(store, &set);
            let wanted = usize::try_from(set["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap_or(0);
            for _ in alive.len()..wanted {
                if let Err(error) = self.make_pod(&set).await {
                    failure = Some(error);
                    break;
                }
            }
            for pod in surplus(alive, wanted) {
                store.delete("pods", namespace, object::name(&pod), &DeleteOptions::default())?;
                let message = format!("Deleted pod: {}", object::name(&pod));
                events::record(store, "replicaset-controller", &set, ("Normal", "SuccessfulDelete"), &message);
            }
        }
        report(store, namespace, name, failure.as_ref().map(|it| it.message.as_str()))?;
        failure.map_or(Ok(()), Err)
    }
}

/// The pods of a set that count: not ended and not ending.
pub(super) fn alive(store: &Store, set: &Value) -> Vec<Arc<Value>> {
    let pods = store.owned_of(object::uid(set), "pods");
    let counts = |pod: &Value| {
        is_controlled_by(pod, set)
            && !object::is_deleting(pod)
            && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
    };
    pods.into_iter().filter(|pod| counts(pod)).collect()
}

/// Those that go first: not ready ones, then the youngest.
fn surplus(mut pods: Vec<Arc<Value>>, wanted: usize) -> Vec<Arc<Value>> {
    pods.sort_by_key(|pod| (!has_condition(pod, "Ready"), text(pod, "/metadata/creationTimestamp").to_owned()));
    pods.split_off(wanted.min(pods.len()))
}

fn report(store: &Store, namespace: &str, name: &str, failure: Option<&str>) -> ApiResult<()> {
    let old = store.get(REPLICASETS, namespace, name)?;
    let pods = alive(store, &old);
    let ready = pods.iter().filter(|pod| has_condition(pod, "Ready")).count();
    let mut new = (*old).clone();
    let generation = old["metadata"]["generation"].clone();
    let status = child(&mut new, "status");
    status.insert("replicas".into(), pods.len().into());
    status.insert("fullyLabeledReplicas".into(), pods.len().into());
    status.insert("readyReplicas".into(), ready.into());
    status.insert("availableReplicas".into(), ready.into());
    status.insert("observedGeneration".into(), generation);
    match failure {
        Some(message) => object::set_condition(&mut new, "ReplicaFailure", "True", "FailedCreate", message),
        None if array(&old, "/status/conditions").is_empty() => {}
        None => {
            child(&mut new, "status").remove("conditions");
        }
    }
    write_status(store, REPLICASETS, &old, new)
}
