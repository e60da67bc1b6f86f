//! A pod whose sidecar is a stock Envoy, with the interception rules of any other.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::eventually;
use serde_json::{Value, json};

/// The root that vouches for Pilot, PEM.
pub(crate) fn root(mesh: &Mesh) -> String {
    let map = mesh.json(&["get", "configmap", "mesh-root", "-n", "mesh-system", "-o", "json"]);
    map["data"]["root-cert.pem"].as_str().expect("the root").to_owned()
}

/// Starts the pod and waits until Envoy is ready.
pub(crate) fn start(mesh: &Mesh, envoy: &str) {
    let mut bootstrap = engine::generate::envoy_bootstrap(&engine::generate::Bootstrap {
        node_id: "sidecar~0.0.0.0~envoy-client.default~default.svc.cluster.local".to_owned(),
        node_cluster: "envoy-client.default".to_owned(),
        pilot_address: "mesh-pilot.mesh-system.svc:15012".to_owned(),
        pilot_name: "mesh-pilot.mesh-system.svc".to_owned(),
        root_file: "/etc/envoy/root-cert.pem".to_owned(),
        token_file: "/var/run/secrets/mesh/token".to_owned(),
        admin_port: 15000,
        sds_socket: Some(api::names::WORKLOAD_SOCKET.to_owned()),
    });
    // Where there is one UID only, the mark tells the proxy's own connections: SO_MARK is option 36 of SOL_SOCKET.
    bootstrap["cluster_manager"] = json!({"upstream_bind_config": {
        "source_address": {"address": "0.0.0.0", "port_value": 0},
        "socket_options": [{"level": 1, "name": 36, "int_value": api::names::PROXY_MARK, "state": "STATE_PREBIND"}],
    }});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy-client", "namespace": "default"},
            "data": {"bootstrap.json": bootstrap.to_string(), "root-cert.pem": root(mesh)},
        },
        pod(mesh, envoy),
    ]});
    let file = std::env::temp_dir().join(format!("envoy-client-{}.json", std::process::id()));
    std::fs::write(&file, objects.to_string()).expect("a temporary file");
    let _ = mesh.meshctl(&["apply", "-f", &file.to_string_lossy()]).ok();
    let _ = std::fs::remove_file(file);
    eventually(Duration::from_secs(30), || {
        let pod = mesh.json(&["get", "pod", "envoy-client", "-n", "default", "-o", "json"]);
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if is_ready { Ok(()) } else { Err(format!("Envoy's pod is not ready: {}", pod["status"])) }
    });
}

/// What `mesh-proxy identity` is told of its pod.
fn identity_env(mesh: &Mesh) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        {"name": "MESH_PILOT_ROOT_PEM", "value": root(mesh)},
    ])
}

fn pod(mesh: &Mesh, envoy: &str) -> Value {
    // Envoy's client of Pilot cannot mark its connection.
    let exclude_outbound_ports = vec![api::names::pilot_port::XDS];
    let rules = install::rules::Interception { exclude_outbound_ports, ..Default::default() };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "envoy-client", "namespace": "default",
            "labels": {"app": "envoy-client", api::names::INJECT: "false"},
        },
        "spec": {
            "initContainers": [
                {
                    "name": "rules", "image": "mesh/init:test", "command": ["nft"],
                    "args": [rules.render()],
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
                },
                {
                    "name": "identity", "image": "mesh/proxy:test", "args": ["identity"], "restartPolicy": "Always",
                    "env": identity_env(mesh),
                    "securityContext": {"runAsUser": api::names::PROXY_UID},
                    "startupProbe": {
                        "exec": {"command": ["curl", "-sf", "http://127.0.0.1:15021/healthz/ready"]},
                        "periodSeconds": 1, "failureThreshold": 30,
                    },
                    "volumeMounts": [
                        {"name": "token", "mountPath": api::names::PROXY_DIR, "readOnly": true},
                        {"name": "socket", "mountPath": "/var/run/secrets/workload-spiffe-uds"},
                    ],
                },
                {
                    "name": "envoy", "image": "none", "restartPolicy": "Always",
                    "command": [envoy, "-c", "/etc/envoy/bootstrap.json", "--concurrency", "1", "-l", "warning"],
                    "securityContext": {"runAsUser": api::names::PROXY_UID},
                    "startupProbe": {
                        "exec": {"command": ["curl", "-sf", "http://127.0.0.1:15000/ready"]},
                        "periodSeconds": 1, "failureThreshold": 30,
                    },
                    "volumeMounts": [
                        {"name": "token", "mountPath": api::names::PROXY_DIR, "readOnly": true},
                        {"name": "bootstrap", "mountPath": "/etc/envoy", "readOnly": true},
                        {"name": "socket", "mountPath": "/var/run/secrets/workload-spiffe-uds", "readOnly": true},
                    ],
                },
            ],
            "containers": [{"name": "app", "image": "none", "command": ["sleep", "infinity"]}],
            "volumes": [
                {"name": "bootstrap", "configMap": {"name": "envoy-client"}},
                {"name": "socket", "emptyDir": {}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {
                        "audience": api::names::TOKEN_AUDIENCE, "path": "token", "expirationSeconds": 3600,
                    }},
                    {"serviceAccountToken": {
                        "audience": api::names::CA_TOKEN_AUDIENCE, "path": api::names::CA_TOKEN_FILE,
                        "expirationSeconds": 3600,
                    }},
                ]}},
            ],
        },
    })
}
