//! The OpenAPI documents, as far as `kubectl apply` asks them: which objects can be patched, and with which parameters.
//!
//! They hold no schemas: objects of the mesh's own kinds are checked by its webhook, and others by the API itself.

use serde_json::{Map, Value, json};

use super::ApiResult;
use super::answer::{self, Answer};
use super::discovery::{Entry, Groups, unknown};
use super::resources::Resources;

/// Answers a request for a path below `/openapi/`.
///
/// # Errors
/// `NotFound` for documents that are not served.
pub(super) fn answer(resources: &Resources, path: &str) -> ApiResult<Answer> {
    let groups = Groups::of(resources);
    if path == "v3" {
        let paths: Map<String, Value> = groups
            .versions()
            .map(|(group, version, _)| root(group, version))
            .map(|root| (root.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{root}")})))
            .collect();
        return Ok(answer::json(200, &json!({"paths": paths})));
    }
    let asked = path.strip_prefix("v3/").ok_or_else(|| unknown(&format!("openapi/{path}")))?;
    let found = groups.versions().find(|(group, version, _)| root(group, version) == asked);
    let (group, version, entries) = found.ok_or_else(|| unknown(&format!("openapi/{path}")))?;
    let paths: Map<String, Value> = entries.iter().map(|entry| patchable(asked, group, version, entry)).collect();
    let info = json!({"title": "meshctl local", "version": env!("CARGO_PKG_VERSION")});
    Ok(answer::json(200, &json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}})))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn patchable(root: &str, group: &str, version: &str, entry: &Entry) -> (String, Value) {
    let at = if entry.namespaced { "/namespaces/{namespace}" } else { "" };
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
    let operation = json!({
        "operationId": format!("patch{}", entry.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": entry.kind},
    });
    (format!("/{root}{at}/{}/{{name}}", entry.plural), json!({"patch": operation}))
}
