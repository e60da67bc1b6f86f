//! What is generated, as stock Envoy sees it: `envoy --mode validate` on the resources for bookinfo and on the bootstrap.
//!
//! Needs the program: `ENVOY=/path/to/envoy`, or what `scripts/get-envoy` fetches, or `envoy` in `PATH`.
//! Without it the tests say so and pass, except where `CI` is set.

mod support;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use engine::Kind;
use engine::generate::{self, Bootstrap, envoy_bootstrap};
use engine::text::to_json;
use serde_json::{Value, json};
use support::*;

/// Runs `envoy --mode validate` on a configuration and gives its complaint.
fn validate(name: &str, config: &Value) -> Result<(), String> {
    let program = program();
    let directory = std::env::temp_dir().join(format!("engine-envoy-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let file = directory.join(format!("{name}.json"));
    fs::write(&file, config.to_string()).map_err(|error| error.to_string())?;
    let output = Command::new(&program).args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&file).output();
    let result = match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) if std::env::var_os("CI").is_some() => Err(format!("{}: {error}", program.display())),
        Err(error) => {
            eprintln!("left out: {} does not start ({error}); set ENVOY", program.display());
            Ok(())
        }
    };
    fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
    result
}

/// Envoy: what `ENVOY` names, else what `scripts/get-envoy` has put under `target`, else what `PATH` has.
fn program() -> OsString {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/envoy/bin/envoy");
    std::env::var_os("ENVOY").unwrap_or_else(|| if fetched.exists() { fetched.into() } else { "envoy".into() })
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
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
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
    for (nth, rule) in every_kind_of_rule().into_iter().enumerate() {
        let mut rule = rule;
        rule.precedence = 100 - i32::try_from(nth).unwrap();
        model.route_rules.insert(rule.key.clone(), rule.into());
    }
    for (name, node) in [("sidecar", sidecar(&model, "reviews", "v2")), ("gateway", gateway())] {
        validate(name, &bootstrap_of(&generate::everything(&model, &node))).unwrap();
    }
}

#[test]
fn envoy_accepts_the_bootstrap() {
    let directory = std::env::temp_dir().join(format!("engine-bootstrap-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for file in ["root-cert.pem", "token"] {
        fs::write(directory.join(file), "x").unwrap();
    }
    let file = |name: &str| directory.join(name).display().to_string();
    let bootstrap = envoy_bootstrap(&Bootstrap {
        node_id: "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local".to_owned(),
        node_cluster: "reviews-v1.default".to_owned(),
        pilot_address: "mesh-pilot.mesh-system.svc:15012".to_owned(),
        pilot_name: "mesh-pilot.mesh-system.svc".to_owned(),
        root_file: file("root-cert.pem"),
        token_file: file("token"),
        admin_port: 0,
    });
    let result = validate("bootstrap", &bootstrap);
    fs::remove_dir_all(&directory).unwrap();
    result.unwrap();
}
