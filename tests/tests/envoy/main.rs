//! Beside a stock Envoy: as a sidecar of the mesh on one machine it takes every resource that Pilot generates and
//! routes as our own proxy does. Needs what the mesh on one machine needs, and `ENVOY`, the program's path.

mod pod;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::Duration;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{eventually, run};
use mesh_tests::{runner, tests};

fn main() -> ExitCode {
    let all = tests![
        envoy_validates_its_bootstrap,
        envoy_takes_every_resource,
        envoy_routes_as_our_proxy_does_without_rules,
        envoy_routes_as_our_proxy_does_by_header_and_weight,
        envoy_injects_the_same_faults_and_times_out_alike,
        envoy_redirects_and_rewrites_alike,
        envoy_speaks_mutual_tls_with_our_proxies,
    ];
    runner::main(
        || {
            let envoy = std::env::var_os("ENVOY").expect("ENVOY is the path of Envoy; scripts/get-envoy fetches one");
            let mesh = Mesh::with_bookinfo("envoy");
            pod::start(&mesh, &envoy.to_string_lossy());
            mesh
        },
        &all,
    )
}

const ENVOY: &str = "pod/envoy-client";
const OURS: &str = "deploy/productpage-v1";

fn envoy_validates_its_bootstrap(mesh: &Mesh) {
    let bootstrap = mesh.meshctl(&["proxy-config", OURS, "bootstrap", "--envoy"]).ok().stdout;
    let file = std::env::temp_dir().join(format!("bootstrap-{}.yaml", std::process::id()));
    // Validation opens the files that the bootstrap names, which are in pods only.
    let root = std::env::temp_dir().join(format!("root-{}.pem", std::process::id()));
    std::fs::write(&root, pod::root(mesh)).expect("a temporary file");
    let here = bootstrap.replace("/var/run/secrets/mesh/root-cert.pem", &root.to_string_lossy());
    std::fs::write(&file, here).expect("a temporary file");
    let envoy = std::env::var_os("ENVOY").expect("set");
    let _ = run(Command::new(envoy).args(["--mode", "validate", "-c"]).arg(&file)).ok();
    let _ = (std::fs::remove_file(file), std::fs::remove_file(root));
}

fn envoy_takes_every_resource(mesh: &Mesh) {
    eventually(Duration::from_secs(10), || {
        let status = mesh.json(&["proxy-status", "-o", "json"]);
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        let Some(envoy) = proxies.iter().find(|p| p["id"] == "envoy-client.default") else {
            return Err(format!("Envoy is not connected: {status}"));
        };
        let types = envoy["types"].as_array().cloned().unwrap_or_default();
        if types.iter().all(|t| t["state"] == "SYNCED") && types.len() == 4 { Ok(()) } else { Err(envoy.to_string()) }
    });
}

/// Sends requests from a pod and counts the answers by what a person would see of them.
fn answers(mesh: &Mesh, pod: &str, url: &str, headers: &[&str]) -> BTreeMap<String, usize> {
    let mut command = vec!["curl", "-s", "-w", "\\n=%{http_code} %{redirect_url}\\n"];
    headers.iter().for_each(|header| command.extend(["-H", header]));
    command.push(url);
    let printed = mesh.exec(pod, &command).ok().stdout;
    let (mut seen, mut stars) = (BTreeMap::new(), "none");
    for line in printed.lines() {
        if let Some(status) = line.strip_prefix('=') {
            *seen.entry(format!("{} stars {stars}", status.trim())).or_default() += 1;
            stars = "none";
        } else if let Some(color) = ["black", "red"].into_iter().find(|color| line.contains(color)) {
            stars = color;
        }
    }
    seen
}

/// Both proxies give the same kinds of answers, in about the same shares.
fn alike(mesh: &Mesh, url: &str, headers: &[&str]) {
    let (envoy, ours) = (answers(mesh, ENVOY, url, headers), answers(mesh, OURS, url, headers));
    let kinds = |seen: &BTreeMap<String, usize>| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(kinds(&envoy), kinds(&ours), "{url} {headers:?}: {envoy:?} {ours:?}");
    let total: usize = ours.values().sum();
    for (kind, count) in &ours {
        let other = envoy.get(kind).copied().unwrap_or(0);
        let slack = 5.0 * (2.0 * total as f64 * 0.25).sqrt();
        assert!((*count as f64 - other as f64).abs() <= slack, "{url} {headers:?}: {envoy:?} {ours:?}");
    }
}

fn create(mesh: &Mesh, arguments: &[&str]) {
    let _ = mesh.meshctl(&[&["create"], arguments, &["--wait"]].concat()).ok();
}

fn envoy_routes_as_our_proxy_does_without_rules(mesh: &Mesh) {
    mesh.without_rules();
    alike(mesh, "http://reviews:9080/reviews/0?n=[1-300]", &[]);
    alike(mesh, "http://details:9080/details/[1-5]", &[]);
    alike(mesh, "http://details:9080/nothing", &[]);
}

fn envoy_routes_as_our_proxy_does_by_header_and_weight(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, &["-f", &Mesh::sample("route-rule-reviews-80-20.yaml")]);
    create(mesh, &["-f", &Mesh::sample("route-rule-reviews-test-v2.yaml")]);
    for cookie in ["Cookie: user=jason", "Cookie: a=b;user=jason;c=d", "Cookie: user=jasons", "Cookie: xuser=jason"] {
        alike(mesh, "http://reviews:9080/reviews/0?n=[1-400]", &[cookie]);
    }
}

fn envoy_injects_the_same_faults_and_times_out_alike(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, &["-f", &Mesh::sample("route-rule-ratings-test-abort.yaml")]);
    alike(mesh, "http://ratings:9080/ratings/0?n=[1-50]", &["Cookie: user=jason"]);
    alike(mesh, "http://ratings:9080/ratings/0?n=[1-50]", &["Cookie: user=other"]);
    mesh.without_rules();
    create(mesh, &["route-rule", "half", "--destination", "ratings", "--abort", "503:50"]);
    alike(mesh, "http://ratings:9080/ratings/0?n=[1-400]", &[]);
    mesh.without_rules();
    create(mesh, &["route-rule", "slow", "--destination", "ratings", "--delay", "2s:100"]);
    create(
        mesh,
        &["route-rule", "short", "--destination", "reviews", "--route", "version=v2:100", "--timeout", "300ms"],
    );
    alike(mesh, "http://reviews:9080/reviews/0", &[]);
}

fn envoy_redirects_and_rewrites_alike(mesh: &Mesh) {
    mesh.without_rules();
    let away = ["--match-uri", "exact:/old", "--redirect-uri", "/details/1", "--precedence", "2"];
    create(mesh, &[&["route-rule", "away", "--destination", "details"], &away[..]].concat());
    let anew = ["--match-uri", "prefix:/books/", "--rewrite-uri", "/details/", "--precedence", "1"];
    create(mesh, &[&["route-rule", "anew", "--destination", "details"], &anew[..]].concat());
    for path in ["old", "old/", "books/7", "books", "details/1"] {
        alike(mesh, &format!("http://details:9080/{path}"), &[]);
    }
}

/// Its certificate comes from `mesh-proxy identity` in its pod, by SDS: where everybody must show one it is served all the same.
fn envoy_speaks_mutual_tls_with_our_proxies(mesh: &Mesh) {
    mesh.without_rules();
    let strict = format!("{}/samples/auth/strict.yaml", mesh_tests::programs::repository().display());
    create(mesh, &["-f", &strict]);
    let seen = answers(mesh, ENVOY, "http://details:9080/details/[1-20]", &[]);
    assert_eq!(seen.values().sum::<usize>(), 20);
    assert!(seen.keys().all(|kind| kind.starts_with("200")), "{seen:?}");
    let stats = mesh.exec(ENVOY, &["curl", "-s", "http://127.0.0.1:15000/stats?filter=ssl.handshake"]).ok().stdout;
    let handshakes = stats.lines().filter(|line| line.contains("details") && !line.ends_with(": 0")).count();
    assert!(handshakes > 0, "there were handshakes with details:\n{stats}");
    let _ = mesh.meshctl(&["delete", "-f", &strict]).ok();
}
