//! One injection, in the webhook and offline.

use std::collections::BTreeMap;

use mesh_tests::mesh::Mesh;
use mesh_tests::programs::Scratch;
use serde_json::{Value, json};

/// What the API server sets in every pod, taken away: what is left is what Deployment and injection say.
fn as_said(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    let mut labels = pod["metadata"]["labels"].clone();
    let is_the_servers = |it: &Value| it["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access"));
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("pod-template-hash");
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeName");
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.retain(|volume| !is_the_servers(volume));
    }
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.get_mut("volumeMounts").and_then(Value::as_array_mut);
            if mounts.is_some_and(|mounts| {
                mounts.retain(|mount| !is_the_servers(mount));
                mounts.is_empty()
            }) {
                container.remove("volumeMounts");
            }
        }
    }
    // A file's status says how its text keeps what a probe was, the webhook's has the server's defaults in it.
    let status = pod["metadata"]["annotations"][api::names::STATUS].as_str().unwrap_or("null");
    let mut status: Value = serde_json::from_str(status).expect("the status is JSON");
    for probe in status["probes"].as_array_mut().into_iter().flatten() {
        *probe = json!([probe["container"], probe["probe"]]);
    }
    json!({"labels": labels, "status": status, "spec": spec})
}

fn app_and_version(pod: &Value) -> String {
    let labels = &pod["metadata"]["labels"];
    format!("{}-{}", labels["app"].as_str().unwrap_or_default(), labels["version"].as_str().unwrap_or_default())
}

pub(crate) fn the_webhook_gives_what_kube_inject_gives_offline(mesh: &Mesh) {
    let injected = mesh.meshctl(&["kube-inject", "-f", &Mesh::sample("bookinfo.yaml")]).ok().stdout;
    let (objects, problems) = api::object::validate_text("injected", &injected);
    assert!(problems.is_empty(), "{problems:?}");
    // Pods of the injected Deployments, with the server's defaults: it answers what it would hold, and keeps nothing.
    let offline: Vec<Value> = objects
        .iter()
        .filter(|object| object.json["kind"] == "Deployment")
        .map(|object| {
            let template = &object.json["spec"]["template"];
            let mut metadata = template["metadata"].clone();
            metadata["name"] =
                json!(format!("offline-{}", object.json["metadata"]["name"].as_str().unwrap_or_default()));
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        })
        .collect();
    assert_eq!(offline.len(), 6);
    let file =
        Scratch::file("offline.json", &json!({"apiVersion": "v1", "kind": "List", "items": offline}).to_string());
    let answer = mesh.json(&["create", "-f", file.path(), "--dry-run=server", "-o", "json"]);
    let offline: BTreeMap<String, Value> =
        answer["items"].as_array().expect("pods").iter().map(|pod| (app_and_version(pod), as_said(pod))).collect();
    let held = mesh.json(&["get", "pods", "-n", "default", "-l", "app", "-o", "json"]);
    let live: BTreeMap<String, Value> = held["items"]
        .as_array()
        .expect("pods")
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| (app_and_version(pod), as_said(pod)))
        .collect();
    assert_eq!(live.keys().collect::<Vec<_>>(), offline.keys().collect::<Vec<_>>());
    for (name, pod) in &live {
        assert_eq!(pod, &offline[name], "{name}:\n{pod:#}\n{:#}", offline[name]);
        assert_eq!(pod["spec"]["initContainers"][1]["name"], "mesh-proxy", "{name}: {pod:#}");
    }
}
