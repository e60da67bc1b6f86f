//! Calls of gRPC between pods, whose bytes the kernel intercepts on both sides.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, peer};
use serde_json::{Value, json};

/// Port of the server, at its pod and its service.
const PORT: u16 = 8081;

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
    let cases = ["large_unary", "ping_pong", "server_streaming", "status_code_and_message"];
    let name = |case: &str| format!("grpc-{}", case.replace('_', "-"));
    let port = PORT.to_string();
    let pods = cases.map(|case| {
        let arguments = [&*client, "-server_host", "grpc-server", "-server_port", &port, "-test_case", case];
        let mut pod = pod(&name(case), &arguments);
        pod["spec"]["restartPolicy"] = json!("OnFailure");
        pod
    });
    apply(mesh, &pods);
    for case in cases {
        wait(mesh, &name(case), |pod| pod["status"]["phase"] == "Succeeded");
    }
    eventually(Duration::from_secs(10), || {
        let log = mesh.meshctl(&["local", "logs", "grpc-server", "-c", "mesh-proxy"]).ok().stdout;
        let calls =
            log.lines().filter(|line| line.contains("/grpc.testing.TestService/") && line.contains("HTTP/2")).count();
        if calls >= cases.len() { Ok(()) } else { Err(format!("calls are missing in the access log:\n{log}")) }
    });
    // What the cases send: 1, 4, 1 and twice 1 messages; and get: 1, 4, 4 and none. A case that was tried again adds to it.
    let metrics = super::telemetry::metrics(mesh, "grpc-server");
    for (family, least) in [("istio_request_messages_total", 8), ("istio_response_messages_total", 9)] {
        let lines = metrics.lines().filter(|line| line.starts_with(family));
        let sum: u64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        assert!(sum >= least, "{sum} of {family}:\n{metrics}");
    }
    let mut names: Vec<String> = cases.iter().map(|case| name(case)).collect();
    names.push("grpc-server".to_owned());
    for name in names {
        let _ = mesh.meshctl(&["delete", "pod", &name, "-n", "default"]);
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
