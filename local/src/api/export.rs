//! What the user has made, as files that can be applied again: without what the system adds, owns or can make anew.

use std::path::Path;

use serde_json::{Map, Value};

use super::journal;
use super::object::{self, array, metadata, text};
use super::pods::TOKEN_DIR;
use super::store::OpenError;

/// Namespaces that belong to the system.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", ::api::names::SYSTEM_NAMESPACE];
/// Kinds that others need, in the order in which they are wanted; the rest comes after them.
const FIRST: [&str; 6] = [
    "namespaces",
    "customresourcedefinitions.apiextensions.k8s.io",
    "serviceaccounts",
    "configmaps",
    "secrets",
    "services",
];
/// Kinds that the system makes by itself.
const MADE: [&str; 5] =
    ["events", "nodes", "endpoints", "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"];
/// Objects that every namespace or mesh has.
const FURNITURE: [(&str, &str); 6] = [
    ("configmaps", "kube-root-ca.crt"),
    ("serviceaccounts", "default"),
    ("services", "kubernetes"),
    ("namespaces", "default"),
    ("namespaces", "kube-system"),
    ("namespaces", ::api::names::SYSTEM_NAMESPACE),
];

/// The objects of a mesh's state directory that its user has made; the mesh may run or not.
///
/// # Errors
/// When its journal cannot be read or is damaged.
pub fn read(directory: &Path) -> Result<Vec<Value>, OpenError> {
    let mut found = journal::read_only(&directory.join("journal"))?;
    found.retain(|(resource, object)| is_the_users(resource, object));
    let order = |resource: &str| FIRST.iter().position(|it| *it == resource).unwrap_or(FIRST.len());
    found.sort_by_key(|(resource, _)| order(resource));
    Ok(found.into_iter().map(|(resource, object)| clean(&resource, object)).collect())
}

fn is_the_users(resource: &str, found: &Value) -> bool {
    let of_the_mesh = object::label(found, "app.kubernetes.io/part-of") == Some("mesh");
    !MADE.contains(&resource)
        && !FURNITURE.contains(&(resource, object::name(found)))
        && !SYSTEM_NAMESPACES.contains(&object::namespace(found))
        && array(found, "/metadata/ownerReferences").is_empty()
        && !object::is_deleting(found)
        && (!of_the_mesh || !object::namespace(found).is_empty())
}

/// Leaves what its author wrote.
fn clean(resource: &str, mut found: Value) -> Value {
    if let Some(map) = found.as_object_mut() {
        map.shift_remove("status");
    }
    let meta = metadata(&mut found);
    meta.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "labels" | "annotations"));
    drop_entries(
        meta,
        "annotations",
        &[
            "deployment.kubernetes.io/revision",
            "kubectl.kubernetes.io/last-applied-configuration",
            "local.meshctl.io/host-ports",
        ],
    );
    if resource == "namespaces" {
        drop_entries(meta, "labels", &["kubernetes.io/metadata.name"]);
    }
    let assigned = text(&found, "/spec/clusterIP") != "None";
    if let Some(spec) = found.get_mut("spec").and_then(Value::as_object_mut) {
        match resource {
            "services" if assigned => ["clusterIP", "clusterIPs"].iter().for_each(|it| drop(spec.shift_remove(*it))),
            "pods" => without_token(spec),
            "namespaces" => drop(spec.shift_remove("finalizers")),
            _ => {}
        }
        if spec.is_empty() {
            found.as_object_mut().map(|map| map.shift_remove("spec"));
        }
    }
    found
}

fn drop_entries(meta: &mut Map<String, Value>, field: &str, names: &[&str]) {
    let Some(entries) = meta.get_mut(field).and_then(Value::as_object_mut) else { return };
    for name in names {
        entries.shift_remove(*name);
    }
    if entries.is_empty() {
        meta.shift_remove(field);
    }
}

/// Takes away what admission gave a pod: its token, and its node.
fn without_token(spec: &mut Map<String, Value>) {
    spec.shift_remove("nodeName");
    let of_token = |mount: &Value| text(mount, "/mountPath") == TOKEN_DIR;
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            retain(container.as_object_mut(), "volumeMounts", |mount| !of_token(mount));
        }
    }
    retain(Some(spec), "volumes", |volume| !text(volume, "/name").starts_with("kube-api-access-"));
}

fn retain(object: Option<&mut Map<String, Value>>, field: &str, keep: impl Fn(&Value) -> bool) {
    let Some(object) = object else { return };
    let Some(list) = object.get_mut(field).and_then(Value::as_array_mut) else { return };
    list.retain(keep);
    if list.is_empty() {
        object.shift_remove(field);
    }
}
