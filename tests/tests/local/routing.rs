//! After each rule, requests go where it says.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use mesh_tests::mesh::Mesh;

use crate::life::under_load;
use crate::shares::is_about;

/// How many requests a distribution is read from.
pub(crate) const MANY: usize = 1000;

/// Sends requests from productpage's pod to reviews and counts the versions that answered.
pub(crate) fn reviews(mesh: &Mesh, count: usize, headers: &[&str]) -> BTreeMap<&'static str, usize> {
    let url = format!("http://reviews:9080/reviews/0?n=[1-{count}]");
    let mut command = vec!["curl", "-s", "-S", "-w", "\\n"];
    for header in headers {
        command.extend(["-H", header]);
    }
    command.push(&url);
    let ran = mesh.exec("deploy/productpage-v1", &command).ok();
    let mut seen = BTreeMap::new();
    for answer in ran.stdout.lines() {
        *seen.entry(version(answer)).or_default() += 1;
    }
    assert_eq!(seen.values().sum::<usize>(), count, "{}", ran.stderr);
    seen
}

fn version(answer: &str) -> &'static str {
    match answer {
        a if !a.contains("\"reviews\"") => "failed",
        a if a.contains("\"black\"") => "v2",
        a if a.contains("\"red\"") => "v3",
        a if a.contains("Ratings service is currently unavailable") => "no ratings",
        _ => "v1",
    }
}

fn create(mesh: &Mesh, file: &str) {
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample(file), "--wait"]).ok();
}

fn replace(mesh: &Mesh, file: &str) {
    let _ = mesh.meshctl(&["replace", "-f", &Mesh::sample(file), "--wait"]).ok();
}

pub(crate) fn without_rules_all_versions_are_seen(mesh: &Mesh) {
    mesh.without_rules();
    let seen = reviews(mesh, MANY, &[]);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["v1", "v2", "v3"], "{seen:?}");
}

pub(crate) fn all_v1_never_shows_stars(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    assert_eq!(reviews(mesh, MANY, &[]), BTreeMap::from([("v1", MANY)]));
    let mut browser = mesh.browser();
    for _ in 0..100 {
        let page = browser.get("/productpage", &[]).expect("the gateway answers");
        assert!(page.status == 200 && !page.body.contains("glyphicon-star"), "{}", page.body);
    }
}

pub(crate) fn jason_sees_v2_and_others_do_not(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    create(mesh, "route-rule-reviews-test-v2.yaml");
    assert_eq!(reviews(mesh, MANY, &["Cookie: user=jason"]), BTreeMap::from([("v2", MANY)]));
    assert_eq!(reviews(mesh, 100, &["Cookie: a=b; user=jasonX"]), BTreeMap::from([("v1", 100)]));
    let page = mesh.browser().get("/productpage", &[("Cookie", "user=jason")]).expect("the gateway answers");
    assert!(page.body.contains("color=\"black\""), "{}", page.body);
}

pub(crate) fn weights_are_followed(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    for (file, shares) in [
        ("route-rule-reviews-50-v3.yaml", [("v1", 50), ("v3", 50)]),
        ("route-rule-reviews-90-10.yaml", [("v1", 90), ("v2", 10)]),
        ("route-rule-reviews-80-20.yaml", [("v1", 80), ("v2", 20)]),
        ("route-rule-reviews-v2-v3.yaml", [("v2", 50), ("v3", 50)]),
    ] {
        replace(mesh, file);
        let seen = reviews(mesh, MANY, &[]);
        assert_eq!(seen.len(), 2, "{file}: {seen:?}");
        for (version, percent) in shares {
            assert!(is_about(seen.get(version).copied().unwrap_or(0), MANY, percent), "{file}: {seen:?}");
        }
    }
    replace(mesh, "route-rule-reviews-v3.yaml");
    assert_eq!(reviews(mesh, MANY, &[]), BTreeMap::from([("v3", MANY)]));
}

pub(crate) fn a_delay_is_waited_for_by_whom_it_is_meant(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    create(mesh, "route-rule-ratings-test-delay.yaml");
    let took = |headers: &[&str]| {
        let mut command = vec!["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{time_total}"];
        headers.iter().for_each(|h| command.extend(["-H", h]));
        command.push("http://ratings:9080/ratings/0");
        let printed = mesh.exec("deploy/reviews-v2", &command).ok().stdout;
        let (status, seconds) = printed.trim().split_once(' ').expect("status and seconds");
        (status.to_owned(), seconds.parse::<f64>().expect("seconds"))
    };
    let (status, seconds) = took(&["Cookie: user=jason"]);
    assert!(status == "200" && (7.0..9.0).contains(&seconds), "{status} after {seconds} s");
    let (status, seconds) = took(&[]);
    assert!(status == "200" && seconds < 2.0, "{status} after {seconds} s");
}

pub(crate) fn an_abort_is_answered_to_whom_it_is_meant(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    create(mesh, "route-rule-ratings-test-abort.yaml");
    create(mesh, "route-rule-reviews-test-v2.yaml");
    let statuses = |header: &str, count: usize| {
        let url = format!("http://ratings:9080/ratings/0?n=[1-{count}]");
        let command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}\\n", "-H", header, &url];
        mesh.exec("deploy/reviews-v2", &command).ok().stdout
    };
    assert_eq!(statuses("Cookie: user=jason", MANY), "500\n".repeat(MANY));
    assert_eq!(statuses("Cookie: user=other", 100), "200\n".repeat(100));
    let page = mesh.browser().get("/productpage", &[("Cookie", "user=jason")]).expect("the gateway answers");
    assert!(page.body.contains("Ratings service is currently unavailable"), "{}", page.body);
}

pub(crate) fn a_timeout_cuts_a_slow_answer_short(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    create(mesh, "route-rule-reviews-timeout.yaml");
    let delay = ["create", "route-rule", "slow-ratings", "--destination", "ratings", "--route", "version=v1:100"];
    let _ = mesh.meshctl(&[&delay[..], &["--precedence", "5", "--delay", "2s:100", "--wait"]].concat()).ok();
    let command = ["curl", "-s", "-i", "-w", "\\n%{time_total}", "http://reviews:9080/reviews/0"];
    let printed = mesh.exec("deploy/productpage-v1", &command).ok().stdout;
    assert!(printed.starts_with("HTTP/1.1 504"), "{printed}");
    assert!(printed.contains("x-mesh-failure: timeout"), "{printed}");
    let seconds: f64 = printed.lines().last().and_then(|l| l.parse().ok()).expect("seconds");
    assert!((0.5..1.9).contains(&seconds), "{seconds}");
    let page = mesh.browser().get("/productpage", &[]).expect("the gateway answers");
    assert!(page.body.contains("product reviews are currently unavailable"), "{}", page.body);
}

pub(crate) fn rules_of_the_classic_group_work_as_they_are(mesh: &Mesh) {
    mesh.without_rules();
    let text = std::fs::read_to_string(Mesh::sample("route-rule-all-v1.yaml")).expect("the sample is there");
    let classic = std::env::temp_dir().join(format!("classic-{}.yaml", std::process::id()));
    std::fs::write(&classic, text.replace("config.meshctl.io", "config.istio.io")).expect("a temporary file");
    let _ = mesh.meshctl(&["create", "-f", &classic.to_string_lossy(), "--wait"]).ok();
    assert_eq!(reviews(mesh, 200, &[]), BTreeMap::from([("v1", 200)]));
    let _ = std::fs::remove_file(classic);
}

pub(crate) fn while_rules_flip_no_request_fails(mesh: &Mesh) {
    mesh.without_rules();
    create(mesh, "route-rule-all-v1.yaml");
    let started = SystemTime::now();
    let sent = under_load(mesh, || {
        for flip in 0..200 {
            let version = if flip % 2 == 0 { "version=v3:100" } else { "version=v1:100" };
            let name = format!("flip-{}", flip % 3);
            let rule = ["--destination", "reviews", "--route", version, "--precedence", "7"];
            let command = [&["create", "route-rule", &name][..], &rule].concat();
            let _ = mesh.meshctl(&command).ok();
            let _ = mesh.meshctl(&["delete", "route-rule", &name]).ok();
        }
    });
    let took = started.elapsed().unwrap_or(Duration::ZERO);
    println!("  {sent} pages during 200 flips in {took:.1?}, none failed");
    assert!(sent > 100, "{sent}");
}
