//! Pilot: its identity, what it may read, its certificate, its pods and its service.

use api::names::{CLASSIC_GROUP, CLI_SERVICE_ACCOUNT, GROUP, PILOT, PILOT_CERT_SECRET, PROXY_DIR, pilot_port};
use serde_json::{Value, json};

use super::{Daemon, binding, cluster_metadata, field, metadata, service, service_account, serving_certificate};
use crate::Values;
use crate::inject::ca_token_source;

/// ConfigMap in the control plane's namespace with the root that vouches for Pilot.
const ROOT: &str = "mesh-root";
const CERTIFICATE_DIR: &str = "/etc/mesh/pilot";

pub(super) fn render(values: &Values) -> Vec<Value> {
    let ports = json!([
        {"name": "grpc-xds", "port": pilot_port::XDS},
        {"name": "https-webhooks", "port": pilot_port::WEBHOOKS},
        {"name": "https-debug", "port": pilot_port::DEBUG},
    ]);
    vec![
        service_account(PILOT, values),
        service_account(CLI_SERVICE_ACCOUNT, values),
        cluster_role(values),
        binding("ClusterRole", PILOT, values),
        serving_certificate(PILOT_CERT_SECRET, &values.certificates.pilot, values),
        root(values),
        service(PILOT, &ports, values),
        deployment(values),
    ]
}

fn cluster_role(values: &Values) -> Value {
    let read = json!(["get", "list", "watch"]);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": cluster_metadata(PILOT, values),
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints", "nodes"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update", "patch"]},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": read},
            {"apiGroups": [GROUP, CLASSIC_GROUP], "resources": ["*"], "verbs": read},
            {"apiGroups": [GROUP, CLASSIC_GROUP], "resources": ["*/status"], "verbs": ["update", "patch"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        ],
    })
}

fn root(values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(ROOT, values),
        "data": {"root-cert.pem": values.certificates.roots},
    })
}

fn deployment(values: &Values) -> Value {
    let daemon = Daemon {
        name: PILOT,
        container: "pilot",
        image: &values.images.pilot,
        replicas: values.pilot_replicas,
        ready_port: pilot_port::DEBUG,
        env: environment(values),
        ports: json!([
            {"name": "grpc-xds", "containerPort": pilot_port::XDS},
            {"name": "webhooks", "containerPort": pilot_port::WEBHOOKS},
            {"name": "debug", "containerPort": pilot_port::DEBUG},
        ]),
        requests: json!({"cpu": "50m", "memory": "64Mi"}),
        volume_mounts: json!([
            {"name": "certificate", "mountPath": CERTIFICATE_DIR, "readOnly": true},
            {"name": "token", "mountPath": PROXY_DIR, "readOnly": true},
        ]),
        volumes: json!([
            {"name": "certificate", "secret": {"secretName": PILOT_CERT_SECRET}},
            {"name": "token", "projected": {"sources": [ca_token_source()]}},
        ]),
    };
    daemon.deployment(values)
}

fn environment(values: &Values) -> Value {
    let mut all = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        json!({"name": "MESH_DOMAIN", "value": values.domain}),
        json!({"name": "MESH_TRUST_DOMAIN", "value": values.trust_domain}),
        json!({"name": "MESH_PROXY_IMAGE", "value": values.images.proxy}),
        json!({"name": "MESH_INIT_IMAGE", "value": values.images.init}),
    ];
    all.extend(super::aliases(values));
    if let Some(policy) = values.auth_policy {
        all.push(json!({"name": "MESH_AUTH_POLICY", "value": policy.word()}));
    }
    all.into()
}
