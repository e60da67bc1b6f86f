//! `local status`: whether the mesh runs, and what runs in it.

use api::names::{INGRESS_GATEWAY, SYSTEM_NAMESPACE};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Mesh;
use super::progress::{PodState, key};
use crate::app::App;
use crate::cluster::Selection;
use crate::error::{Error, Exit};
use crate::mesh::{items, known};
use crate::output::Format;
use crate::pod::{containers, phase, restarts};
use crate::resources::{name_of, namespace_of, text};
use crate::table::{Table, age};

const EXAMPLES: &str = "\
Examples:
  meshctl local status
  # The gateway's address, for a script
  meshctl local status -o jsonpath={.gateway}";

/// Arguments of `local status`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    /// Format of the answer: table|json|yaml|jsonpath=TEMPLATE
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs `local status`.
///
/// # Errors
/// When the mesh does not run or does not answer.
pub(super) fn run(app: &App, mesh: &Mesh, args: &StatusArgs) -> Result<(), Error> {
    let Some(record) = mesh.record()? else {
        let value = json!({ "name": mesh.name, "running": false, "stateDir": mesh.dir });
        return match &args.output {
            Format::Json => app.ui.json(&value).and(Err(Error::said(Exit::Unreachable))),
            Format::Yaml => app.ui.yaml(&value).and(Err(Error::said(Exit::Unreachable))),
            _ => Err(mesh.not_running()),
        };
    };
    let (pods, services) = app.block_on(async {
        let cluster = mesh.cluster().await?;
        let list = cluster.list(&known("pods")?, &Selection::default()).await?;
        let services = cluster.list(&known("services")?, &Selection::default()).await?;
        Ok((items(&list).cloned().collect::<Vec<Value>>(), services))
    })?;
    let is_gateway = |service: &Value| namespace_of(service) == SYSTEM_NAMESPACE && name_of(service) == INGRESS_GATEWAY;
    let has_gateway = items(&services).any(is_gateway);
    // The gateway's first port has a line of its own.
    let is_first = |port: &Value| port["service"] == INGRESS_GATEWAY && port["port"] == 80;
    let host_ports: Vec<Value> = items(&services).flat_map(host_ports).filter(|port| !is_first(port)).collect();
    let gateway =
        record.host_ports.first().filter(|_| has_gateway).map(|port| format!("http://127.0.0.1:{}", port.port));
    let value = || {
        json!({
            "name": mesh.name,
            "running": true,
            "version": record.version,
            "pid": record.pid,
            "started": record.started,
            "api": format!("https://{}", record.api),
            "gateway": gateway,
            "hostPorts": host_ports,
            "kubeconfig": mesh.dir.join("kubeconfig"),
            "stateDir": mesh.dir,
            "pods": pods.iter().map(pod_value).collect::<Vec<_>>(),
        })
    };
    match &args.output {
        Format::Json => return app.ui.json(&value()),
        Format::Yaml => return app.ui.yaml(&value()),
        Format::JsonPath(template) => return app.ui.line(&template.render(&value())),
        Format::Name => return pods.iter().try_for_each(|pod| app.ui.line(&format!("pod/{}", name_of(pod)))),
        Format::Table | Format::Wide => {}
    }
    let now = Timestamp::now();
    let up = age(&record.started, now);
    app.ui.line(&format!("mesh      {} (version {}, up {up}, process {})", mesh.name, record.version, record.pid))?;
    app.ui.line(&format!("gateway   {}", gateway.as_deref().unwrap_or("none")))?;
    for port in &host_ports {
        let text = |field: &str| port[field].as_str().unwrap_or_default();
        let place = format!("{}/{}:{}", text("namespace"), text("service"), port["port"]);
        app.ui.line(&format!("port      127.0.0.1:{} -> service {place}", port["hostPort"]))?;
    }
    app.ui.line(&format!("state     {}", mesh.dir.display()))?;
    app.ui.line("")?;
    if pods.is_empty() {
        return app.ui.line("no pods");
    }
    app.ui.print(&table(app, &pods, now).to_text(true))?;
    for pod in &pods {
        if let PodState::Failing(why) = PodState::of(pod) {
            app.ui.warn(&format!("{}: {}: {}", key(pod), why.container, why.message));
        }
    }
    Ok(())
}

/// The ports of this machine that lead to a Service of type LoadBalancer.
fn host_ports(service: &Value) -> Vec<Value> {
    let noted = text(service, &["metadata", "annotations", "local.meshctl.io/host-ports"]).unwrap_or_default();
    let ports: serde_json::Map<String, Value> = serde_json::from_str(noted).unwrap_or_default();
    let is_balanced = text(service, &["spec", "type"]) == Some("LoadBalancer");
    let facts = |(port, host): (String, Value)| {
        let port: u16 = port.parse().ok()?;
        Some(json!({ "namespace": namespace_of(service), "service": name_of(service), "port": port, "hostPort": host }))
    };
    ports.into_iter().filter(|_| is_balanced).filter_map(facts).collect()
}

fn table(app: &App, pods: &[Value], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE", "IP"]);
    for pod in pods {
        let (ready, all) = containers(pod);
        let status = match PodState::of(pod) {
            PodState::Ready => app.ui.out.good(phase(pod)),
            PodState::Starting(what) => app.ui.out.warning(&what),
            PodState::Failing(why) => app.ui.out.error(&format!("{}: {}", why.container, why.reason)),
        };
        table.row(vec![
            namespace_of(pod).to_owned(),
            name_of(pod).to_owned(),
            format!("{ready}/{all}"),
            status,
            restarts(pod).to_string(),
            text(pod, &["metadata", "creationTimestamp"]).map(|since| age(since, now)).unwrap_or_default(),
            text(pod, &["status", "podIP"]).unwrap_or_default().to_owned(),
        ]);
    }
    table
}

fn pod_value(pod: &Value) -> Value {
    let (ready, all) = containers(pod);
    let mut value = json!({
        "namespace": namespace_of(pod),
        "name": name_of(pod),
        "ready": PodState::of(pod) == PodState::Ready,
        "containersReady": ready,
        "containers": all,
        "phase": phase(pod),
        "restarts": restarts(pod),
        "ip": text(pod, &["status", "podIP"]),
    });
    if let PodState::Failing(why) = PodState::of(pod) {
        value["problem"] = json!({ "container": why.container, "reason": why.reason, "message": why.message });
    }
    value
}
