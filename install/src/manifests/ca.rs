//! The CA: its identity, what it may read and write, its certificate, its pods and its service.

use api::names::{CA, CA_CERT_SECRET, SYSTEM_NAMESPACE, ca_port};
use serde_json::{Value, json};

use super::{cluster_metadata, labels, metadata, service_account, serving_certificate, unprivileged};
use crate::Values;

const CERTIFICATE_DIR: &str = "/etc/mesh/ca";

pub(super) fn render(values: &Values) -> Vec<Value> {
    vec![
        service_account(CA, values),
        cluster_role(values),
        binding("ClusterRole", values),
        role(values),
        binding("Role", values),
        serving_certificate(CA_CERT_SECRET, &values.certificates.ca, values),
        service(values),
        deployment(values),
    ]
}

/// Whose tokens they are, and whether a service account still exists, is all that it asks about the cluster.
fn cluster_role(values: &Values) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": cluster_metadata(CA, values),
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]},
        ],
    })
}

/// Its own keys and the join tokens are Secrets of the control plane's namespace.
fn role(values: &Values) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(CA, values),
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update", "delete"]}],
    })
}

/// Binds the role of that kind to it.
fn binding(kind: &str, values: &Values) -> Value {
    let metadata = if kind == "Role" { metadata(CA, values) } else { cluster_metadata(CA, values) };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": format!("{kind}Binding"),
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": CA},
        "subjects": [{"kind": "ServiceAccount", "name": CA, "namespace": SYSTEM_NAMESPACE}],
    })
}

fn service(values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(CA, values),
        "spec": {
            "selector": {"app": CA},
            "ports": [
                {"name": "grpc-csr", "port": ca_port::CSR},
                {"name": "https-debug", "port": ca_port::DEBUG},
            ],
        },
    })
}

fn deployment(values: &Values) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |period: u32| {
        json!({
            "httpGet": {"path": "/readyz", "port": ca_port::DEBUG, "scheme": "HTTPS"},
            "periodSeconds": period,
        })
    };
    let mut startup = probe(1);
    startup["failureThreshold"] = json!(120);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(CA, values),
        "spec": {
            "replicas": values.ca_replicas,
            "selector": {"matchLabels": {"app": CA}},
            "template": {
                "metadata": {"labels": labels(CA, values)},
                "spec": {
                    "serviceAccountName": CA,
                    "containers": [{
                        "name": "ca",
                        "image": values.images.ca,
                        "imagePullPolicy": "IfNotPresent",
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            {"name": "MESH_TRUST_DOMAIN", "value": values.trust_domain},
                        ],
                        "ports": [
                            {"name": "grpc-csr", "containerPort": ca_port::CSR},
                            {"name": "debug", "containerPort": ca_port::DEBUG},
                        ],
                        "startupProbe": startup,
                        "readinessProbe": probe(5),
                        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
                        "securityContext": unprivileged(),
                        "volumeMounts": [{"name": "certificate", "mountPath": CERTIFICATE_DIR, "readOnly": true}],
                    }],
                    "volumes": [{"name": "certificate", "secret": {"secretName": CA_CERT_SECRET}}],
                },
            },
        },
    })
}
