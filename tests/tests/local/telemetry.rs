//! What the mesh tells of its traffic and of itself.

use std::process::Command;
use std::time::Duration;

use mesh_tests::access_log;
use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{eventually, repository, run_with_input};

const PAGE: &str = "deploy/productpage-v1";

/// The metrics of a pod's proxy.
pub(crate) fn metrics(mesh: &Mesh, pod: &str) -> String {
    mesh.exec(pod, &["curl", "-s", "-S", "--fail", "http://127.0.0.1:15020/metrics"]).ok().stdout
}

pub(crate) fn the_metrics_of_every_daemon_pass_promtools_linter(mesh: &Mesh) {
    let linter = repository().join("target/peers/promlint");
    if !linter.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI has it: .ci/run calls scripts/get-peers");
        println!("  left out: {} is not there (scripts/get-peers builds it; needs Go)", linter.display());
        return;
    }
    let _ = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
    let _ = mesh.browser().get("/nowhere", &[]).expect("the gateway answers");
    let of = |deployment: &str, container: &str| {
        let exec = ["local", "exec", deployment, "-n", "mesh-system", "-c", container, "--", "curl", "-k"];
        mesh.meshctl(&[&exec[..], &["-s", "-S", "--fail", "https://127.0.0.1:15014/metrics"]].concat()).ok().stdout
    };
    for (whose, text, holds) in [
        (PAGE, metrics(mesh, PAGE), "istio_requests_total{"),
        ("Pilot", of("deploy/mesh-pilot", "pilot"), "mesh_pilot_pushes_total{"),
        ("the CA", of("deploy/mesh-ca", "ca"), "mesh_ca_issued_total{"),
    ] {
        assert!(text.contains(holds), "{whose} counts nothing: {text}");
        let found = run_with_input(&mut Command::new(&linter), &text);
        assert!(found.code == 0 || found.code == 3, "{whose}: {found:?}");
        // The name is Istio's, and dashboards ask for it by that name.
        let known = "istio_request_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"";
        let rest: Vec<&str> = found.stderr.lines().filter(|line| *line != known).collect();
        assert!(rest.is_empty(), "{whose}: {rest:?}");
    }
}

pub(crate) fn both_sidecars_name_both_workloads_of_a_request(mesh: &Mesh) {
    let _ = mesh.exec(PAGE, &["curl", "-s", "http://reviews:9080/reviews/0"]).ok();
    // The other pod's proxy learns who is where some time after its endpoints have come.
    eventually(Duration::from_secs(10), || {
        let _ = mesh.exec(PAGE, &["curl", "-s", "http://details:9080/details/0"]).ok();
        for (pod, reporter) in [(PAGE, "source"), ("deploy/details-v1", "destination")] {
            let text = metrics(mesh, pod);
            let labels = [
                &format!("reporter=\"{reporter}\""),
                "source_workload=\"productpage-v1\"",
                "source_canonical_service=\"productpage\"",
                "destination_workload=\"details-v1\"",
                "destination_service=\"details.default.svc.cluster.local\"",
                "response_code=\"200\"",
            ];
            let is_there = |line: &str| labels.iter().all(|label| line.contains(label));
            if !text.lines().any(|line| line.starts_with("istio_requests_total{") && is_there(line)) {
                return Err(format!("{pod} does not count it so:\n{text}"));
            }
        }
        Ok(())
    });
}

pub(crate) fn a_page_is_one_trace_through_all_its_services(mesh: &Mesh) {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let _ = mesh.browser().get("/productpage", &[("traceparent", &parent)]).expect("the gateway answers");
    for pod in [PAGE, "deploy/details-v1"] {
        eventually(Duration::from_secs(5), || {
            let log = mesh.meshctl(&["local", "logs", pod, "-c", "mesh-proxy"]).ok().stdout;
            let is_there = access_log::lines(&log).any(|line| line.trace == TRACE);
            if is_there { Ok(()) } else { Err(format!("{pod} has no line of the trace:\n{log}")) }
        });
    }
}

pub(crate) fn log_levels_are_changed_while_daemons_run(mesh: &Mesh) {
    let pilot = mesh.json(&["get", "pods", "-n", "mesh-system", "-l", "app=mesh-pilot", "-o", "json"]);
    let pilot = pilot["items"][0]["metadata"]["name"].as_str().expect("a pod of Pilot").to_owned();
    for pod in [PAGE.to_owned(), format!("{pilot}.mesh-system")] {
        let log = |more: &[&str]| mesh.json(&[&["proxy-config", &pod, "log", "-o", "json"], more].concat());
        let before = log(&[]);
        let changed = log(&["--level", "h2:debug"]);
        assert_eq!((&changed["targets"]["h2"], &changed["level"]), (&"debug".into(), &before["level"]), "{changed}");
        assert_eq!(log(&["--level", "warn"]), serde_json::json!({"level": "warn", "targets": {}}));
        assert_eq!(log(&["--reset"]), before);
        let refused = mesh.meshctl(&["proxy-config", &pod, "log", "--level", "loud"]);
        assert_eq!(refused.code, 2, "{refused:?}");
    }
}

pub(crate) fn proxy_config_filters_by_host_subset_and_direction(mesh: &Mesh) {
    let names = |more: &[&str]| {
        let arguments = [&["proxy-config", PAGE, "clusters", "-o", "name"], more].concat();
        let ran = mesh.meshctl(&arguments).ok();
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_reviews = names(&["--fqdn", "reviews.default"]);
    assert!(
        !of_reviews.is_empty() && of_reviews.iter().all(|name| name.contains("|reviews.default.")),
        "{of_reviews:?}"
    );
    let inbound = names(&["--direction", "inbound"]);
    assert!(!inbound.is_empty() && inbound.iter().all(|name| name.starts_with("inbound")), "{inbound:?}");
    let all = mesh.meshctl(&["proxy-config", PAGE, "all"]).ok().stdout;
    for heading in ["ADDRESS", "ROUTES", "ENDPOINT"] {
        assert!(all.lines().any(|line| line.starts_with(heading)), "{heading} is missing:\n{all}");
    }
}
