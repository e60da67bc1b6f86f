//! Creating and changing objects.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::*;
use crate::api::defaults;
use crate::api::resources::Resource;

impl Store {
    /// Creates an object. Its `apiVersion` and `kind` may be missing; its namespace must exist.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `NotFound` (the namespace), `Forbidden` (the namespace is being deleted).
    pub fn create(&self, resource: &str, object: Value) -> ApiResult<Arc<Value>> {
        self.change(|state| {
            let known = state.resource(resource)?;
            let object = state.prepare_new(&known, object)?;
            let object = state.commit(Change::Added, resource, object)?;
            if resource == "events" {
                state.drop_old_events();
            }
            Ok(object)
        })
    }

    /// What [`Store::create`] would make of an object, without making it.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_dry(&self, resource: &str, object: Value) -> ApiResult<Value> {
        let state = self.lock();
        let known = state.resource(resource)?;
        state.prepare_new(&known, object)
    }

    /// Replaces an object, except for what belongs to the system, and for its `status` where that is written apart.
    /// With a `metadata.resourceVersion` it succeeds only if the object is still in that version.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`.
    pub fn update(&self, resource: &str, object: Value) -> ApiResult<Arc<Value>> {
        self.replace(resource, object, Part::Main)
    }

    /// Replaces only an object's `status`.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`.
    pub fn update_status(&self, resource: &str, object: Value) -> ApiResult<Arc<Value>> {
        self.replace(resource, object, Part::Status)
    }

    /// Merges a JSON merge patch (as `{"status": {…}}`) into an object's `status`.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`; `Conflict` only if the patch carries a `metadata.resourceVersion`.
    pub fn patch_status(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> ApiResult<Arc<Value>> {
        self.modify(resource, namespace, name, Part::Status, |object| {
            json_patch::merge(object, patch);
            Ok(())
        })
    }

    /// Merges a JSON merge patch into an object.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`; `Conflict` only if the patch carries a `metadata.resourceVersion`.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> ApiResult<Arc<Value>> {
        self.modify(resource, namespace, name, Part::Main, |object| {
            json_patch::merge(object, patch);
            Ok(())
        })
    }

    /// Reads an object, changes a copy, and writes it, all in one step.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, and what `edit` refuses.
    #[expect(clippy::too_many_arguments, reason = "an object, a part of it, and what to do with it")]
    pub fn modify(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        part: Part,
        edit: impl FnOnce(&mut Value) -> ApiResult<()>,
    ) -> ApiResult<Arc<Value>> {
        self.change(|state| {
            let known = state.resource(resource)?;
            let old =
                state.get(resource, namespace, name).cloned().ok_or_else(|| ApiError::not_found(resource, name))?;
            let mut new = (*old).clone();
            edit(&mut new)?;
            state.write(&known, &old, new, part)
        })
    }

    /// What [`Store::update`] or [`Store::update_status`] would make of an object, without making it.
    ///
    /// # Errors
    /// As those.
    pub fn update_dry(&self, resource: &str, object: Value, part: Part) -> ApiResult<Value> {
        let state = self.lock();
        let known = state.resource(resource)?;
        let (namespace, name) = (object::namespace(&object), object::name(&object));
        let old = state.get(resource, namespace, name).ok_or_else(|| ApiError::not_found(resource, name))?;
        merged(&known, old, object, part)
    }

    fn replace(&self, resource: &str, object: Value, part: Part) -> ApiResult<Arc<Value>> {
        self.change(|state| {
            let known = state.resource(resource)?;
            let (namespace, name) = (object::namespace(&object), object::name(&object));
            let old =
                state.get(resource, namespace, name).cloned().ok_or_else(|| ApiError::not_found(resource, name))?;
            state.write(&known, &old, object, part)
        })
    }
}

/// Which part of an object a write concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where that is written apart.
    Main,
    /// The status alone.
    Status,
}

impl State {
    fn prepare_new(&self, resource: &Resource, mut object: Value) -> ApiResult<Value> {
        if !object.is_object() {
            return Err(ApiError::bad_request("the object is not a JSON object"));
        }
        identify(resource, &mut object);
        name_it(resource, &mut object)?;
        defaults::fill_in(&resource.key(), &mut object);
        let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        self.check_namespace(resource, &namespace, &name)?;
        let key = resource.key();
        if self.get(&key, &namespace, &name).is_some() {
            return Err(ApiError::already_exists(&key, &name));
        }
        let meta = metadata(&mut object);
        for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            meta.remove(field);
        }
        meta.insert("uid".into(), object::new_uid().into());
        meta.insert("creationTimestamp".into(), object::now().into());
        meta.insert("generation".into(), 1.into());
        check_metadata(&key, meta)?;
        self.give_address(&key, &mut object)?;
        if resource.has_status()
            && resource.custom
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        Ok(object)
    }

    fn check_namespace(&self, resource: &Resource, namespace: &str, name: &str) -> ApiResult<()> {
        if !resource.namespaced {
            return Ok(());
        }
        let Some(found) = self.get("namespaces", "", namespace) else {
            return Err(ApiError::not_found("namespaces", namespace));
        };
        if object::is_deleting(found) {
            let message = format!(
                "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                resource.key()
            );
            return Err(ApiError::new(Reason::Forbidden, message));
        }
        Ok(())
    }

    fn write(&mut self, resource: &Resource, old: &Arc<Value>, new: Value, part: Part) -> ApiResult<Arc<Value>> {
        let mut new = merged(resource, old, new, part)?;
        if part == Part::Main {
            self.keep_address(&resource.key(), old, &mut new)?;
        }
        if new == **old {
            return Ok(old.clone());
        }
        if object::is_deleting(&new) && deletion::is_released(resource, &new) {
            return self.commit(Change::Deleted, &resource.key(), new);
        }
        self.commit(Change::Modified, &resource.key(), new)
    }

    fn drop_old_events(&mut self) {
        let Some(events) = self.objects.get("events").filter(|events| events.len() > EVENTS) else { return };
        let oldest = events.values().min_by_key(|event| object::version(event)).cloned();
        if let Some(oldest) = oldest
            && let Err(error) = self.commit(Change::Deleted, "events", (*oldest).clone())
        {
            tracing::warn!(%error, "an old event could not be deleted");
        }
    }
}

/// The object that a write makes of the old one and what the caller sent.
fn merged(resource: &Resource, old: &Value, mut new: Value, part: Part) -> ApiResult<Value> {
    let key = resource.key();
    let name = object::name(old);
    let sent = &new["metadata"]["resourceVersion"];
    if let Some(sent) = sent.as_str()
        && !sent.is_empty()
        && sent != object::text(old, "/metadata/resourceVersion")
    {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(&key, name, why));
    }
    if let Some(uid) = new["metadata"]["uid"].as_str()
        && !uid.is_empty()
        && uid != object::uid(old)
    {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(old));
        return Err(ApiError::conflict(&key, name, &why));
    }
    if part == Part::Status {
        let status = new.get("status").cloned();
        let mut object = old.clone();
        if let Some(map) = object.as_object_mut() {
            match status {
                Some(status) if !status.is_null() => map.insert("status".into(), status),
                _ => map.remove("status"),
            };
        }
        return Ok(object);
    }
    identify(resource, &mut new);
    defaults::fill_in(&key, &mut new);
    let old_meta = old["metadata"].as_object();
    let meta = metadata(&mut new);
    if !meta.contains_key("managedFields")
        && let Some(kept) = old_meta.and_then(|it| it.get("managedFields"))
    {
        meta.insert("managedFields".into(), kept.clone());
    }
    meta.remove("selfLink");
    for field in KEPT {
        match old_meta.and_then(|it| it.get(*field)) {
            Some(value) => meta.insert((*field).to_owned(), value.clone()),
            None => meta.remove(*field),
        };
    }
    check_metadata(&key, meta)?;
    if resource.has_status()
        && let Some(map) = new.as_object_mut()
    {
        match old.get("status") {
            Some(status) => map.insert("status".into(), status.clone()),
            None => map.remove("status"),
        };
    }
    if wanted(old) != wanted(&new) {
        let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        metadata(&mut new).insert("generation".into(), generation.into());
    }
    Ok(new)
}

/// Fields of the metadata that callers cannot change.
const KEPT: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

/// What the user wants: everything but metadata and status.
fn wanted(object: &Value) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = object.as_object().into_iter().flatten().collect();
    fields.retain(|(field, _)| !matches!(field.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
    fields.sort_by_key(|(field, _)| *field);
    fields
}

fn identify(resource: &Resource, object: &mut Value) {
    let api_version = resource.api_version(&resource.preferred().name);
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), resource.kind.clone().into());
    }
    if !resource.namespaced {
        metadata(object).remove("namespace");
    }
}

fn name_it(resource: &Resource, object: &mut Value) -> ApiResult<()> {
    if object::name(object).is_empty() {
        let prefix = object::text(object, "/metadata/generateName").to_owned();
        if prefix.is_empty() {
            return Err(ApiError::invalid(
                &resource.kind,
                "",
                "metadata.name",
                "Required value: name or generateName is required",
            ));
        }
        let prefix: String = prefix.chars().take(58).collect();
        metadata(object).insert("name".into(), format!("{prefix}{}", object::suffix(5)).into());
    }
    let name = object::name(object);
    let valid = if resource.group == "rbac.authorization.k8s.io" {
        !name.contains(['/', '%']) && name != "." && name != ".."
    } else if matches!(resource.key().as_str(), "namespaces" | "services") {
        is_label(name)
    } else {
        name.len() <= 253 && name.split('.').all(is_label_part)
    };
    if valid {
        return Ok(());
    }
    let why = format!(
        "Invalid value: \"{name}\": a lowercase RFC 1123 name must consist of lower case alphanumeric characters, '-' or '.', \
         and must start and end with an alphanumeric character"
    );
    Err(ApiError::invalid(&resource.kind, name, "metadata.name", &why))
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_label_part(name)
}

fn is_label_part(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| edge(Some(b)) || *b == b'-')
}

/// Labels and annotations must be maps of texts, or readers would stumble over them later.
fn check_metadata(resource: &str, meta: &mut Map<String, Value>) -> ApiResult<()> {
    for field in ["labels", "annotations"] {
        match meta.get(field) {
            None => {}
            Some(Value::Null) => {
                meta.remove(field);
            }
            Some(Value::Object(map)) if map.values().all(Value::is_string) => {}
            Some(_) => {
                let name = meta.get("name").and_then(Value::as_str).unwrap_or_default();
                let why = "Invalid value: must be a map of strings";
                return Err(ApiError::invalid(resource, name, &format!("metadata.{field}"), why));
            }
        }
    }
    for field in ["finalizers", "ownerReferences"] {
        if meta.get(field).is_some_and(|list| list.is_null() || *list == json!([])) {
            meta.remove(field);
        }
    }
    Ok(())
}
