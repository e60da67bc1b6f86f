//! Rolls a Deployment's template out over ReplicaSets, one per template.

use std::sync::Arc;

use serde_json::{Value, json};

use super::replicasets::REPLICASETS;
use super::{Controller, Key, is_controlled_by, key, keys, owner, write_status};
use crate::api::object::{child, set_condition, text};
use crate::api::{Api, ApiResult, Change, DeleteOptions, Event, Reason, Store, events, object};

const DEPLOYMENTS: &str = "deployments.apps";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const COMPONENT: &str = "deployment-controller";

pub(super) struct Deployments {
    api: Arc<Api>,
}

impl Deployments {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }
}

impl Controller for Deployments {
    const WATCHED: &'static [&'static str] = &[DEPLOYMENTS, REPLICASETS, "pods"];

    fn all(&self) -> Vec<Key> {
        keys(self.api.store(), DEPLOYMENTS)
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        match &*event.resource {
            REPLICASETS => owner(&event.object, "Deployment").into_iter().collect(),
            // A deployment that is recreated waits for the last old pod.
            "pods" if event.change == Change::Deleted => {
                let set = owner(&event.object, "ReplicaSet");
                let set = set.and_then(|(namespace, name)| self.api.store().get(REPLICASETS, &namespace, &name).ok());
                set.and_then(|set| owner(&set, "Deployment")).into_iter().collect()
            }
            "pods" => vec![],
            _ => vec![key(&event.object)],
        }
    }

    async fn reconcile(&self, (namespace, name): &Key) -> ApiResult<()> {
        let store = self.api.store();
        let deployment = store.get(DEPLOYMENTS, namespace, name)?;
        if object::is_deleting(&deployment) {
            return Ok(());
        }
        let mut sets = owned(store, &deployment);
        let current = match sets.iter().position(|set| same_template(set, &deployment)) {
            Some(at) => sets.remove(at),
            None if deployment["spec"]["paused"] == true => return report(store, &deployment, None, &sets),
            None => make_set(store, &deployment, &sets)?,
        };
        note_revision(store, &deployment, &current, &sets)?;
        if deployment["spec"]["paused"] != true {
            roll(store, &deployment, &current, &sets)?;
            forget_old(store, &deployment, &sets)?;
        }
        let current = store.get(REPLICASETS, namespace, object::name(&current))?;
        report(store, &deployment, Some(&current), &owned_but(store, &deployment, &current))
    }
}

fn owned(store: &Store, deployment: &Value) -> Vec<Arc<Value>> {
    let sets = store.owned_of(object::uid(deployment), REPLICASETS);
    sets.into_iter().filter(|set| is_controlled_by(set, deployment) && !object::is_deleting(set)).collect()
}

fn owned_but(store: &Store, deployment: &Value, current: &Value) -> Vec<Arc<Value>> {
    owned(store, deployment).into_iter().filter(|set| object::uid(set) != object::uid(current)).collect()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn wanted(object: &Value) -> u64 {
    object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

fn same_template(set: &Value, deployment: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    template == deployment["spec"]["template"]
}

/// A short name for a template, the same whatever the order of its fields.
fn hash(value: &Value, salt: usize) -> String {
    fn feed(value: &Value, hash: &mut u64) {
        let mut bytes = |bytes: &[u8]| {
            for byte in bytes {
                *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        match value {
            Value::Object(map) => {
                bytes(b"{");
                let mut fields: Vec<_> = map.iter().collect();
                fields.sort_by_key(|(field, _)| *field);
                for (field, value) in fields {
                    feed(&Value::String(field.clone()), hash);
                    feed(value, hash);
                }
            }
            Value::Array(list) => {
                bytes(b"[");
                for value in list {
                    feed(value, hash);
                }
            }
            other => bytes(other.to_string().as_bytes()),
        }
    }
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut state = 0xcbf2_9ce4_8422_2325 ^ salt as u64;
    feed(value, &mut state);
    (0..10)
        .map(|_| {
            let letter = ALPHABET[(state % 27) as usize];
            state /= 27;
            char::from(letter)
        })
        .collect()
}

fn make_set(store: &Store, deployment: &Value, others: &[Arc<Value>]) -> ApiResult<Arc<Value>> {
    for salt in 0.. {
        let hash = hash(&deployment["spec"]["template"], salt);
        let mut template = deployment["spec"]["template"].clone();
        template["metadata"]["labels"][HASH] = hash.clone().into();
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = hash.clone().into();
        let base: String = object::name(deployment).chars().take(240).collect();
        let metadata = json!({
            "name": format!("{base}-{hash}"), "namespace": object::namespace(deployment), "labels": template["metadata"]["labels"],
            "annotations": {REVISION: next_revision(others)}, "ownerReferences": [object::controller_reference(deployment)],
        });
        let spec = json!({"replicas": 0, "selector": selector, "template": template});
        match store.create(REPLICASETS, json!({"metadata": metadata, "spec": spec})) {
            // Another template's hash, or a set of an earlier deployment that is being collected.
            Err(error) if error.reason == Reason::AlreadyExists && salt < 8 => {}
            made => return made,
        }
    }
    unreachable!("the loop ends by returning")
}

fn revision(set: &Value) -> u64 {
    let annotations = &set["metadata"]["annotations"];
    annotations[REVISION].as_str().and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn next_revision(sets: &[Arc<Value>]) -> String {
    (sets.iter().map(|set| revision(set)).max().unwrap_or(0) + 1).to_string()
}

/// A rollback makes an old set the newest again.
fn note_revision(store: &Store, deployment: &Value, current: &Value, others: &[Arc<Value>]) -> ApiResult<()> {
    let namespace = object::namespace(deployment);
    let newest_other = others.iter().map(|set| revision(set)).max().unwrap_or(0);
    let mine = match revision(current) {
        found if found > newest_other => found,
        _ => newest_other + 1,
    };
    let note = |mine: u64| json!({"metadata": {"annotations": {REVISION: mine.to_string()}}});
    if revision(current) != mine {
        store.patch(REPLICASETS, namespace, object::name(current), &note(mine))?;
    }
    if revision(deployment) != mine {
        store.patch(DEPLOYMENTS, namespace, object::name(deployment), &note(mine))?;
    }
    Ok(())
}

/// A number or a percentage of the replicas.
fn share(value: &Value, replicas: u64, up: bool) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        Value::String(text) => {
            let percent: u64 = text.trim_end_matches('%').parse().unwrap_or(25);
            if up { (replicas * percent).div_ceil(100) } else { replicas * percent / 100 }
        }
        _ => share(&json!("25%"), replicas, up),
    }
}

/// Scales the sets one step towards the goal, never below what must be available and never above what may exist.
fn roll(store: &Store, deployment: &Value, current: &Value, others: &[Arc<Value>]) -> ApiResult<()> {
    let replicas = wanted(deployment);
    let old_total: u64 = others.iter().map(|set| wanted(set)).sum();
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        for set in others.iter().filter(|set| wanted(set) > 0) {
            scale(store, deployment, set, 0)?;
        }
        let old_pods: u64 = others.iter().map(|set| pods_left(store, set)).sum();
        return if old_total == 0 && old_pods == 0 { scale(store, deployment, current, replicas) } else { Ok(()) };
    }
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], replicas, true);
    let mut unavailable = share(&rolling["maxUnavailable"], replicas, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let new = wanted(current);
    let room = (replicas + surge).saturating_sub(old_total + new);
    let goal = if new > replicas { replicas } else { replicas.min(new + room) };
    scale(store, deployment, current, goal)?;
    let must = replicas.saturating_sub(unavailable);
    let available = |set: &Value| number(set, "/status/availableReplicas").min(wanted(set));
    // Pods that do not work anyway go first, as far as that lets the new ones in.
    let new_missing = goal.saturating_sub(available(current));
    let mut may_go = (old_total + goal).saturating_sub(must + new_missing);
    let mut spare = (others.iter().map(|set| available(set)).sum::<u64>() + available(current)).saturating_sub(must);
    for set in others {
        let broken = (wanted(set) - available(set)).min(may_go);
        may_go -= broken;
        let healthy = available(set).min(spare).min(may_go);
        spare -= healthy;
        may_go -= healthy;
        scale(store, deployment, set, wanted(set) - broken - healthy)?;
    }
    Ok(())
}

/// Pods that still run, also those that are ending.
fn pods_left(store: &Store, set: &Value) -> u64 {
    let pods = store.owned_of(object::uid(set), "pods");
    let ended = |pod: &Value| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    pods.iter().filter(|pod| is_controlled_by(pod, set) && !ended(pod)).count() as u64
}

fn scale(store: &Store, deployment: &Value, set: &Value, replicas: u64) -> ApiResult<()> {
    let before = wanted(set);
    if before == replicas {
        return Ok(());
    }
    store.patch(REPLICASETS, object::namespace(set), object::name(set), &json!({"spec": {"replicas": replicas}}))?;
    let way = if replicas > before { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {} from {before} to {replicas}", object::name(set));
    events::record(store, COMPONENT, deployment, ("Normal", "ScalingReplicaSet"), &message);
    Ok(())
}

fn forget_old(store: &Store, deployment: &Value, others: &[Arc<Value>]) -> ApiResult<()> {
    let keep = usize::try_from(number(deployment, "/spec/revisionHistoryLimit")).unwrap_or(usize::MAX);
    let mut idle: Vec<_> =
        others.iter().filter(|set| wanted(set) == 0 && number(set, "/status/replicas") == 0).collect();
    idle.sort_by_key(|set| revision(set));
    for set in idle.iter().take(idle.len().saturating_sub(keep)) {
        store.delete(REPLICASETS, object::namespace(set), object::name(set), &DeleteOptions::default())?;
    }
    Ok(())
}

fn report(store: &Store, deployment: &Value, current: Option<&Value>, others: &[Arc<Value>]) -> ApiResult<()> {
    let old = store.get(DEPLOYMENTS, object::namespace(deployment), object::name(deployment))?;
    let replicas = wanted(&old);
    let sum = |pointer: &str| {
        others.iter().map(|set| number(set, pointer)).sum::<u64>() + current.map_or(0, |it| number(it, pointer))
    };
    let (total, ready, available) =
        (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = current.map_or(0, |it| number(it, "/status/replicas"));
    let mut new = (*old).clone();
    let generation = deployment["metadata"]["generation"].clone();
    let status = child(&mut new, "status");
    for (field, value) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", replicas.saturating_sub(available)),
    ] {
        status.insert(field.into(), value.into());
    }
    status.insert("observedGeneration".into(), generation);
    let unavailable = share(&old["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], replicas, false);
    if available >= replicas.saturating_sub(unavailable) {
        set_condition(
            &mut new,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        set_condition(
            &mut new,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        );
    }
    let set = current.map(object::name).unwrap_or_default();
    if updated == replicas && available >= replicas && total == replicas {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        set_condition(&mut new, "Progressing", "True", "NewReplicaSetAvailable", &message);
    } else {
        let message = format!("ReplicaSet \"{set}\" is progressing.");
        set_condition(&mut new, "Progressing", "True", "ReplicaSetUpdated", &message);
    }
    write_status(store, DEPLOYMENTS, &old, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_templates_hash_does_not_depend_on_the_order_of_its_fields() {
        assert_eq!(hash(&json!({"a": 1, "b": [2]}), 0), hash(&json!({"b": [2], "a": 1}), 0));
        assert_ne!(hash(&json!({"a": 1}), 0), hash(&json!({"a": 2}), 0));
        assert_ne!(hash(&json!({"a": 1}), 0), hash(&json!({"a": 1}), 1));
    }

    #[test]
    fn a_rollout_keeps_what_must_be_available_and_ends_at_the_goal() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("a store");
        let template = |image: &str| json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        let spec = json!({
            "replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template("1"),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        });
        let made = store
            .create(DEPLOYMENTS, json!({"metadata": {"name": "a", "namespace": "default"}, "spec": spec}))
            .expect("created");
        let old = make_set(&store, &made, &[]).expect("created");
        store.patch(REPLICASETS, "default", object::name(&old), &json!({"spec": {"replicas": 3}})).expect("scaled");
        all_available(&store, object::name(&old));
        let changed =
            store.patch(DEPLOYMENTS, "default", "a", &json!({"spec": {"template": template("2")}})).expect("patched");
        let new = make_set(&store, &changed, &owned(&store, &changed)).expect("created");
        for _ in 0..6 {
            let current = store.get(REPLICASETS, "default", object::name(&new)).expect("there");
            let others = owned_but(&store, &changed, &current);
            roll(&store, &changed, &current, &others).expect("rolled");
            let sets = owned(&store, &changed);
            let (total, available) = (
                sets.iter().map(|it| wanted(it)).sum::<u64>(),
                sets.iter().map(|it| number(it, "/status/availableReplicas").min(wanted(it))).sum::<u64>(),
            );
            assert!(total <= 4 && available >= 3, "{total} wanted, {available} available");
            all_available(&store, object::name(&new));
            all_available(&store, object::name(&old));
        }
        assert_eq!(wanted(&store.get(REPLICASETS, "default", object::name(&new)).expect("there")), 3);
        assert_eq!(wanted(&store.get(REPLICASETS, "default", object::name(&old)).expect("there")), 0);
    }

    fn all_available(store: &Store, set: &str) {
        let found = store.get(REPLICASETS, "default", set).expect("there");
        let status = json!({"status": {"availableReplicas": wanted(&found), "replicas": wanted(&found)}});
        store.patch_status(REPLICASETS, "default", set, &status).expect("reported");
    }
}
