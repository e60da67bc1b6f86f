//! Resources as text: canonical JSON out, Envoy-shaped YAML or JSON in.
//!
//! Descriptors are read when the first resource is shown or read and never on the normal path of a proxy, so that a
//! sidecar does not pay for them.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::generate::{Resource, resource_of};
use crate::proto::Kind;

/// Why a resource cannot be shown or read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The text is no YAML.
    #[error("the text cannot be read as YAML or JSON: {0}")]
    Unreadable(String),
    /// A key that is not in force here.
    #[error("{at}: `{key}` is not in force; in force are {known}")]
    UnknownKey {
        /// Where, as `static_resources`.
        at: &'static str,
        /// The key.
        key: String,
        /// The keys that are.
        known: &'static str,
    },
    /// Something else was expected.
    #[error("{at} is not {expected}")]
    Shape {
        /// Where, as `static_resources.listeners[0]`.
        at: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A resource is not what its type says.
    #[error("{at}: {reason}")]
    NotOfType {
        /// Where, as `static_resources.listeners[0]`.
        at: String,
        /// The reader's words.
        reason: String,
    },
    /// The bytes are no message of the type.
    #[error("the bytes are not a {0}")]
    Malformed(&'static str, #[source] prost::DecodeError),
    /// The message holds an extension whose type is not known.
    #[error("the {0} cannot be shown: {1}")]
    Unshowable(&'static str, String),
}

/// Shows an encoded resource as proto3 JSON with camelCase names and sorted keys, extensions unpacked.
///
/// # Errors
/// When the bytes are no message of the kind, or hold an extension of an unknown type.
pub fn to_json(kind: Kind, body: &[u8]) -> Result<Value, TextError> {
    let message =
        DynamicMessage::decode(descriptor(kind), body).map_err(|error| TextError::Malformed(kind.service(), error))?;
    let options = SerializeOptions::new().skip_default_fields(true).stringify_64_bit_integers(true);
    let mut value = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| TextError::Unshowable(kind.service(), error.to_string()))?;
    sort(&mut value);
    Ok(value)
}

/// Reads one resource from proto3 JSON, with names in camelCase or snake_case.
///
/// # Errors
/// When it has an unknown field, a value of a wrong type or no name. `at` says where in the message.
pub fn from_json(kind: Kind, value: &Value, at: &str) -> Result<Resource, TextError> {
    let not_of_type = |reason: String| TextError::NotOfType { at: at.to_owned(), reason };
    let message = DynamicMessage::deserialize_with_options(descriptor(kind), value, &DeserializeOptions::new())
        .map_err(|error| not_of_type(error.to_string()))?;
    let field = if kind == Kind::Endpoints { "cluster_name" } else { "name" };
    let name = message.get_field_by_name(field).and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    if name.is_empty() {
        return Err(not_of_type(format!("`{field}` is missing")));
    }
    let body = message.encode_to_vec();
    // The encoding's maps are in any order; the sorted text is not.
    let canonical = to_json(kind, &body)?.to_string();
    Ok(resource_of(kind, name, body, canonical.as_bytes()))
}

/// Reads a configuration in the shape of Envoy's bootstrap: `static_resources` with `listeners` and `clusters`, and
/// beside it `route_configs` and `endpoints` for what a listener or cluster asks for by name.
///
/// # Errors
/// When the text is no YAML, has a key that is not in force, or a resource that cannot be read.
///
/// # Examples
/// ```
/// let resources = engine::text::read_static("
/// static_resources:
///   clusters:
///   - name: up
///     type: STATIC
///     connect_timeout: 5s
///     load_assignment: { cluster_name: up, endpoints: [] }
/// ").unwrap();
/// assert_eq!(resources[0].name, "up");
/// ```
pub fn read_static(text: &str) -> Result<Vec<Resource>, TextError> {
    let root = read(text)?;
    let mut resources = Vec::new();
    for (key, value) in object("the document", &root)? {
        match key.as_str() {
            "static_resources" | "staticResources" => {
                for (key, value) in object("static_resources", value)? {
                    match key.as_str() {
                        "clusters" => read_all(Kind::Cluster, "static_resources.clusters", value, &mut resources)?,
                        "listeners" => read_all(Kind::Listener, "static_resources.listeners", value, &mut resources)?,
                        _ => {
                            let known = "`listeners` and `clusters`";
                            return Err(TextError::UnknownKey { at: "static_resources", key: key.clone(), known });
                        }
                    }
                }
            }
            "route_configs" | "routeConfigs" => read_all(Kind::Route, "route_configs", value, &mut resources)?,
            "endpoints" => read_all(Kind::Endpoints, "endpoints", value, &mut resources)?,
            _ => {
                let known = "`static_resources`, `route_configs` and `endpoints`";
                return Err(TextError::UnknownKey { at: "the document", key: key.clone(), known });
            }
        }
    }
    // Make before break: clusters, endpoints, listeners, routes.
    resources.sort_by_key(|resource: &Resource| match resource.kind {
        Kind::Cluster => 0,
        Kind::Endpoints => 1,
        Kind::Listener => 2,
        Kind::Route => 3,
    });
    Ok(resources)
}

/// JSON has a reader of its own: it is faster, and large configurations that programs write come as JSON.
fn read(text: &str) -> Result<Value, TextError> {
    if text.trim_start().starts_with('{')
        && let Ok(root) = serde_json::from_str(text)
    {
        return Ok(root);
    }
    serde_yaml::from_str(text).map_err(|error| TextError::Unreadable(error.to_string()))
}

fn read_all(kind: Kind, at: &str, list: &Value, into: &mut Vec<Resource>) -> Result<(), TextError> {
    let list = match list {
        Value::Array(list) => list.as_slice(),
        Value::Null => &[],
        _ => return Err(TextError::Shape { at: at.to_owned(), expected: "a list" }),
    };
    for (nth, value) in list.iter().enumerate() {
        into.push(from_json(kind, value, &format!("{at}[{nth}]"))?);
    }
    Ok(())
}

fn object<'v>(at: &str, value: &'v Value) -> Result<impl Iterator<Item = (&'v String, &'v Value)>, TextError> {
    let map = value.as_object().ok_or_else(|| TextError::Shape { at: at.to_owned(), expected: "a mapping" })?;
    Ok(map.iter())
}

fn descriptor(kind: Kind) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        DescriptorPool::decode(include_bytes!("text/envoy.bin").as_slice()).expect("the descriptors are checked in")
    });
    let name = kind.type_url().trim_start_matches(crate::proto::extension::PREFIX);
    pool.get_message_by_name(name).expect("the descriptors hold every kind")
}

/// Sorts the keys of all objects, as maps have no order of their own.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
