//! Connections over IPv6, which the kernel intercepts on both sides as it does those over IPv4.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually};
use serde_json::json;

use super::telemetry::metrics;

const PAGE: &str = "deploy/productpage-v1";

pub(crate) fn requests_over_ipv6_pass_both_sidecars_and_follow_rules(mesh: &Mesh) {
    mesh.without_rules();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "details-six", "namespace": "default"},
        "spec": {"ipFamilies": ["IPv6"], "selector": {"app": "details"}, "ports": [{"name": "http", "port": 9080}]},
    });
    let file = Scratch::file("six.json", &service.to_string());
    let _ = mesh.meshctl(&["apply", "-f", file.path()]).ok();
    let get = |url: &str| {
        let ran = mesh.exec(PAGE, &["curl", "-6", "-s", "-g", "-o", "/dev/null", "-w", "%{http_code}", url]);
        ran.stdout.trim().to_owned()
    };
    let is = |url: &str, status: &str| {
        eventually(Duration::from_secs(20), || {
            let found = get(url);
            if found == status { Ok(()) } else { Err(format!("{url} answers {found}, not {status}")) }
        });
    };
    is("http://details-six:9080/details/0", "200");
    let labels = ["reporter=\"source\"", "destination_service=\"details-six.default.svc.cluster.local\"", "\"200\""];
    let text = metrics(mesh, PAGE);
    let counted = |line: &str| line.starts_with("istio_requests_total{") && labels.iter().all(|l| line.contains(l));
    assert!(text.lines().any(counted), "the caller's proxy has not counted it:\n{text}");
    let log = mesh.meshctl(&["local", "logs", "deploy/details-v1", "-c", "mesh-proxy"]).ok().stdout;
    assert!(log.contains("details-six:9080"), "it did not pass the other proxy:\n{log}");
    let rule = json!({
        "apiVersion": "config.istio.io/v1alpha2", "kind": "RouteRule",
        "metadata": {"name": "six-abort", "namespace": "default"},
        "spec": {
            "destination": {"name": "details-six"},
            "route": [{"labels": {}}],
            "httpFault": {"abort": {"percent": 100, "httpStatus": 418}},
        },
    });
    let file = Scratch::file("rule.json", &rule.to_string());
    let _ = mesh.meshctl(&["apply", "--wait", "-f", file.path()]).ok();
    is("http://details-six:9080/details/0", "418");
    let _ = mesh.meshctl(&["delete", "route-rule", "six-abort"]).ok();
    // Of no service: it passes through both all the same.
    let pods = mesh.json(&["get", "pods", "-l", "app=details", "-o", "json"]);
    let addresses = pods["items"][0]["status"]["podIPs"].as_array().cloned().unwrap_or_default();
    let six = addresses.iter().filter_map(|it| it["ip"].as_str()).find(|ip| ip.contains(':'));
    let six = six.unwrap_or_else(|| panic!("no IPv6 address of the pod: {addresses:?}"));
    is(&format!("http://[{six}]:9080/details/0"), "200");
    let _ = mesh.meshctl(&["delete", "service", "details-six"]).ok();
    is(&format!("http://[{six}]:9080/details/0"), "200");
}
