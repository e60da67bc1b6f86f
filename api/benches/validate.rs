//! What it costs to read and judge configuration. Target: the file of 2,000 objects within 50 ms.

use std::fmt::Write as _;

use api::model::Mesh;
use api::object::{validate_object, validate_text};
use api::registry::{Registry, Resource};
use serde_json::json;

fn main() {
    divan::main();
}

/// A file of so many route rules and as many destination policies.
fn file(count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let _ = write!(
            text,
            "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata:\n  name: rule-{i}\n  namespace: default\nspec:\n  \
             destination:\n    name: service-{i}\n  precedence: 2\n  match:\n    request:\n      headers:\n        cookie:\n          \
             regex: \"^(.*?;)?(user=jason)(;.*)?$\"\n  route:\n  - labels:\n      version: v1\n    weight: 90\n  - labels:\n      \
             version: v2\n    weight: 10\n---\napiVersion: config.istio.io/v1alpha2\nkind: DestinationPolicy\nmetadata:\n  \
             name: policy-{i}\n  namespace: default\nspec:\n  destination:\n    name: service-{i}\n  loadBalancing:\n    name: RANDOM\n---\n"
        );
    }
    text
}

#[divan::bench(args = [1, 1000], sample_count = 10, sample_size = 1)]
fn text(bencher: divan::Bencher<'_, '_>, count: usize) {
    let text = file(count);
    bencher.bench(|| {
        let (objects, problems) = validate_text("bench.yaml", &text);
        assert!(problems.is_empty() && objects.len() == 2 * count);
    });
}

/// The part of the above that makes trees of text.
#[divan::bench(args = [1000], sample_count = 10, sample_size = 1)]
fn trees(bencher: divan::Bencher<'_, '_>, count: usize) {
    let text = file(count);
    bencher.bench(|| api::yaml::parse("bench.yaml", &text));
}

#[divan::bench]
fn object(bencher: divan::Bencher<'_, '_>) {
    let (objects, _) = validate_text("bench.yaml", &file(1));
    bencher.bench(|| validate_object(&objects[0].json));
}

/// One pod of one service of a thousand changes.
#[divan::bench]
fn registry_pod(bencher: divan::Bencher<'_, '_>) {
    let mut registry = Registry::new(Mesh::default());
    let pod = |i: usize, version: usize| {
        json!({
            "metadata": {"name": format!("p{i}"), "namespace": "default", "labels": {"app": format!("s{i}"), "version": format!("v{version}")}},
            "status": {"podIP": format!("10.244.{}.{}", i / 250, i % 250)},
        })
    };
    for i in 0..1000 {
        let name = format!("s{i}");
        registry.apply(Resource::Pod, &pod(i, 1));
        registry.apply(
            Resource::Service,
            &json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}}),
        );
        registry.apply(
            Resource::EndpointSlice,
            &json!({
                "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"addresses": [format!("10.244.{}.{}", i / 250, i % 250)], "targetRef": {"kind": "Pod", "name": format!("p{i}"), "namespace": "default"}}],
                "ports": [{"name": "http", "port": 80}],
            }),
        );
    }
    let changes = [pod(500, 2), pod(500, 3)];
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = 1 - turn;
        registry.apply(Resource::Pod, &changes[turn])
    });
}

#[divan::bench]
fn snapshot_of_a_thousand_rules(bencher: divan::Bencher<'_, '_>) {
    let mut registry = Registry::new(Mesh::default());
    let (objects, _) = validate_text("bench.yaml", &file(1000));
    for object in &objects {
        if let Some(resource) = Resource::of(&object.api_version, &object.kind) {
            registry.apply(resource, &object.json);
        }
    }
    bencher.bench(|| registry.model().clone());
}
