//! A trust domain gets another name while everything goes on.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::eventually;

use crate::life::under_load;

const RATINGS: &str = "http://ratings:9080/ratings/0";

fn status(mesh: &Mesh, pod: &str) -> String {
    let answer = mesh.exec(pod, &["curl", "-s", "-i", "-m", "20", RATINGS]).stdout;
    answer.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Gives the trust domain a name, with another one beside it, and waits until the CA issues under it.
fn rename(mesh: &Mesh, name: &str, alias: &str) {
    let values = ["--trust-domain", name, "--trust-domain-alias", alias];
    let _ = mesh.meshctl(&[&["install", "--wait"][..], &values].concat()).ok();
    eventually(Duration::from_secs(60), || {
        let ran = mesh.meshctl(&["ca", "status", "-o", "jsonpath={.authorities[*].trustDomain}"]);
        if ran.code == 0 && ran.stdout.trim() == name { Ok(()) } else { Err(format!("{ran:?}")) }
    });
}

/// The identity of a deployment's only proxy.
fn identity(mesh: &Mesh, deployment: &str) -> String {
    let report = mesh.json(&["proxy-config", deployment, "secrets", "-o", "json"]);
    report["id"].as_str().unwrap_or_default().to_owned()
}

/// Restarts a deployment, so that it asks for a certificate now and not in half a day.
fn restart(mesh: &Mesh, deployment: &str, domain: &str) {
    let _ = mesh.meshctl(&["local", "restart", deployment, "--wait"]).ok();
    eventually(Duration::from_secs(60), || {
        let id = identity(mesh, deployment);
        if id.starts_with(&format!("spiffe://{domain}/")) { Ok(()) } else { Err(id) }
    });
}

pub(crate) fn a_trust_domain_is_renamed_without_an_outage(mesh: &Mesh) {
    mesh.without_rules();
    let files: Vec<String> =
        ["rbac-enable.yaml", "rbac-productpage.yaml", "rbac-details-reviews.yaml", "rbac-ratings.yaml"]
            .iter()
            .flat_map(|name| ["-f".to_owned(), Mesh::sample(name)])
            .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let _ = mesh.meshctl(&[&["create"][..], &files, &["--wait"]].concat()).ok();
    let (old, new) = ("cluster.local", "new.example");
    let sent = under_load(mesh, || {
        rename(mesh, new, old);
        // The server has the new name, and who calls the old one; then both the new one; then the other way round.
        for deployment in ["deploy/ratings-v1", "deploy/reviews-v2", "deploy/reviews-v3"] {
            restart(mesh, deployment, new);
            assert_eq!(status(mesh, "deploy/reviews-v2"), "200", "{deployment}: reviews may read ratings");
            assert_eq!(status(mesh, "deploy/productpage-v1"), "403", "{deployment}: productpage may not");
        }
        assert!(identity(mesh, "deploy/productpage-v1").starts_with(&format!("spiffe://{old}/")), "it has not renewed");
        rename(mesh, old, new);
        restart(mesh, "deploy/ratings-v1", old);
        assert_eq!(status(mesh, "deploy/reviews-v2"), "200", "the caller has the name that is given up");
        assert_eq!(status(mesh, "deploy/productpage-v1"), "403");
        for deployment in ["deploy/reviews-v2", "deploy/reviews-v3"] {
            restart(mesh, deployment, old);
        }
    });
    println!("  {sent} pages while the trust domain was renamed and named back, none failed");
    assert!(sent > 10, "there was traffic all the time");
    let _ = mesh.meshctl(&[&["delete"][..], &files].concat()).ok();
    let _ = mesh.meshctl(&["install", "--wait"]).ok();
}
