//! Calls of gRPC between pods, whose bytes the kernel intercepts on both sides.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, peer};
use serde_json::{Value, json};

/// Port of the server, at its pod and its service.
const PORT: u16 = 8081;

/// All of gRPC's own cases of interoperability that need no account of anybody's.
const CASES: usize = 14;

pub(crate) fn calls_of_grpc_pass_both_sidecars(mesh: &Mesh) {
    let (Some(server), Some(client)) = (peer("grpc-interop-server"), peer("interop")) else { return };
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
    let mut cases = pod("grpc-cases", &[&client, &format!("grpc-server:{PORT}")]);
    cases["spec"]["restartPolicy"] = json!("Never");
    apply(mesh, &[cases]);
    let log = |name: &str, container: &str| mesh.meshctl(&["local", "logs", name, "-c", container]).ok().stdout;
    wait(mesh, "grpc-cases", |pod| {
        let phase = &pod["status"]["phase"];
        assert_ne!(phase, "Failed", "{}", log("grpc-cases", "app"));
        phase == "Succeeded"
    });
    let told = log("grpc-cases", "app");
    assert_eq!(told.matches(" holds\n").count(), CASES, "{told}");
    // Two that are given up at once may never leave; the others make one call each, and two of them two.
    let least = CASES - 2 + 2;
    eventually(Duration::from_secs(10), || {
        let log = log("grpc-server", "mesh-proxy");
        let calls = log.lines().filter(|line| line.contains("/grpc.testing.") && line.contains("HTTP/2")).count();
        if calls >= least { Ok(()) } else { Err(format!("{calls} calls in the access log:\n{log}")) }
    });
    // What the cases send and get, by the order in which they are named: 1, 1, 4, 1, 4, none, one that may not leave, none,
    // 1, twice 1, 1, twice 1, 1 and 1 messages; and 1, 1, 1, 4, 4, none, none, none, 1, none, none and twice 1.
    let metrics = super::telemetry::metrics(mesh, "grpc-server");
    for (family, least) in [("istio_request_messages_total", 19), ("istio_response_messages_total", 14)] {
        let lines = metrics.lines().filter(|line| line.starts_with(family));
        let sum: u64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        assert!(sum >= least, "{sum} of {family}:\n{metrics}");
    }
    for name in ["grpc-cases", "grpc-server"] {
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
