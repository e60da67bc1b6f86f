//! Calls of gRPC between pods, whose bytes the kernel intercepts on both sides.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, peer};
use serde_json::{Value, json};

/// Port of the server, at its pod and its service.
const PORT: u16 = 8081;
/// gRPC's own cases of interoperability.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

pub(crate) fn calls_of_grpc_pass_both_sidecars(mesh: &Mesh) {
    let (Some(server), Some(client)) = (peer("grpc-interop-server"), peer("grpc-interop-client")) else { return };
    let (server, client) = (server.display().to_string(), client.display().to_string());
    let labels = json!({"app": "grpc-server"});
    apply(
        mesh,
        &[
            pod("grpc-server", &[&server, "-port", &PORT.to_string()]),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "grpc-server", "namespace": "default"},
                "spec": {"selector": labels, "ports": [{"name": "grpc", "port": PORT, "targetPort": PORT}]},
            }),
        ],
    );
    wait(mesh, "grpc-server", |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    let script =
        "for case in \"$@\"; do \"$0\" -server_host grpc-server -server_port 8081 -test_case \"$case\" || exit 1; done";
    let command = [&["sh", "-c", script, &client][..], &CASES].concat();
    let mut one = pod("grpc-client", &command);
    one["spec"]["restartPolicy"] = json!("OnFailure");
    apply(mesh, &[one]);
    wait(mesh, "grpc-client", |pod| pod["status"]["phase"] == "Succeeded");
    eventually(Duration::from_secs(10), || {
        let log = mesh.meshctl(&["local", "logs", "grpc-server", "-c", "mesh-proxy"]).ok().stdout;
        let calls =
            log.lines().filter(|line| line.contains("/grpc.testing.TestService/") && line.contains("HTTP/2")).count();
        if calls >= CASES.len() { Ok(()) } else { Err(format!("calls are missing in the access log:\n{log}")) }
    });
    // What large_unary, ping_pong, server_streaming and status_code_and_message send: 1, 4, 1 and twice 1 messages; and get:
    // 1, 4, 4 and none. The other cases, and one that was tried again, add to it.
    let metrics = super::telemetry::metrics(mesh, "grpc-server");
    for (family, least) in [("istio_request_messages_total", 8), ("istio_response_messages_total", 9)] {
        let lines = metrics.lines().filter(|line| line.starts_with(family));
        let sum: u64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        assert!(sum >= least, "{sum} of {family}:\n{metrics}");
    }
    for name in ["grpc-client", "grpc-server"] {
        let _ = mesh.meshctl(&["delete", "pod", name, "-n", "default"]);
    }
}

fn pod(name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{
            "name": "app", "image": "none", "command": command, "ports": [{"containerPort": PORT}],
        }]},
    })
}

fn apply(mesh: &Mesh, items: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = Scratch::file("grpc.json", &list.to_string());
    let _ = mesh.meshctl(&["apply", "-f", file.path()]).ok();
}

fn wait(mesh: &Mesh, name: &str, is_there: impl Fn(&Value) -> bool) {
    eventually(Duration::from_secs(60), || {
        let pod = mesh.json(&["get", "pod", name, "-n", "default", "-o", "json"]);
        if is_there(&pod) { Ok(()) } else { Err(format!("the pod {name}: {}", pod["status"])) }
    });
}
