//! Programs that people use, against and behind the sidecars of the mesh on one machine: curl, wrk, h2load, grpcurl,
//! Go's net/http, a WebSocket client, Python's requests. Needs what the mesh on one machine needs, `wrk`, `h2load`,
//! and `PEERS`, the folder that `scripts/get-peers` fills.

use std::process::ExitCode;
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::eventually;
use mesh_tests::{runner, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let all = tests![
        curl_is_served_in_every_version_of_http,
        curl_upgrades_to_http2,
        go_clients_are_served,
        python_requests_is_served,
        wrk_and_h2load_see_no_failure,
        grpcurl_lists_and_calls,
    ];
    runner::main(
        || {
            let mesh = Mesh::with_bookinfo("clients");
            start(&mesh);
            mesh
        },
        &all,
    )
}

/// The path of a program of others.
fn peer(name: &str) -> String {
    let folder = std::env::var_os("PEERS").expect("PEERS is the folder that scripts/get-peers fills");
    format!("{}/{name}", folder.to_string_lossy())
}

/// A server of every protocol, and a pod to run clients in, both with sidecars.
fn start(mesh: &Mesh) {
    let pod = |name: &str, command: [&str; 2], ports: &[u16]| {
        let probe = ports.first().map(|port| json!({"tcpSocket": {"port": port}, "periodSeconds": 1}));
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"containers": [{
                "name": "app", "image": "none", "command": [peer(command[0]), command[1]],
                "ports": ports.iter().map(|port| json!({"containerPort": port})).collect::<Vec<_>>(),
                "readinessProbe": probe,
            }]},
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 8080}, {"name": "http2", "port": 8081}, {"name": "any", "port": 8082},
            {"name": "grpc", "port": 9000},
        ]},
    });
    let items =
        [service, pod("web", ["web", "server"], &[8080, 8081, 8082, 9000]), pod("client", ["web", "idle"], &[])];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let _ = mesh.meshctl_with_input(&["apply", "-f", "-"], &list.to_string()).ok();
    eventually(Duration::from_secs(60), || {
        let pods = mesh.json(&["get", "pods", "-n", "default", "-o", "json"]);
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let all = pods["items"].as_array().cloned().unwrap_or_default();
        let of_ours = |pod: &&Value| ["web", "client"].iter().any(|name| pod["metadata"]["name"] == *name);
        let count = all.iter().filter(of_ours).filter(ready).count();
        if count == 2 { Ok(()) } else { Err(format!("{count} of 2 pods are ready")) }
    });
    // Every proxy has heard of the service once its answer comes from there.
    eventually(Duration::from_secs(30), || {
        let ran = mesh.exec("pod/client", &["curl", "-s", "http://web:8080/echo"]);
        if ran.stdout.contains("\"Proto\"") { Ok(()) } else { Err(format!("{}{}", ran.stdout, ran.stderr)) }
    });
}

fn curl(mesh: &Mesh, arguments: &[&str]) -> Value {
    let mut command = vec!["curl", "-sS", "--fail-with-body", "--max-time", "30"];
    command.extend(arguments);
    let printed = mesh.exec("pod/client", &command).ok().stdout;
    serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{printed}"))
}

fn curl_is_served_in_every_version_of_http(mesh: &Mesh) {
    for (version, port, seen) in [
        ("--http1.1", 8080, "HTTP/1.1"),
        ("--http1.0", 8080, "HTTP/1.1"),
        ("--http1.1", 8082, "HTTP/1.1"),
        ("--http2-prior-knowledge", 8081, "HTTP/2.0"),
        ("--http2-prior-knowledge", 8082, "HTTP/2.0"),
        // The service says what is spoken at its port; what the client spoke is between it and its sidecar.
        ("--http2-prior-knowledge", 8080, "HTTP/2.0"),
    ] {
        let echo = curl(mesh, &[version, &format!("http://web:{port}/echo")]);
        assert_eq!(echo["Proto"], seen, "{version} at {port}");
        assert_eq!(echo["Host"], format!("web:{port}"), "{version} at {port}");
    }
    let echo = curl(mesh, &["-X", "PUT", "-d", "hello", "-H", "x-mine: 1", "http://web:8080/echo"]);
    assert_eq!(
        (&echo["Method"], &echo["Length"], &echo["Headers"]["X-Mine"][0]),
        (&json!("PUT"), &json!(5), &json!("1"))
    );
}

fn curl_upgrades_to_http2(mesh: &Mesh) {
    let echo = curl(mesh, &["--http2", "-w", "", "http://web:8080/echo"]);
    assert_eq!(echo["Method"], "GET");
    let version = ["curl", "-sS", "--http2", "-o", "/dev/null", "-w", "%{http_version}", "http://web:8080/echo"];
    assert_eq!(mesh.exec("pod/client", &version).ok().stdout.trim(), "2");
}

fn go_clients_are_served(mesh: &Mesh) {
    let ran = mesh.exec("pod/client", &[&peer("web"), "client", "http://web:8080", "http://web:8081"]);
    assert!(!ran.stdout.contains("failed") && ran.stdout.matches("ok: ").count() == 13, "{}{}", ran.stdout, ran.stderr);
    // At a port that says nothing of itself, what it is is found out by the first bytes.
    let ran = mesh.exec("pod/client", &[&peer("web"), "client", "http://web:8082", "http://web:8082"]);
    assert!(!ran.stdout.contains("failed") && ran.stdout.matches("ok: ").count() == 13, "{}{}", ran.stdout, ran.stderr);
}

fn python_requests_is_served(mesh: &Mesh) {
    let ran = mesh.exec("pod/client", &[&peer("python-client"), "http://web:8080"]).ok();
    assert_eq!(ran.stdout.matches("ok: ").count(), 5, "{}", ran.stdout);
}

fn wrk_and_h2load_see_no_failure(mesh: &Mesh) {
    let ran = mesh.exec("pod/client", &["wrk", "-t1", "-c16", "-d2s", "http://web:8080/echo"]).ok();
    assert!(ran.stdout.contains("requests in") && !ran.stdout.contains("Non-2xx"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("Socket errors"), "{}", ran.stdout);
    for arguments in [["--h1", "http://web:8080/echo"], ["-m8", "http://web:8081/echo"]] {
        let mut command = vec!["h2load", "-t1", "-c8", "-n2000"];
        command.extend(arguments);
        let ran = mesh.exec("pod/client", &command).ok();
        assert!(ran.stdout.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{}", ran.stdout);
    }
}

fn grpcurl_lists_and_calls(mesh: &Mesh) {
    let list = mesh.exec("pod/client", &[&peer("grpcurl"), "-plaintext", "web:9000", "list"]).ok();
    assert!(list.stdout.contains("grpc.health.v1.Health"), "{}", list.stdout);
    let call =
        mesh.exec("pod/client", &[&peer("grpcurl"), "-plaintext", "web:9000", "grpc.health.v1.Health/Check"]).ok();
    assert!(call.stdout.contains("SERVING"), "{}", call.stdout);
    // A status of the server's own comes through as it is.
    let unknown = mesh.exec(
        "pod/client",
        &[&peer("grpcurl"), "-plaintext", "-d", r#"{"service": "nobody"}"#, "web:9000", "grpc.health.v1.Health/Check"],
    );
    assert!(unknown.stderr.contains("NotFound"), "{}{}", unknown.stdout, unknown.stderr);
}
