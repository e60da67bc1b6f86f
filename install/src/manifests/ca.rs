//! The CA: its identity, what it may read and write, its certificate, its pods and its service.

use api::names::{CA, CA_CERT_SECRET, ca_port};
use serde_json::{Value, json};

use super::{Daemon, binding, cluster_metadata, field, metadata, service, service_account, serving_certificate};
use crate::Values;

const CERTIFICATE_DIR: &str = "/etc/mesh/ca";

pub(super) fn render(values: &Values) -> Vec<Value> {
    let ports = json!([
        {"name": "grpc-csr", "port": ca_port::CSR},
        {"name": "https-debug", "port": ca_port::DEBUG},
    ]);
    vec![
        service_account(CA, values),
        cluster_role(values),
        binding("ClusterRole", CA, values),
        role(values),
        binding("Role", CA, values),
        serving_certificate(CA_CERT_SECRET, &values.certificates.ca, values),
        service(CA, &ports, values),
        deployment(values),
    ]
}

/// Whose tokens they are, and whether a service account or a pod still exists, is all that it asks about the cluster.
fn cluster_role(values: &Values) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": cluster_metadata(CA, values),
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["serviceaccounts", "pods"], "verbs": ["get"]},
        ],
    })
}

/// Its own keys and the join tokens are Secrets of the control plane's namespace; who holds certificates is in a ConfigMap
/// there, and a rotation of the root asks the Pilots and CAs that there are.
fn role(values: &Values) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(CA, values),
        "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update", "delete"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        ],
    })
}

fn deployment(values: &Values) -> Value {
    let daemon = Daemon {
        name: CA,
        container: "ca",
        image: &values.images.ca,
        replicas: values.ca_replicas,
        ready_port: ca_port::DEBUG,
        env: environment(values),
        ports: json!([
            {"name": "grpc-csr", "containerPort": ca_port::CSR},
            {"name": "debug", "containerPort": ca_port::DEBUG},
        ]),
        requests: json!({"cpu": "20m", "memory": "32Mi"}),
        volume_mounts: json!([{"name": "certificate", "mountPath": CERTIFICATE_DIR, "readOnly": true}]),
        volumes: json!([{"name": "certificate", "secret": {"secretName": CA_CERT_SECRET}}]),
    };
    daemon.deployment(values)
}

fn environment(values: &Values) -> Value {
    let mut all =
        vec![field("POD_NAME", "metadata.name"), json!({"name": "MESH_TRUST_DOMAIN", "value": values.trust_domain})];
    all.extend(super::aliases(values));
    all.into()
}
