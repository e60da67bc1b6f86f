//! Probes of intercepted applications, and pods that end although they have a sidecar.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, program};
use serde_json::{Value, json};

/// A pod with a probe of each kind.
fn probed() -> Value {
    let probe = |handler: Value| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 2});
        if let (Some(probe), Some(handler)) = (probe.as_object_mut(), handler.as_object()) {
            probe.extend(handler.clone());
        }
        probe
    };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probed", "labels": {"purpose": "probes"}},
        "spec": {"containers": [
            {
                "name": "app", "image": "none", "command": [program("mesh-test-app")],
                "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9001}, {"containerPort": 9002}],
                "startupProbe": probe(json!({"tcpSocket": {"port": 9001}})),
                "readinessProbe": probe(json!({"httpGet": {"path": "/health", "port": "web"}})),
            },
            {
                "name": "rpc", "image": "none", "command": ["sleep", "1000000"],
                "readinessProbe": probe(json!({"grpc": {"port": 9002}})),
            },
        ]},
    })
}

/// The containers of a pod that are ready.
fn ready(mesh: &Mesh, pod: &str) -> Vec<String> {
    let pod = mesh.json(&["get", "pod", pod, "-o", "json"]);
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    statuses.filter(|it| it["ready"] == true).filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
}

fn becomes_ready(mesh: &Mesh, expected: &[&str]) {
    eventually(Duration::from_secs(30), || {
        let found = ready(mesh, "probed");
        if found == expected { Ok(()) } else { Err(format!("ready is {found:?}, not {expected:?}")) }
    });
}

pub(crate) fn probes_by_http_tcp_and_grpc_reach_an_intercepted_application(mesh: &Mesh) {
    let file = Scratch::file("probed.json", &probed().to_string());
    let _ = mesh.meshctl(&["create", "-f", file.path()]).ok();
    becomes_ready(mesh, &["app", "rpc"]);
    let pod = mesh.json(&["get", "pod", "probed", "-o", "json"]);
    let containers = &pod["spec"]["containers"];
    for (container, probe, path) in [
        (0, "startupProbe", "/app-health/app/startupz"),
        (0, "readinessProbe", "/app-health/app/readyz"),
        (1, "readinessProbe", "/app-health/rpc/readyz"),
    ] {
        let get = &containers[container][probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&json!(path), &json!(15020)), "{pod:#}");
    }
    // The node reaches the application through the proxy alone: whoever asks is in the pod.
    let log = mesh.meshctl(&["local", "logs", "probed", "-c", "app"]).ok().stdout;
    let own = pod["status"]["podIP"].as_str().expect("an address");
    for line in [
        format!("http from {own} by mesh-node-probe"),
        format!("tcp from {own}"),
        format!("grpc from {own} to /grpc.health.v1.Health/Check"),
    ] {
        assert!(log.lines().any(|found| found == line), "`{line}` is missing in\n{log}");
    }
    assert!(log.lines().all(|line| line.contains(&format!(" from {own}"))), "somebody else has asked:\n{log}");
    let proxy = mesh.meshctl(&["local", "logs", "probed", "-c", "mesh-proxy"]).ok().stdout;
    assert!(!proxy.contains("/health HTTP"), "a probe is no request of the mesh:\n{proxy}");

    // Its illness is seen as it is, by HTTP and by gRPC, and so is its recovery.
    let tell = |what: &str| {
        let url = format!("http://127.0.0.1:8080/{what}");
        let _ = mesh.meshctl(&["local", "exec", "probed", "-c", "app", "--", "curl", "-sf", &url]).ok();
    };
    tell("ill");
    becomes_ready(mesh, &[]);
    let proxy = mesh.meshctl(&["local", "logs", "probed", "-c", "mesh-proxy"]).ok().stdout;
    for said in ["a probe of the application fails", "is NOT_SERVING"] {
        assert!(proxy.contains(said), "`{said}` is missing in\n{proxy}");
    }
    tell("well");
    becomes_ready(mesh, &["app", "rpc"]);
    let _ = mesh.meshctl(&["delete", "pod", "probed"]).ok();
}

/// A pod that asks another service as its first deed, and ends.
fn once(name: &str, annotations: &Value, last: &str) -> Value {
    let ask = "curl -s -m 10 -o /dev/null -w '%{http_code}\\n' -H 'x-mark: once' http://reviews:9080/reviews/0";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "app", "image": "none", "command": ["sh", "-c", format!("{ask}\n{last}")]}],
        },
    })
}

pub(crate) fn a_pod_that_ends_does_so_with_its_sidecar_of_either_kind(mesh: &Mesh) {
    mesh.without_rules();
    // Only a proxy answers like that.
    let teapot = ["--destination", "reviews", "--match-header", "x-mark=exact:once", "--abort", "418:100", "--wait"];
    let _ = mesh.meshctl(&[&["create", "route-rule", "teapot"][..], &teapot].concat()).ok();
    let classic = json!({
        "sidecar.meshctl.io/native-sidecar": "false",
        "sidecar.meshctl.io/holdApplicationUntilProxyStarts": "true",
    });
    let quit = "curl -sf -X POST http://127.0.0.1:15020/quitquitquit";
    for (name, annotations, last, containers) in
        [("native-once", json!({}), "true", 1), ("classic-once", classic, quit, 2)]
    {
        let file = Scratch::file("once.json", &once(name, &annotations, last).to_string());
        let _ = mesh.meshctl(&["create", "-f", file.path()]).ok();
        eventually(Duration::from_secs(60), || {
            let pod = mesh.json(&["get", "pod", name, "-o", "json"]);
            let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
            if phase == "Succeeded" { Ok(()) } else { Err(format!("{phase}: {:#}", pod["status"])) }
        });
        let pod = mesh.json(&["get", "pod", name, "-o", "json"]);
        assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(containers), "{pod:#}");
        let log = mesh.meshctl(&["local", "logs", name, "-c", "app"]).ok().stdout;
        assert!(log.starts_with("418\n"), "the proxy was there first: {log}");
        let _ = mesh.meshctl(&["delete", "pod", name]).ok();
    }
    mesh.without_rules();
}
