//! The custom resources of the native kinds that are in force.
//!
//! The schema keeps what it is given: both spellings of fields are valid, and the webhook's validator, which is the
//! CLI's, says more about a mistake than a schema can.

use api::names::{GROUP, VERSION};
use serde_json::{Value, json};

pub(super) fn render() -> Vec<Value> {
    vec![
        crd(
            &Names { kind: "RouteRule", plural: "routerules", short: "rr" },
            &json!([
                {"name": "Destination", "type": "string", "jsonPath": ".spec.destination.name"},
                {"name": "Precedence", "type": "integer", "jsonPath": ".spec.precedence"},
                {"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ]),
        ),
        crd(
            &Names { kind: "DestinationPolicy", plural: "destinationpolicies", short: "dp" },
            &json!([
                {"name": "Destination", "type": "string", "jsonPath": ".spec.destination.name"},
                {"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ]),
        ),
        crd(&Names { kind: "ServiceRole", plural: "serviceroles", short: "sr" }, &accepted(&json!([]))),
        crd(
            &Names { kind: "ServiceRoleBinding", plural: "servicerolebindings", short: "srb" },
            &accepted(&json!([{"name": "Role", "type": "string", "jsonPath": ".spec.roleRef.name"}])),
        ),
        crd(
            &Names { kind: "RbacConfig", plural: "rbacconfigs", short: "rbc" },
            &accepted(&json!([{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}])),
        ),
        crd(
            &Names { kind: "AuthenticationPolicy", plural: "authenticationpolicies", short: "ap" },
            &accepted(&json!([{"name": "MTLS", "type": "string", "jsonPath": ".spec.peers[0].mtls.mode"}])),
        ),
        crd(
            &Names { kind: "Rule", plural: "rules", short: "" },
            &accepted(&json!([{"name": "Match", "type": "string", "jsonPath": ".spec.match"}])),
        ),
        crd(&Names { kind: "Rbac", plural: "rbacs", short: "" }, &accepted(&json!([]))),
        crd(&Names { kind: "Authorization", plural: "authorizations", short: "" }, &accepted(&json!([]))),
        crd(
            &Names { kind: "Denier", plural: "deniers", short: "" },
            &accepted(&json!([{"name": "Message", "type": "string", "jsonPath": ".spec.status.message"}])),
        ),
        crd(&Names { kind: "CheckNothing", plural: "checknothings", short: "" }, &accepted(&json!([]))),
    ]
}

/// These columns, then those that every kind has.
fn accepted(own: &Value) -> Value {
    let common = json!([
        {"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    own.as_array().into_iter().chain(common.as_array()).flatten().cloned().collect()
}

struct Names {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
}

fn crd(names: &Names, columns: &Value) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{GROUP}", names.plural),
            "labels": {"app.kubernetes.io/part-of": "mesh"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.kind,
                "listKind": format!("{}List", names.kind),
                "plural": names.plural,
                "singular": names.kind.to_lowercase(),
                "shortNames": if names.short.is_empty() { vec![] } else { vec![names.short] },
                "categories": ["mesh"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {"spec": open, "status": open},
                }},
            }],
        },
    })
}
