//! Where configuration and discovery come from. Each source says what is there now and what changes; what that means
//! is the registry's business.

pub mod kubernetes;

use std::sync::Arc;

use api::model::Key;
use api::registry::Resource;
use serde_json::Value as Json;

/// What a source says. Objects are as the API server has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// These are all there are of a resource.
    All(Resource, Vec<Json>),
    /// One is new or different.
    Set(Resource, Json),
    /// One is gone.
    Gone(Resource, Json),
    /// A key set was fetched, or could not be.
    KeySet(String, Result<Arc<str>, String>),
}

/// Namespace and name of an object.
#[must_use]
pub fn key_of(object: &Json) -> Key {
    let text = |field: &str| {
        let value = object.get("metadata").and_then(|metadata| metadata.get(field));
        value.and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    Key { namespace: text("namespace"), name: text("name") }
}

/// Whether the API server may lack the resource, which then counts as there being none.
#[must_use]
pub fn is_optional(resource: Resource) -> bool {
    resource.group() == api::names::CLASSIC_GROUP
}
