//! What is generated, as stock Envoy sees it: `envoy --mode validate` on the resources for bookinfo and the bootstrap.
//!
//! Needs the program: `ENVOY=/path/to/envoy`, or what `scripts/get-envoy` fetches, or `envoy` in `PATH`.
//! Without it the tests say so and pass, except where `CI` is set.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::process::Command;

use api::model::{Endpoint, MeshTls, Node, Protocol, Resolution, Service};
use engine::Kind;
use engine::generate::{self, Bootstrap, envoy_bootstrap};
use engine::text::to_json;
use serde_json::{Value, json};
use support::envoy::{Directory, program};
use support::*;

/// Runs `envoy --mode validate` on a configuration and gives its complaint.
fn validate(name: &str, config: &Value) -> Result<(), String> {
    let Some(program) = program() else { return Ok(()) };
    let directory = Directory::new(name);
    let file = directory.file("envoy.json", &config.to_string());
    let mut command = Command::new(&program);
    command.args(["--mode", "validate", "--use-dynamic-base-id", "--log-level", "error", "-c"]).arg(&file);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The resources of a node in one static bootstrap: what is asked for by name is written where it is asked for.
fn bootstrap_of(resources: &[generate::Resource]) -> Value {
    let shown = |kind: Kind| {
        let of_kind = resources.iter().filter(move |resource| resource.kind == kind);
        of_kind.map(move |resource| (resource.name.clone(), to_json(kind, &resource.body).unwrap()))
    };
    let routes: Vec<_> = shown(Kind::Route).collect();
    let mut listeners: Vec<Value> = shown(Kind::Listener).map(|(_, listener)| listener).collect();
    for listener in &mut listeners {
        inline_routes(listener, &routes);
    }
    let assignments: Vec<_> = shown(Kind::Endpoints).collect();
    let mut clusters: Vec<Value> = shown(Kind::Cluster).map(|(_, cluster)| cluster).collect();
    for cluster in &mut clusters {
        if cluster["type"] == "EDS" {
            let name = cluster["name"].as_str().unwrap().to_owned();
            let (_, assignment) = assignments.iter().find(|(of, _)| *of == name).unwrap();
            let map = cluster.as_object_mut().unwrap();
            map.remove("edsClusterConfig");
            map.insert("type".to_owned(), json!("STATIC"));
            map.insert("loadAssignment".to_owned(), assignment.clone());
        }
    }
    // Secrets come from a socket that the bootstrap names.
    clusters.push(json!({
        "name": api::messages::node_metadata::SDS_CLUSTER,
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "load_assignment": { "cluster_name": api::messages::node_metadata::SDS_CLUSTER, "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "pipe": { "path": "/var/run/secrets/mesh/sds.sock" } } } },
        ] }] },
    }));
    json!({
        "node": { "id": "sidecar~10.244.0.1~a.default~default.svc.cluster.local", "cluster": "a.default" },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

fn inline_routes(value: &mut Value, routes: &[(String, Value)]) {
    match value {
        Value::Object(map) => {
            if let Some(rds) = map.remove("rds") {
                let (_, table) = routes.iter().find(|(name, _)| rds["routeConfigName"] == name.as_str()).unwrap();
                map.insert("routeConfig".to_owned(), table.clone());
            }
            map.values_mut().for_each(|value| inline_routes(value, routes));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| inline_routes(value, routes)),
        _ => {}
    }
}

#[test]
fn envoy_accepts_everything_that_is_generated() {
    let mut model = with_rules();
    for (nth, mut rule) in every_kind_of_rule().into_iter().enumerate() {
        rule.precedence = 100 - i32::try_from(nth).unwrap();
        model.route_rules.insert(rule.key.clone(), rule.into());
    }
    for tls in [MeshTls::Own, MeshTls::Sds, MeshTls::None] {
        for (name, node) in [("sidecar", sidecar(&model, "reviews", "v2")), ("gateway", gateway())] {
            validate(name, &bootstrap_of(&generate::everything(&model, &Node { tls, ..node }))).unwrap();
        }
    }
    model.access = model_with(&samples(&ACCESS)).access;
    let guarded = sidecar(&model, "productpage", "v1");
    validate("guarded", &bootstrap_of(&generate::everything(&model, &guarded))).unwrap();
}

#[test]
fn envoy_accepts_ports_of_tls_and_addresses_of_ipv6() {
    for protocol in [Protocol::Https, Protocol::Auto, Protocol::Http] {
        let mut model = with_service(shop(protocol, "fd00:10:96::99".parse().unwrap()));
        let endpoint = Endpoint { service_port: port(443), ..model.endpoints[&host("ratings")][0].clone() };
        model.endpoints.insert(host("shop"), [endpoint].into());
        let accounts = model.accounts[&host("ratings")].clone();
        model.accounts.insert(host("shop"), accounts);
        let model = with_passthrough(model, "tls", &[("shop.example", "shop"), ("*.example", "ratings")]);
        let serving = Node { services: vec![host("ratings"), host("shop")], ..sidecar(&model, "ratings", "v1") };
        for (name, node) in [("sidecar", sidecar(&model, "reviews", "v2")), ("server", serving), ("gateway", gateway())]
        {
            validate(name, &bootstrap_of(&generate::everything(&model, &node))).unwrap();
        }
    }
}

#[test]
fn envoy_accepts_headless_services() {
    let mut model = with_service(shop(Protocol::Auto, "10.96.0.99".parse().unwrap()));
    let headless =
        Service { addresses: Vec::new(), resolution: Resolution::Headless, ..(*model.services[&host("shop")]).clone() };
    let endpoint = Endpoint { service_port: port(443), ..model.endpoints[&host("ratings")][0].clone() };
    model.services.insert(host("shop"), headless.into());
    model.endpoints.insert(host("shop"), [endpoint].into());
    for (name, node) in [("sidecar", sidecar(&model, "reviews", "v2")), ("gateway", gateway())] {
        let all = generate::everything(&model, &node);
        assert!(all.iter().any(|resource| resource.name == format!("outbound|443||{}", host("shop"))));
        validate(name, &bootstrap_of(&all)).unwrap();
    }
}

#[test]
fn envoy_accepts_the_bootstrap() {
    let directory = Directory::new("files");
    let file = |name: &str| directory.file(name, "x").display().to_string();
    let bootstrap = envoy_bootstrap(&Bootstrap {
        node_id: "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local".to_owned(),
        node_cluster: "reviews-v1.default".to_owned(),
        pilot_address: "mesh-pilot.mesh-system.svc:15012".to_owned(),
        pilot_name: "mesh-pilot.mesh-system.svc".to_owned(),
        root_file: file("root-cert.pem"),
        token_file: file("token"),
        admin_port: 0,
        sds_socket: Some(api::names::WORKLOAD_SOCKET.to_owned()),
    });
    validate("bootstrap", &bootstrap).unwrap();
}
