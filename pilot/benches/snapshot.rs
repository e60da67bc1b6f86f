//! What a change costs Pilot, by the number of services: the next snapshot after one rule or one endpoint has changed,
//! and what a proxy that follows has to look at.

use api::model::{Key, Mesh, MeshTls, Role};
use api::registry::Resource;
use divan::{Bencher, black_box};
use mesh_pilot::registry::Registry;
use mesh_pilot::resource::Kind;
use mesh_pilot::snapshot::{Snapshot, View};
use mesh_pilot::source::Change;
use mesh_pilot::xds::state::View as _;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

const SERVICES: [u64; 2] = [100, 1_000];
const ENDPOINTS: u64 = 10;

/// A registry with so many services and a rule for each, and its first snapshot.
fn world(services: u64) -> (Registry, Snapshot) {
    let mut registry = Registry::new(Mesh::default());
    let all = |make: &dyn Fn(u64) -> Value| (0..services).map(make).collect::<Vec<_>>();
    registry.take_in(Change::All(Resource::Service, all(&service)), 1);
    registry.take_in(Change::All(Resource::EndpointSlice, all(&|at| slice(at, ENDPOINTS))), 1);
    registry.take_in(Change::All(Resource::Pod, vec![pod()]), 1);
    registry.take_in(Change::All(Resource::RouteRule { classic: false }, all(&|at| rule(at, "v1"))), 1);
    let first = registry.snapshot(&Snapshot::empty());
    (registry, first)
}

#[divan::bench(args = SERVICES, sample_count = 20)]
fn one_rule_changed(bencher: Bencher<'_, '_>, services: u64) {
    let (mut registry, mut snapshot) = world(services);
    let mut view = View::new(snapshot.clone().into(), Role::Sidecar, MeshTls::Own, key());
    let mut versions = ["v1", "v2"].into_iter().cycle();
    bencher.bench_local(|| {
        let rule = rule(0, versions.next().unwrap_or_default());
        let serial = snapshot.serial;
        registry.take_in(Change::Set(Resource::RouteRule { classic: false }, rule), serial + 1);
        snapshot = registry.snapshot(&snapshot);
        view.advance(snapshot.clone().into());
        black_box(view.changed_since(Kind::Route, serial))
    });
}

#[divan::bench(args = SERVICES, sample_count = 20)]
fn one_endpoint_changed(bencher: Bencher<'_, '_>, services: u64) {
    let (mut registry, mut snapshot) = world(services);
    let mut counts = [ENDPOINTS - 1, ENDPOINTS].into_iter().cycle();
    bencher.bench_local(|| {
        let slice = slice(0, counts.next().unwrap_or_default());
        registry.take_in(Change::Set(Resource::EndpointSlice, slice), snapshot.serial + 1);
        snapshot = registry.snapshot(&snapshot);
    });
}

#[divan::bench(args = [100, 1_000], sample_count = 3)]
fn everything_at_the_start(bencher: Bencher<'_, '_>, services: u64) {
    bencher.bench_local(|| black_box(world(services).1.serial));
}

fn key() -> Key {
    Key { namespace: "default".to_owned(), name: "caller".to_owned() }
}

fn service(at: u64) -> Value {
    let address = format!("10.96.{}.{}", at / 250, at % 250 + 1);
    json!({
        "metadata": {"name": format!("s{at}"), "namespace": "default"},
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "selector": {"app": format!("s{at}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn slice(at: u64, endpoints: u64) -> Value {
    let endpoint = |of: u64| {
        let number = at * ENDPOINTS + of;
        let address = format!("10.{}.{}.{}", number / 65_536 % 256, number / 256 % 256, number % 256);
        json!({"addresses": [address], "conditions": {"ready": true}})
    };
    json!({
        "metadata": {
            "name": format!("s{at}-x"), "namespace": "default", "labels": {"kubernetes.io/service-name": format!("s{at}")},
        },
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "caller", "namespace": "default", "labels": {"app": "s0"}},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": "10.250.0.1"},
    })
}

fn rule(at: u64, version: &str) -> Value {
    json!({
        "metadata": {"name": format!("r{at}"), "namespace": "default", "resourceVersion": "1"},
        "spec": {"destination": {"name": format!("s{at}")}, "route": [{"labels": {"version": version}}]},
    })
}
