//! A trust domain gets another name while everything goes on.

use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::eventually;

use crate::life::under_load;

const RATINGS: &str = "http://ratings:9080/ratings/0";
const SIDECARS: [&str; 5] =
    ["deploy/productpage-v1", "deploy/details-v1", "deploy/reviews-v1", "deploy/reviews-v3", "deploy/ratings-v1"];

fn status(mesh: &Mesh, pod: &str) -> String {
    let answer = mesh.exec(pod, &["curl", "-s", "-i", "-m", "20", RATINGS]).stdout;
    answer.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Gives the trust domain these names, the one to be used first.
fn install(mesh: &Mesh, name: &str, aliases: &[&str]) {
    let mut values = vec!["install", "--wait", "--trust-domain", name];
    values.extend(aliases.iter().flat_map(|alias| ["--trust-domain-alias", *alias]));
    let _ = mesh.meshctl(&values).ok();
}

/// Waits until the CA waits for nobody any more.
fn everybody_follows(mesh: &Mesh, name: &str, aliases: &[&str]) {
    eventually(Duration::from_secs(120), || {
        let ran = mesh.meshctl(&["ca", "status", "-o", "json"]);
        let all: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let [ca] = all["authorities"].as_array().map_or(&[][..], Vec::as_slice) else { return Err(format!("{ran:?}")) };
        let names: Vec<&str> =
            ca["aliases"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
        let is_done = ca["trustDomain"] == name && ca["issuing"] == name && names == aliases && ca["waiting"] == 0;
        if is_done { Ok(()) } else { Err(ran.stdout) }
    });
}

/// The identity of a deployment's only proxy.
fn identity(mesh: &Mesh, deployment: &str) -> String {
    let report = mesh.json(&["proxy-config", deployment, "secrets", "-o", "json"]);
    report["id"].as_str().unwrap_or_default().to_owned()
}

fn everybody_is_in(mesh: &Mesh, domain: &str) {
    for deployment in SIDECARS {
        let id = identity(mesh, deployment);
        assert!(id.starts_with(&format!("spiffe://{domain}/ns/default/sa/")), "{deployment}: {id}");
    }
}

/// Rules about accounts, as they were written, hold.
fn roles_hold(mesh: &Mesh, when: &str) {
    assert_eq!(status(mesh, "deploy/reviews-v2"), "200", "{when}: reviews may read ratings");
    assert_eq!(status(mesh, "deploy/productpage-v1"), "403", "{when}: productpage may not");
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
        install(mesh, new, &[old]);
        // A pod that starts in the middle of it is ready as always.
        let _ = mesh.meshctl(&["local", "restart", "deploy/ratings-v1", "--wait"]).ok();
        roles_hold(mesh, "while it is renamed");
        everybody_follows(mesh, new, &[old]);
        everybody_is_in(mesh, new);
        roles_hold(mesh, "with the new name");
        let _ = mesh.meshctl(&["local", "restart", "deploy/reviews-v2", "--wait"]).ok();
        roles_hold(mesh, "after a restart under the new name");
        // Named back, and the other name given up.
        install(mesh, old, &[new]);
        everybody_follows(mesh, old, &[new]);
        everybody_is_in(mesh, old);
        roles_hold(mesh, "named back");
        install(mesh, old, &[]);
        everybody_follows(mesh, old, &[]);
        roles_hold(mesh, "with one name");
    });
    println!("  {sent} pages while the trust domain was renamed and named back, none failed");
    assert!(sent > 10, "there was traffic all the time");
    let _ = mesh.meshctl(&[&["delete"][..], &files].concat()).ok();
}
