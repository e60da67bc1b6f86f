//! Apply patches: the caller sends all that it wants, and what it wanted before and wants no longer goes away.
//!
//! What each manager applied last is kept in `metadata.managedFields`, in Kubernetes' own notation. Unlike there, nobody
//! is told of conflicts: the last one to apply a field wins.

use serde_json::{Map, Value, json};

use super::object::{array, metadata, text};
use super::patch::{merge_key, strategic};

/// Applies what a manager wants to an object.
pub(super) fn apply(object: &mut Value, wanted: &Value, manager: &str) {
    let mut wanted = wanted.clone();
    metadata(&mut wanted).shift_remove("managedFields");
    let new = fields_of(&wanted);
    if let Some(old) =
        array(object, "/metadata/managedFields").iter().find(|it| is_by(it, manager)).map(|it| it["fieldsV1"].clone())
    {
        remove(object, &old, &new);
    }
    strategic(object, &wanted);
    note(object, manager, text(&wanted, "/apiVersion"), &new);
}

/// Notes on a new object what a manager has applied.
pub(super) fn note_all(object: &mut Value, manager: &str) {
    let (fields, version) = (fields_of(object), text(object, "/apiVersion").to_owned());
    note(object, manager, &version, &fields);
}

fn is_by(entry: &Value, manager: &str) -> bool {
    entry["manager"] == manager && entry["operation"] == "Apply"
}

fn note(object: &mut Value, manager: &str, api_version: &str, fields: &Value) {
    let entry = json!({"manager": manager, "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1", "fieldsV1": fields});
    let list = metadata(object).entry("managedFields").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        *list = json!([entry]);
        return;
    };
    match list.iter_mut().find(|it| is_by(it, manager)) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

fn fields_of(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        for field in ["apiVersion", "kind", "status"] {
            map.shift_remove(field);
        }
    }
    let meta = metadata(&mut object);
    meta.retain(|field, _| matches!(field.as_str(), "labels" | "annotations" | "finalizers" | "ownerReferences"));
    fields("", &object)
}

fn fields(name: &str, value: &Value) -> Value {
    let mut found = Map::new();
    match value {
        Value::Object(map) => {
            for (field, value) in map {
                found.insert(format!("f:{field}"), fields(field, value));
            }
        }
        Value::Array(list) => {
            if let Some(key) = merge_key(name, list, &[]) {
                for entry in list {
                    found.insert(format!("k:{}", json!({key: entry[key]})), fields("", entry));
                }
            }
        }
        _ => {}
    }
    Value::Object(found)
}

/// Takes out of `value` what is in `old` and not in `new`.
fn remove(value: &mut Value, old: &Value, new: &Value) {
    for (step, below) in old.as_object().into_iter().flatten() {
        let kept = new.get(step);
        if let (Some(field), Value::Object(map)) = (step.strip_prefix("f:"), &mut *value) {
            let Some(child) = map.get_mut(field) else { continue };
            remove(child, below, kept.unwrap_or(&Value::Null));
            let is_leaf = below.as_object().is_none_or(Map::is_empty);
            let is_empty = child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
            if kept.is_none() && (is_leaf || is_empty) {
                map.shift_remove(field);
            }
        } else if let (Some(Ok(key)), Value::Array(list)) =
            (step.strip_prefix("k:").map(serde_json::from_str::<Map<String, Value>>), &mut *value)
        {
            let Some(at) = list.iter().position(|entry| key.iter().all(|(field, wanted)| entry[field] == *wanted))
            else {
                continue;
            };
            match kept {
                Some(kept) => remove(&mut list[at], below, kept),
                None => {
                    list.remove(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_applied_goes_and_what_others_did_stays() {
        let first = json!({
            "apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "1", "y": "1"}},
            "spec": {"containers": [{"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}, {"name": "d"}]},
        });
        let mut object = first;
        note_all(&mut object, "cli");
        object["spec"]["replicas"] = json!(3);
        let second = json!({
            "apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "2"}},
            "spec": {"containers": [{"name": "c", "image": "2", "env": [{"name": "B", "value": "2"}]}]},
        });
        apply(&mut object, &second, "cli");
        assert_eq!(object["metadata"]["labels"], json!({"x": "2"}));
        assert_eq!(
            object["spec"],
            json!({"containers": [{"name": "c", "image": "2", "env": [{"name": "B", "value": "2"}]}], "replicas": 3})
        );
        let once = object.clone();
        apply(&mut object, &second, "cli");
        assert_eq!(object, once, "applying again changes nothing");
        apply(&mut object, &json!({"apiVersion": "v1", "metadata": {"labels": {"z": "1"}}}), "other");
        assert_eq!(object["metadata"]["labels"], json!({"x": "2", "z": "1"}));
    }
}
