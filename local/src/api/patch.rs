//! The kinds of patches.

use serde_json::{Map, Value};

use super::{ApiError, ApiResult, Reason};

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// As merge, but lists of things with a key are merged by it.
    Strategic,
    /// The whole of what the caller wants; created if it is not there.
    Apply,
}

impl PatchKind {
    /// By the request's content type.
    ///
    /// # Errors
    /// `UnsupportedMediaType`.
    pub fn from_content_type(content_type: &str) -> ApiResult<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(ApiError::new(
                Reason::UnsupportedMediaType,
                format!(
                    "the body of a patch was of type \"{other}\"; use a JSON, merge, strategic merge or apply patch"
                ),
            )),
        }
    }
}

/// Applies a patch to an object.
///
/// # Errors
/// `Invalid` when a JSON patch does not fit the object; `BadRequest` when it is none.
pub(super) fn apply(kind: PatchKind, object: &mut Value, patch: &Value) -> ApiResult<()> {
    match kind {
        PatchKind::Merge => json_patch::merge(object, patch),
        PatchKind::Strategic | PatchKind::Apply => strategic(object, patch),
        PatchKind::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| ApiError::bad_request(format!("the body is not a JSON patch: {error}")))?;
            json_patch::patch(object, &patch).map_err(|error| {
                ApiError::new(Reason::Invalid, format!("the JSON patch does not fit the object: {error}"))
            })?;
        }
    }
    Ok(())
}

/// Merges like RFC 7386, and lists of objects that have a common key entry by entry.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch") == Some(&Value::String("replace".into())) {
        let mut whole = patch.clone();
        whole.remove("$patch");
        *target = Value::Object(whole);
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(old)), Value::Array(gone)) = (target.get_mut(list), value) {
                old.retain(|it| !gone.contains(it));
            }
            continue;
        }
        if field.starts_with("$setElementOrder/") || field == "$retainKeys" {
            continue;
        }
        match (target.get_mut(field), value) {
            (_, Value::Null) => {
                target.shift_remove(field);
            }
            (Some(Value::Array(old)), Value::Array(new)) => match merge_key(field, old, new) {
                Some(key) => merge_list(old, new, key),
                None => *old = without_directives(new),
            },
            (Some(old), new) => strategic(old, new),
            (None, Value::Array(new)) => {
                target.insert(field.clone(), Value::Array(without_directives(new)));
            }
            (None, new) => {
                let mut made = Value::Null;
                strategic(&mut made, new);
                target.insert(field.clone(), made);
            }
        }
    }
}

fn without_directives(list: &[Value]) -> Vec<Value> {
    list.iter().filter(|entry| entry.get("$patch").is_none()).cloned().collect()
}

/// The key that lists of this field are merged by; none means that the list is replaced.
pub(super) fn merge_key(field: &str, old: &[Value], new: &[Value]) -> Option<&'static str> {
    let candidates: &[&'static str] = match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "webhooks"
        | "secrets" => &["name"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "ports" => &["containerPort", "port"],
        "hostAliases" => &["ip"],
        "ownerReferences" => &["uid"],
        "conditions" => &["type"],
        _ => return None,
    };
    candidates.iter().copied().find(|key| old.iter().chain(new).all(|entry| entry.get(*key).is_some()))
}

fn merge_list(old: &mut Vec<Value>, new: &[Value], key: &str) {
    for entry in new {
        let same = |it: &Value| it[key] == entry[key] && (key == "name" || protocol(it) == protocol(entry));
        let found = old.iter().position(same);
        if entry.get("$patch") == Some(&Value::String("delete".into())) {
            if let Some(at) = found {
                old.remove(at);
            }
            continue;
        }
        match found.and_then(|at| old.get_mut(at)) {
            Some(existing) => strategic(existing, entry),
            None => old.push(entry.clone()),
        }
    }
}

/// Ports of one number may differ in their protocol.
fn protocol(entry: &Value) -> &str {
    entry.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_do_what_their_kind_says() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "x": 1, "args": [1, 2]}});
        for (kind, patch, pointer, expected) in [
            (
                PatchKind::Merge,
                json!({"spec": {"containers": [{"name": "a"}]}}),
                "/spec/containers",
                json!([{"name": "a"}]),
            ),
            (PatchKind::Merge, json!({"spec": {"x": null}}), "/spec/x", Value::Null),
            (
                PatchKind::Strategic,
                json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}),
                "/spec/containers",
                json!([{"name": "a", "image": "2"}, {"name": "b", "image": "1"}]),
            ),
            (
                PatchKind::Strategic,
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                "/spec/containers",
                json!([{"name": "b", "image": "1"}]),
            ),
            (PatchKind::Strategic, json!({"spec": {"args": [3]}}), "/spec/args", json!([3])),
            (PatchKind::Json, json!([{"op": "replace", "path": "/spec/x", "value": 2}]), "/spec/x", json!(2)),
        ] {
            let mut object = pod.clone();
            apply(kind, &mut object, &patch).expect("fits");
            assert_eq!(object.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{kind:?} {patch}");
        }
        let mut pod = pod;
        let misfit = json!([{"op": "remove", "path": "/nothing"}]);
        assert_eq!(apply(PatchKind::Json, &mut pod, &misfit).expect_err("does not fit").reason, Reason::Invalid);
    }
}
