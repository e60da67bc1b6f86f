//! Deleting objects: at once, after a grace period, or when the last finalizer is gone.

use std::sync::Arc;

use jiff::ToSpan;
use serde_json::{Value, json};

use super::*;

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteOptions {
    /// Seconds a pod may take to end; 0 removes it at once. `None`: what the pod says, else 30.
    pub grace_seconds: Option<u64>,
    /// Delete only an object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub version: Option<String>,
    /// Leave what the object owns behind, without an owner.
    pub orphan: bool,
}

impl DeleteOptions {
    /// Removes the object now: what a node does when a pod's processes have ended.
    pub fn now() -> Self {
        Self { grace_seconds: Some(0), ..Self::default() }
    }
}

/// No pod is given more than a year.
const MAX_GRACE: u64 = 365 * 86_400;

/// What became of a deletion.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// The object waits for its grace period, its finalizers, or (a namespace) its contents.
    Pending(Arc<Value>),
}

impl Store {
    /// Deletes an object or begins to.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a precondition does not hold.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str, options: &DeleteOptions) -> ApiResult<Deleted> {
        self.change(|state| {
            let old =
                state.get(resource, namespace, name).cloned().ok_or_else(|| ApiError::not_found(resource, name))?;
            let known = state.resource(resource)?;
            check_preconditions(resource, &old, options)?;
            let mut object = (*old).clone();
            if options.orphan {
                state.orphan(&old)?;
            }
            let grace = grace(resource, &old, options);
            let meta = metadata(&mut object);
            let due = jiff::Timestamp::now() + grace.cast_signed().seconds();
            let before = meta.get("deletionGracePeriodSeconds").and_then(Value::as_u64);
            if before.is_none_or(|before| grace < before) {
                meta.insert("deletionTimestamp".into(), object::stamp(due).into());
                meta.insert("deletionGracePeriodSeconds".into(), grace.into());
            }
            if resource == "namespaces" {
                object["status"]["phase"] = json!("Terminating");
            }
            if is_released(&known, &object) {
                state.delete_custom(resource, &object)?;
                return Ok(Deleted::Gone(state.commit(Change::Deleted, resource, object)?));
            }
            if object == *old {
                return Ok(Deleted::Pending(old));
            }
            Ok(Deleted::Pending(state.commit(Change::Modified, resource, object)?))
        })
    }

    /// Removes a namespace that has been emptied.
    pub(crate) fn finish_namespace(&self, name: &str) -> ApiResult<()> {
        self.change(|state| {
            let old =
                state.get("namespaces", "", name).cloned().ok_or_else(|| ApiError::not_found("namespaces", name))?;
            state.commit(Change::Deleted, "namespaces", (*old).clone()).map(|_| ())
        })
    }
}

impl State {
    /// Deletes the objects of a custom resource whose definition goes.
    fn delete_custom(&mut self, resource: &str, definition: &Value) -> ApiResult<()> {
        if resource != DEFINITIONS {
            return Ok(());
        }
        let key = object::name(definition);
        let objects: Vec<Arc<Value>> = self.objects.get(key).into_iter().flat_map(|it| it.values().cloned()).collect();
        for object in objects {
            self.commit(Change::Deleted, key, (*object).clone())?;
        }
        Ok(())
    }

    /// Takes the owner away from everything it owns.
    fn orphan(&mut self, owner: &Value) -> ApiResult<()> {
        let uid = object::uid(owner);
        let owned: Vec<(String, Arc<Value>)> = self
            .objects
            .iter()
            .flat_map(|(resource, objects)| objects.values().map(move |object| (resource, object)))
            .filter(|(_, object)| array(object, "/metadata/ownerReferences").iter().any(|it| it["uid"] == uid))
            .map(|(resource, object)| (resource.clone(), object.clone()))
            .collect();
        for (resource, object) in owned {
            let mut object = (*object).clone();
            if let Some(owners) = metadata(&mut object).get_mut("ownerReferences").and_then(Value::as_array_mut) {
                owners.retain(|it| it["uid"] != uid);
            }
            self.commit(Change::Modified, &resource, object)?;
        }
        Ok(())
    }
}

/// Whether nothing holds back an object whose deletion has begun.
pub(super) fn is_released(resource: &Resource, object: &Value) -> bool {
    array(object, "/metadata/finalizers").is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && resource.key() != "namespaces"
}

fn grace(resource: &str, object: &Value, options: &DeleteOptions) -> u64 {
    let ended = matches!(object::text(object, "/status/phase"), "Succeeded" | "Failed");
    if resource != "pods" || ended || object::text(object, "/spec/nodeName").is_empty() {
        return 0;
    }
    let wanted = options
        .grace_seconds
        .or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64())
        .unwrap_or(30)
        .min(MAX_GRACE);
    // A second deletion can shorten the wait, never lengthen it.
    object["metadata"]["deletionGracePeriodSeconds"].as_u64().map_or(wanted, |before| before.min(wanted))
}

fn check_preconditions(resource: &str, object: &Value, options: &DeleteOptions) -> ApiResult<()> {
    let name = object::name(object);
    for (what, wanted, found) in [
        ("UID", &options.uid, object::uid(object)),
        ("ResourceVersion", &options.version, object::text(object, "/metadata/resourceVersion")),
    ] {
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(ApiError::conflict(resource, name, &why));
        }
    }
    Ok(())
}
