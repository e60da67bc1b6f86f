//! Pods come and go: more of them, new ones in the place of old ones, and only those that a change concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use mesh_tests::http::Client;
use mesh_tests::http2;
use mesh_tests::mesh::Mesh;
use mesh_tests::programs::{Scratch, eventually, program};
use serde_json::Value;

use crate::life::{Until, under_load};

/// Pods that are not on their way out, by `namespace/name`, each with the IDs of its running containers.
fn pods(mesh: &Mesh) -> BTreeMap<String, BTreeSet<String>> {
    let list = mesh.json(&["get", "pods", "-A", "-o", "json"]);
    let alive = list["items"].as_array().expect("a list").iter();
    let alive = alive.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ids = |pod: &Value| {
        let lists = [&pod["status"]["containerStatuses"], &pod["status"]["initContainerStatuses"]];
        let statuses = lists.into_iter().filter_map(Value::as_array).flatten();
        statuses.filter(|it| it["state"]["running"].is_object()).map(|it| text(&it["containerID"])).collect()
    };
    let key = |pod: &Value| format!("{}/{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    alive.map(|pod| (key(pod), ids(pod))).collect()
}

fn of<'a>(pods: &'a BTreeMap<String, BTreeSet<String>>, prefix: &'a str) -> Vec<&'a String> {
    pods.keys().filter(|name| name.contains(prefix)).collect()
}

pub(crate) fn a_deployment_is_scaled_and_all_of_its_pods_serve(mesh: &Mesh) {
    mesh.without_rules();
    let scaled = mesh.json(&["local", "scale", "deploy/details", "--replicas", "3", "--wait", "-o", "json"]);
    assert_eq!((&scaled["deployments"][0]["replicas"], &scaled["deployments"][0]["before"]), (&3.into(), &1.into()));
    assert_eq!(of(&pods(mesh), "/details-v1-").len(), 3);
    eventually(Duration::from_secs(10), || {
        let endpoints = mesh.meshctl(&["proxy-config", "deploy/productpage-v1", "endpoints"]).ok().stdout;
        let count = endpoints.lines().filter(|line| line.contains("details") && line.contains("9080")).count();
        if count == 3 { Ok(()) } else { Err(endpoints) }
    });
    let again = mesh.meshctl(&["local", "scale", "details-v1", "--replicas", "1", "--wait"]).ok();
    assert_eq!(again.stdout, "deployment.apps/details-v1 scaled to 1 pod (before: 3)\n");
    assert_eq!(of(&pods(mesh), "/details-v1-").len(), 1);
    let unknown = mesh.meshctl(&["local", "scale", "deploy/detail-v1", "--replicas", "1"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    for word in ["there is no deployment `detail-v1` in namespace default", "hint: did you mean `deploy/details-v1`?"] {
        assert!(unknown.stderr.contains(word), "{word}: {unknown:?}");
    }
}

/// A login, whose body has so many bytes.
fn login(bytes: usize) -> String {
    format!("username=jason&more={}", "x".repeat(bytes))
}

/// Logins by POST, each on a connection of its own, so that none of them is sent twice.
fn posts(mesh: &Mesh, over: &AtomicBool) -> usize {
    let (body, mut sent) = (login(8 * 1024), 0);
    while !over.load(Ordering::Relaxed) {
        let answer = Client::new(mesh.gateway()).post("/login", &[("Connection", "close")], &body);
        let answer = answer.unwrap_or_else(|error| panic!("POST {sent}: {error}"));
        assert_eq!(answer.status, 302, "POST {sent}: {}", answer.body);
        sent += 1;
    }
    sent
}

/// Pages and logins by turns, on one connection of HTTP/2 for as long as it lasts.
fn by_http2(mesh: &Mesh, over: &AtomicBool) -> usize {
    let mut client = http2::Client::new(mesh.gateway());
    let [small, large] = [1, 60].map(|kib| Bytes::from(login(kib * 1024)));
    let calls = [
        (Method::GET, "/productpage", Bytes::new(), 200),
        (Method::POST, "/login", small, 302),
        (Method::POST, "/login", large, 302),
    ];
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        for (method, path, body, status) in &calls {
            let answer = client.ask(method, path, body);
            let answer = answer.unwrap_or_else(|error| panic!("{method} {sent} by HTTP/2: {error:#}"));
            assert_eq!(answer.status, *status, "{method} {sent} by HTTP/2: {}", answer.body);
            assert!(!answer.body.contains("unavailable"), "{method} {sent} by HTTP/2: {}", answer.body);
            sent += 1;
        }
    }
    sent
}

pub(crate) fn every_pod_is_replaced_under_load_and_no_request_fails(mesh: &Mesh) {
    mesh.without_rules();
    let before = pods(mesh);
    let replace = || {
        let ran = mesh.meshctl(&["local", "restart", "--all", "--wait"]).ok();
        assert!(ran.stderr.contains("rolled out in"), "{ran:?}");
        // The old ones are still leaving.
        eventually(Duration::from_secs(40), || {
            let list = mesh.json(&["get", "pods", "-A", "-o", "json"]);
            let left: Vec<_> = list["items"].as_array().expect("a list").iter().collect();
            if left.len() == before.len() { Ok(()) } else { Err(format!("{} pods", left.len())) }
        });
    };
    let over = AtomicBool::new(false);
    let (sent, posted, by_http2) = std::thread::scope(|scope| {
        let (posting, by_http2) = (scope.spawn(|| posts(mesh, &over)), scope.spawn(|| by_http2(mesh, &over)));
        let end = Until(&over);
        let sent = under_load(mesh, replace);
        drop(end);
        (sent, posting.join().expect("no POST failed"), by_http2.join().expect("no request by HTTP/2 failed"))
    });
    let after = pods(mesh);
    assert_eq!(after.len(), before.len());
    let stayed: Vec<_> = after.keys().filter(|name| before.contains_key(*name)).collect();
    assert!(stayed.is_empty(), "not replaced: {stayed:?}");
    assert!(after.keys().any(|name| name.starts_with("mesh-system/mesh-pilot-")), "{after:?}");
    assert!(after.keys().any(|name| name.starts_with("mesh-system/mesh-ingressgateway-")), "{after:?}");
    let pods = before.len();
    println!(
        "  {sent} pages, {posted} POSTs and {by_http2} requests by HTTP/2 while {pods} pods were replaced, none failed"
    );
    assert!([sent, posted, by_http2].iter().all(|sent| *sent > pods), "that is no load");
}

pub(crate) fn a_changed_file_restarts_only_what_it_changes(mesh: &Mesh) {
    let text = std::fs::read_to_string(Mesh::sample("bookinfo.yaml")).expect("the sample");
    let same = mesh.meshctl(&["local", "up", "-f", &Mesh::sample("bookinfo.yaml")]).ok();
    assert!(same.stderr.contains("nothing in the files has changed"), "{same:?}");
    let before = pods(mesh);
    let container = "image: mesh/examples-bookinfo-ratings-v1:1.0.0";
    assert_eq!(text.matches(container).count(), 1, "the sample has one container of ratings");
    let indent =
        text.lines().find(|line| line.contains(container)).map_or(0, |line| line.len() - line.trim_start().len());
    let pad = " ".repeat(indent);
    let changed = format!("{container}\n{pad}env:\n{pad}- name: CHANGED\n{pad}  value: \"1\"");
    let file = Scratch::file("changed-bookinfo.yaml", &text.replace(container, &changed));
    let ran = mesh.meshctl(&["local", "up", "-f", file.path()]).ok();
    let said: Vec<&str> =
        ran.stderr.lines().filter(|line| line.contains("configured") || line.contains("updated")).collect();
    assert!(said.len() == 1 && said[0].contains("ratings-v1"), "{ran:?}");
    let after = eventually(Duration::from_secs(20), || {
        let after = pods(mesh);
        if after.len() == before.len() { Ok(after) } else { Err(format!("{after:?}")) }
    });
    let new: Vec<&String> =
        after.iter().filter(|(name, ids)| before.get(*name) != Some(ids)).map(|(name, _)| name).collect();
    assert!(new.len() == 1 && new[0].contains("/ratings-v1-"), "every other container runs on: {new:?}");
    let env = mesh.exec("deploy/ratings-v1", &["sh", "-c", "echo $CHANGED"]).ok();
    assert_eq!(env.stdout, "1\n");
    let _ = mesh.meshctl(&["local", "up", "-f", &Mesh::sample("bookinfo.yaml")]).ok();
}

/// A program of one's own, which is built anew while it runs.
struct Built(PathBuf);

impl Built {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("{}-built", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        let built = Built(directory);
        built.build();
        built
    }

    fn path(&self) -> String {
        self.0.join("app").to_string_lossy().into_owned()
    }

    /// Puts a new file in the place of the old one, as a linker does.
    fn build(&self) {
        let new = self.0.join("app.new");
        let _ = std::fs::copy(program("bookinfo"), &new).expect("copied");
        std::fs::rename(new, self.path()).expect("renamed");
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const OWN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: own}
spec:
  selector: {matchLabels: {app: own}}
  template:
    metadata: {labels: {app: own}}
    spec:
      containers:
      - {name: app, image: own/app, readinessProbe: {httpGet: {path: /health, port: 9080}}}
";

pub(crate) fn a_rebuilt_program_is_picked_up(mesh: &Mesh) {
    let (built, file) = (Built::new(), Scratch::file("own.yaml", OWN));
    let image = format!("own/app={} ratings", built.path());
    let _ = mesh.meshctl(&["local", "up", "-f", file.path(), "--image", &image]).ok();
    let nothing = mesh.meshctl(&["local", "restart"]).ok();
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("no program has changed"), "{nothing:?}");
    let before = pods(mesh);
    built.build();
    let ran = mesh.meshctl(&["local", "restart", "--wait"]).ok();
    assert_eq!(ran.stdout, "deployment.apps/own restarted (new: app)\n", "{ran:?}");
    let after = pods(mesh);
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.len() == 1 && new[0].starts_with("default/own-"), "{new:?}");
    let nothing = mesh.meshctl(&["local", "restart", "-o", "json"]).ok();
    assert!(nothing.stdout.contains("\"deployments\": []"), "{nothing:?}");
    let _ = mesh.meshctl(&["delete", "-f", file.path()]).ok();
}

pub(crate) fn what_was_made_is_exported_and_can_be_applied_again(mesh: &Mesh) {
    mesh.without_rules();
    let _ = mesh.meshctl(&["create", "-f", &Mesh::sample("route-rule-reviews-v3.yaml")]).ok();
    let exported = mesh.meshctl(&["local", "export"]).ok().stdout;
    let (objects, problems) = api::object::validate_text("exported", &exported);
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:?}");
    let kinds: BTreeSet<_> = objects.iter().filter_map(|it| it.json["kind"].as_str()).collect();
    assert_eq!(kinds, ["Deployment", "Ingress", "RouteRule", "Service", "ServiceAccount"].into());
    for word in ["mesh-proxy", "mesh-system", "resourceVersion", "kube-root-ca.crt"] {
        assert!(!exported.contains(word), "{word} is not what a user has made:\n{exported}");
    }
    let before = pods(mesh);
    let file = Scratch::file("exported.yaml", &exported);
    let again = mesh.meshctl(&["local", "up", "-f", file.path()]).ok();
    assert!(again.stderr.contains("is up after"), "{again:?}");
    assert_eq!(pods(mesh), before, "what is applied again changes no pod");
    mesh.without_rules();
}
