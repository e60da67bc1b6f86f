//! What `meshctl` says about the running mesh.

use std::process::Command;
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{eventually, run};

pub(crate) fn create_refuses_what_exists_and_replace_what_does_not(mesh: &Mesh) {
    mesh.without_rules();
    let file = Mesh::sample("route-rule-reviews-v3.yaml");
    let missing = mesh.meshctl(&["replace", "-f", &file]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("hint:"), "{missing:?}");
    let created = mesh.meshctl(&["create", "-f", &file]).ok();
    assert!(
        created.stdout.starts_with("Created config route-rule/default/reviews-default at revision "),
        "{created:?}"
    );
    let twice = mesh.meshctl(&["create", "-f", &file]);
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.stderr.contains("reviews-default"), "{twice:?}");
    let _ = mesh.meshctl(&["delete", "-f", &file]).ok();
}

pub(crate) fn proxies_are_in_sync_and_explain_their_configuration(mesh: &Mesh) {
    mesh.without_rules();
    let status = eventually(Duration::from_secs(10), || {
        let status = mesh.json(&["proxy-status", "-o", "json"]);
        let text = status.to_string();
        if text.contains("STALE") || text.contains("REJECTED") { Err(text) } else { Ok(status) }
    });
    let proxies = status["proxies"].as_array().expect("a list of proxies");
    assert_eq!(proxies.len(), 7, "six sidecars and a gateway: {status}");
    for kind in ["listeners", "routes", "clusters", "endpoints"] {
        let ran = mesh.meshctl(&["proxy-config", "deploy/productpage-v1", kind]).ok();
        assert!(ran.stdout.contains("9080"), "{kind}: {}", ran.stdout);
    }
}

pub(crate) fn kubectl_sees_pods_and_rules(mesh: &Mesh) {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has kubectl: .ci/run installs it");
        println!("  left out: there is no kubectl in PATH (sudo apt-get install -y kubernetes-client)");
        return;
    }
    let kubeconfig = mesh.meshctl(&["local", "kubeconfig"]).ok().stdout;
    let kubectl =
        |arguments: &[&str]| run(Command::new("kubectl").arg("--kubeconfig").arg(kubeconfig.trim()).args(arguments));
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-v3.yaml")]).ok();
    let seen = kubectl(&["get", "pods,routerules", "-A"]).ok().stdout;
    for word in ["reviews-v1", "mesh-pilot", "reviews-default", "2/2"] {
        assert!(seen.contains(word), "{word} is missing:\n{seen}");
    }
}

pub(crate) fn logs_show_the_access_log_of_the_sidecar(mesh: &Mesh) {
    let _ = mesh.browser().get("/productpage", &[("x-request-id", "seen-in-the-log")]).expect("the gateway answers");
    eventually(Duration::from_secs(5), || {
        let log = mesh.meshctl(&["local", "logs", "deploy/productpage-v1", "-c", "mesh-proxy"]).ok().stdout;
        if log.contains("seen-in-the-log") { Ok(()) } else { Err(log) }
    });
}
