//! `proxy-config POD bootstrap`: what the pod's proxy was started with, and the same for a stock Envoy.

use std::path::{Path, PathBuf};

use api::names::{
    DEFAULT_DOMAIN, PILOT, PROXY_CONTAINER, PROXY_DIR, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, pilot_port, proxy_port,
};
use engine::generate::Bootstrap;
use serde_json::{Value, json};

use super::ConfigArgs;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, io_words};
use crate::mesh::known;
use crate::output::Format;
use crate::resources::{name_of, namespace_of, text};
use crate::table::Table;

pub(super) async fn run(app: &App, cluster: &Cluster, pod: &Value, args: &ConfigArgs) -> Result<(), Error> {
    if !args.envoy {
        return settings(app, pod, &args.output);
    }
    let dir = match &args.files {
        None => PathBuf::from(PROXY_DIR),
        Some(dir) => {
            write_files(cluster, pod, dir).await?;
            app.ui.say(&app.ui.err.dim(&format!("wrote root-cert.pem and token to {}", dir.display())));
            std::path::absolute(dir).unwrap_or_else(|_| dir.clone())
        }
    };
    let bootstrap = envoy(pod, &dir, (args.pilot_address.as_deref(), args.sds_socket.as_deref()));
    match &args.output {
        Format::Json => app.ui.json(&bootstrap),
        Format::JsonPath(template) => app.ui.print(&template.render(&bootstrap)),
        _ => app.ui.yaml(&bootstrap),
    }
}

/// Writes what the bootstrap refers to: the root of Pilot's certificate, and a fresh token of the pod.
async fn write_files(cluster: &Cluster, pod: &Value, dir: &Path) -> Result<(), Error> {
    let root = cluster
        .get(&known("configmaps")?, SYSTEM_NAMESPACE, "mesh-root")
        .await?
        .and_then(|map| text(&map, &["data", "root-cert.pem"]).map(str::to_owned))
        .ok_or_else(|| {
            Error::failed("ConfigMap mesh-system/mesh-root is not there")
                .hint("is the mesh installed? `meshctl install`")
        })?;
    let token = token(cluster, pod).await?;
    let failed = |e: std::io::Error| Error::failed(format!("cannot write to {}", dir.display())).because(io_words(&e));
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(dir.join("root-cert.pem"), root).map_err(failed)?;
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600).write(true).create(true).truncate(true);
    let mut file = options.open(dir.join("token")).map_err(failed)?;
    std::io::Write::write_all(&mut file, token.as_bytes()).map_err(failed)
}

/// What the proxy's container was given.
fn settings(app: &App, pod: &Value, format: &Format) -> Result<(), Error> {
    let container = ["initContainers", "containers"]
        .iter()
        .filter_map(|list| pod.pointer(&format!("/spec/{list}"))?.as_array())
        .flatten()
        .find(|container| text(container, &["name"]) == Some(PROXY_CONTAINER))
        .ok_or_else(|| Error::failed(format!("pod {}/{} has no proxy", namespace_of(pod), name_of(pod))))?;
    match format {
        Format::Json => return app.ui.json(container),
        Format::Yaml => return app.ui.yaml(container),
        Format::JsonPath(template) => return app.ui.print(&template.render(container)),
        _ => {}
    }
    let mut table = Table::new(&["SETTING", "VALUE"]);
    for field in ["image", "command", "args"] {
        if let Some(value) = container.get(field) {
            let words = match value {
                Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                other => other.as_str().unwrap_or_default().to_owned(),
            };
            table.row(vec![field.to_owned(), words]);
        }
    }
    for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
        let value = text(variable, &["value"]).map(|value| value.lines().next().unwrap_or_default().to_owned());
        let from = text(variable, &["valueFrom", "fieldRef", "fieldPath"]).map(|path| format!("({path})"));
        table.row(vec![name_of_variable(variable), value.or(from).unwrap_or_default()]);
    }
    app.ui.print(&table.to_text(true))
}

fn name_of_variable(variable: &Value) -> String {
    text(variable, &["name"]).unwrap_or_default().to_owned()
}

/// A token with which this pod's proxy proves itself to Pilot.
async fn token(cluster: &Cluster, pod: &Value) -> Result<String, Error> {
    let (namespace, name) = (namespace_of(pod), name_of(pod));
    let account = text(pod, &["spec", "serviceAccountName"]).unwrap_or("default");
    let uid = text(pod, &["metadata", "uid"]).unwrap_or_default();
    let ask = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600,
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid },
        },
    });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let answer = cluster.post(&path, &ask).await?;
    text(&answer, &["status", "token"]).map(str::to_owned).ok_or_else(|| Error::failed("the API server gave no token"))
}

/// A bootstrap with which a stock Envoy takes the place of the pod's proxy towards Pilot.
fn envoy(pod: &Value, dir: &Path, (pilot_address, sds_socket): (Option<&str>, Option<&str>)) -> Value {
    let (namespace, name) = (namespace_of(pod), name_of(pod));
    let ip = text(pod, &["status", "podIP"]).unwrap_or_default();
    let is_gateway = pod.pointer("/spec/containers").and_then(Value::as_array).is_some_and(|containers| {
        containers.iter().any(|container| text(container, &["name"]) == Some(PROXY_CONTAINER))
    });
    let role = if is_gateway { "gateway" } else { "sidecar" };
    // A Deployment's pods belong to its ReplicaSet, whose name is the Deployment's and a hash.
    let owner = text(pod, &["metadata", "labels", "pod-template-hash"])
        .and_then(|hash| name.split_once(&format!("-{hash}")))
        .map_or(name, |(owner, _)| owner);
    let pilot = format!("{PILOT}.{SYSTEM_NAMESPACE}.svc");
    let file = |name: &str| dir.join(name).display().to_string();
    engine::generate::envoy_bootstrap(&Bootstrap {
        node_id: format!("{role}~{ip}~{name}.{namespace}~{namespace}.svc.{DEFAULT_DOMAIN}"),
        node_cluster: format!("{owner}.{namespace}"),
        pilot_address: pilot_address.map_or_else(|| format!("{pilot}:{}", pilot_port::XDS), str::to_owned),
        pilot_name: pilot,
        root_file: file("root-cert.pem"),
        token_file: file("token"),
        admin_port: proxy_port::ADMIN,
        sds_socket: sds_socket.map(str::to_owned),
    })
}
