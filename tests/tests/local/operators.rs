//! What operators ask a running mesh: descriptions, waits, edits, and an archive of everything.

use std::process::Command;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, run};
use serde_json::Value;

fn problems(description: &Value) -> Vec<String> {
    let problems = description["problems"].as_array().into_iter().flatten();
    problems.filter_map(|problem| problem["message"].as_str().map(str::to_owned)).collect()
}

pub(crate) fn a_pod_a_service_and_a_rule_are_described_as_the_mesh_has_them(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-all-v1.yaml")]).ok();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-test-v2.yaml"), "--wait"]).ok();
    let service = mesh.json(&["describe", "service", "reviews", "-o", "json"]);
    let rules = &service["routeRules"];
    let order: Vec<&str> = rules.as_array().into_iter().flatten().filter_map(|rule| rule["rule"].as_str()).collect();
    assert_eq!(order, ["route-rule/reviews-test-v2", "route-rule/reviews-default"], "{service:#}");
    for rule in rules.as_array().into_iter().flatten() {
        let applied = rule["appliedBy"].as_str().unwrap_or_default();
        let (done, all) = applied.split_once(" of ").unwrap_or(("", "none"));
        assert!(done == all && all != "0", "{rule}");
    }
    assert_eq!(service["endpoints"].as_array().map(Vec::len), Some(3), "{service:#}");
    assert_eq!(problems(&service), Vec::<String>::new());

    let pod = mesh.json(&["describe", "deploy/reviews-v2", "-o", "json"]);
    assert_eq!(pod["proxy"]["kind"], "native sidecar", "{pod:#}");
    let here = &pod["inboundRules"];
    let shares: Vec<&str> = here.as_array().into_iter().flatten().filter_map(|rule| rule["thisPod"].as_str()).collect();
    assert_eq!(shares, ["shares 100%", "never"], "{pod:#}");
    assert_eq!(problems(&pod), Vec::<String>::new());

    let text = mesh.meshctl(&["describe", "route-rule", "reviews-test-v2"]).ok().stdout;
    assert!(text.contains("this one") && text.contains("none found") && !text.contains('\u{1b}'), "{text}");
    mesh.without_rules();
}

pub(crate) fn a_wait_counts_the_proxies_and_an_edit_reaches_them(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-v3.yaml")]).ok();
    let waited = mesh.json(&["wait", "rr/reviews-default", "-o", "json"]);
    assert!(waited["proxies"].as_u64() > Some(0), "{waited}");
    let ready = mesh.meshctl(&["wait", "pods", "-l", "app=reviews", "--for=condition=Ready"]).ok();
    assert_eq!(ready.stdout.lines().count(), 3, "{ready:?}");
    let edited =
        run(mesh.command(&["edit", "rr/reviews-default", "--wait"]).env("KUBE_EDITOR", "sed -i s/v3/v2/")).ok();
    assert!(edited.stderr.contains("applied by "), "{edited:?}");
    let seen = crate::routing::reviews(mesh, 20, &[]);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["v2"]);
    mesh.without_rules();
}

pub(crate) fn a_proxys_state_is_compared_with_what_pilot_has_sent(mesh: &Mesh) {
    let ran = mesh.meshctl(&["proxy-status", "deploy/reviews-v1"]).ok();
    assert_eq!(ran.stdout.lines().count(), 2, "{ran:?}");
    assert!(ran.stderr.contains("that Pilot has sent: acknowledged and in force"), "{ran:?}");
    let json = mesh.json(&["proxy-status", "deploy/reviews-v1", "-o", "json"]);
    assert_eq!(json["proxies"][0]["differences"], serde_json::json!([]));
    let unknown = mesh.meshctl(&["proxy-status", "reviewz-v1"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("hint:"), "{unknown:?}");
}

pub(crate) fn one_archive_holds_what_is_needed_and_no_secret(mesh: &Mesh) {
    for (what, expected) in [
        (
            &["deploy/reviews-v1"][..],
            &[
                "manifest.json",
                "pod/pod.json",
                "pod/logs/reviews.log",
                "pod/logs/mesh-proxy.log",
                "pod/proxy/config_dump.json",
                "pod/proxy/stats.txt",
                "versions/mesh.json",
                "objects/services.json",
            ][..],
        ),
        (&["--all"], &["objects/pods.json", "objects/route-rules.json", "versions/kubernetes.json"]),
    ] {
        let file = Scratch::file("debug.tar.gz", "");
        let ran = mesh.meshctl(&[&["debug"], what, &["-o", file.path()]].concat()).ok();
        assert_eq!(ran.stdout.trim(), file.path());
        let listed = run(Command::new("tar").args(["-tzf", file.path()])).ok().stdout;
        for name in expected {
            assert!(listed.lines().any(|line| line == format!("mesh-debug/{name}")), "{name} is missing in\n{listed}");
        }
        let all = run(Command::new("tar").args(["-xzOf", file.path()])).ok().stdout;
        for secret in ["PRIVATE KEY-----", "eyJhbGciOi"] {
            assert!(!all.contains(secret), "{what:?}: the archive holds `{secret}`");
        }
        let manifest = run(Command::new("tar").args(["-xzOf", file.path(), "mesh-debug/manifest.json"])).ok().stdout;
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        assert_eq!(manifest["missing"], serde_json::json!([]), "{manifest:#}");
    }
    let unknown = mesh.meshctl(&["debug", "deploy/nobody"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("hint:"), "{unknown:?}");
}
