//! The admission webhooks that Pilot answers: injection and validation.
//!
//! A namespace asks for injection by a label; ours decides where it is set, else the classic one does. A pod in a
//! namespace that says nothing can ask for itself.

use api::names::{CLASSIC_GROUP, CLASSIC_NAMESPACE_INJECTION, GROUP, INJECT, PILOT, SYSTEM_NAMESPACE, pilot_port};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cluster_metadata;
use crate::Values;

pub(super) fn render(values: &Values) -> Vec<Value> {
    vec![mutating(values), validating(values)]
}

fn mutating(values: &Values) -> Value {
    let is = |key: &str, values: &[&str]| json!({"key": key, "operator": "In", "values": values});
    let absent = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let not_refused = json!({"key": INJECT, "operator": "NotIn", "values": ["false", "disabled"]});
    let hook = |name: &str, namespace: Value, object: Value| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client(values, "/inject"),
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {"matchExpressions": namespace},
            "objectSelector": {"matchExpressions": object},
            "reinvocationPolicy": "Never",
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": cluster_metadata("mesh", values),
        "webhooks": [
            hook("namespace.inject.meshctl.io", json!([is(INJECT, &["enabled", "true"])]), json!([not_refused])),
            hook(
                "classic.inject.meshctl.io",
                json!([absent(INJECT), is(CLASSIC_NAMESPACE_INJECTION, &["enabled"])]),
                json!([not_refused]),
            ),
            hook(
                "pod.inject.meshctl.io",
                json!([absent(INJECT), absent(CLASSIC_NAMESPACE_INJECTION)]),
                json!([is(INJECT, &["enabled", "true"])]),
            ),
        ],
    })
}

fn validating(values: &Values) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": cluster_metadata("mesh", values),
        "webhooks": [{
            "name": "validate.meshctl.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client(values, "/validate"),
            "failurePolicy": "Fail",
            "rules": [{
                "apiGroups": [GROUP, CLASSIC_GROUP],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["*"],
                "scope": "*",
            }],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        }],
    })
}

fn client(values: &Values, path: &str) -> Value {
    json!({
        "caBundle": STANDARD.encode(&values.certificates.roots),
        "service": {"name": PILOT, "namespace": SYSTEM_NAMESPACE, "path": path, "port": pilot_port::WEBHOOKS},
    })
}
