//! `local status`: whether the mesh runs, and what runs in it.

use api::names::{INGRESS_GATEWAY, SYSTEM_NAMESPACE};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Mesh;
use super::progress::{PodState, key};
use crate::App;
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
    let (pods, has_gateway) = app.block_on(async {
        let cluster = mesh.cluster().await?;
        let list = cluster.list(&known("pods")?, &Selection::default()).await?;
        let gateway = cluster.get(&known("services")?, SYSTEM_NAMESPACE, INGRESS_GATEWAY).await?;
        Ok((items(&list).cloned().collect::<Vec<Value>>(), gateway.is_some()))
    })?;
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
