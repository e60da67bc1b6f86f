//! Changes as JSON merge patches (RFC 7396): what one person has changed, put into what another has made of an object.

use serde_json::{Map, Value};

/// What turns `from` into `to`.
pub(super) fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for (key, value) in to {
        match from.get(key) {
            Some(before) if before == value => {}
            Some(before) => drop(patch.insert(key.clone(), difference(before, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Applies a patch.
pub(super) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.shift_remove(key);
        } else {
            apply(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_of_two_people_meet_in_one_object() {
        let base = json!({"spec": {"a": 1, "b": {"c": [1, 2]}, "gone": true}, "metadata": {"name": "x"}});
        let mine = json!({"spec": {"a": 2, "b": {"c": [1, 2]}, "new": {"d": 1}}, "metadata": {"name": "x"}});
        let theirs = json!({"spec": {"a": 1, "b": {"c": [3]}, "gone": true}, "metadata": {"name": "x", "labels": {}}});
        let mut merged = theirs;
        apply(&mut merged, &difference(&base, &mine));
        let expected =
            json!({"spec": {"a": 2, "b": {"c": [3]}, "new": {"d": 1}}, "metadata": {"name": "x", "labels": {}}});
        assert_eq!(merged, expected);
        let mut back = base.clone();
        apply(&mut back, &difference(&base, &mine));
        assert_eq!(back, mine);
        assert_eq!(difference(&base, &base), json!({}));
    }
}
