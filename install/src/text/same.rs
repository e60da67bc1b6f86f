//! Whether a text says what it must.

use api::yaml::{Node, Value};
use serde_json::Value as Json;

/// Whether a tree and a JSON value mean the same; fields may be in another order, and nothing may be written as
/// nothing, as an empty list or as an empty mapping.
pub(super) fn is_same(node: &Node, json: &Json) -> bool {
    match (&node.value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Null, Json::Array(items)) => items.is_empty(),
        (Value::Null, Json::Object(fields)) => fields.is_empty(),
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Number(a), Json::Number(b)) => a == b,
        (Value::String(a), Json::String(b)) => a == b,
        (Value::List(nodes), Json::Array(items)) => {
            nodes.len() == items.len() && nodes.iter().zip(items).all(|(node, item)| is_same(node, item))
        }
        (Value::Map(entries), Json::Object(fields)) => {
            entries.len() == fields.len()
                && entries.iter().all(|entry| fields.get(&entry.key).is_some_and(|json| is_same(&entry.value, json)))
        }
        _ => false,
    }
}
