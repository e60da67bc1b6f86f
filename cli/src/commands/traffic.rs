//! `--dry-run=traffic`: whom authentication policies would cut off, by what proxies have seen of callers in clear text.
//!
//! What would hold is decided by the code that Pilot decides with, on the objects of the mesh and the new ones.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use api::kubernetes::Pod;
use api::messages::{ClearTextCaller, ClearTextCallers};
use api::model::{Key, Model, MtlsMode, Node, Role};
use api::registry::Resource;
use engine::generate::mtls_at;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::describe::live::Live;
use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, Exit, count};
use crate::mesh;
use crate::objects::Object;
use crate::output::Format;
use crate::resources::text;
use crate::table::{Table, age};

/// Somebody who would be cut off.
struct CutOff {
    /// The workload that calls, or nothing that is known.
    caller: Option<Key>,
    seen: ClearTextCaller,
    /// The pod that is called, and the service at that port.
    pod: Key,
    service: Option<String>,
    /// What would keep the caller out.
    by: String,
}

/// What was found out.
#[derive(Default)]
struct Findings {
    cut_off: Vec<CutOff>,
    /// Proxies that were asked.
    asked: usize,
    /// Connections of callers for whom a proxy had no room.
    others: u64,
    /// Pods whose proxies did not answer, with the reason.
    silent: Vec<String>,
}

/// Asks every proxy concerned whom it has seen in clear text, and tells those that the policies would keep out.
///
/// # Errors
/// When the objects are not authentication policies, the mesh cannot be asked, or somebody would be cut off.
pub fn run(app: &App, objects: &[Object], format: &Format) -> Result<(), Error> {
    let policies = objects.iter().filter_map(|object| {
        let word = |field| text(&object.value, &[field]).unwrap_or_default();
        let resource = Resource::of(word("apiVersion"), word("kind"))?;
        matches!(resource, Resource::AuthenticationPolicy { .. }).then_some((resource, &object.value))
    });
    let policies: Vec<(Resource, &Value)> = policies.collect();
    if policies.is_empty() {
        return Err(Error::usage(
            "--dry-run=traffic says whom authentication policies would cut off, and there is none",
        )
        .hint("for other objects there are `--dry-run=client` and `--dry-run=server`"));
    }
    let findings = app.block_on(async {
        let cluster = app.cluster().await?;
        let live = Live::load(&cluster).await?;
        let mut changed = live.registry.clone();
        for (resource, object) in policies {
            let mut object = object.clone();
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.entry("namespace").or_insert_with(|| json!(app.namespace(&cluster)));
            }
            changed.apply(resource, &object);
        }
        Ok(findings(&cluster, &live, changed.model()).await)
    })?;
    show(app, &findings, format)?;
    if findings.cut_off.is_empty() && findings.silent.is_empty() {
        return Ok(());
    }
    if findings.cut_off.is_empty() {
        return Err(Error::failed(format!(
            "{} did not answer, so nobody knows who calls there",
            count(findings.silent.len(), "proxy")
        )));
    }
    match format {
        Format::Table | Format::Wide => {
            Err(Error::failed(format!("{} would be cut off", count(findings.cut_off.len(), "caller"))).hint(HINT))
        }
        _ => Err(Error::said(Exit::Failed)),
    }
}

const HINT: &str = "give these callers a sidecar, or leave the ports that they call PERMISSIVE by a policy with `--service` and `--port`";

async fn findings(cluster: &Cluster, live: &Live, after: &Model) -> Findings {
    let before = live.registry.model();
    let pods: Vec<(Node, &Value)> = live
        .registry
        .workloads()
        .filter(|workload| workload.has_sidecar)
        .filter_map(|workload| {
            let object = live.object("Pod", &workload.key)?;
            // A gateway takes connections from anybody.
            let is_injected =
                object.pointer("/metadata/annotations").and_then(|all| all.get(api::names::STATUS)).is_some();
            is_injected.then_some(())?;
            Some((live.registry.node(&workload.key, Role::Sidecar)?, object))
        })
        .collect();
    let answers = join_all(pods.iter().map(|(_, pod)| async move {
        let mut admin = mesh::proxy_admin(cluster, pod).await?;
        admin.get::<ClearTextCallers>("/clear_text_callers").await
    }));
    let owners = owners(live);
    let mut findings = Findings::default();
    for ((node, _), answer) in pods.iter().zip(answers.await) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                findings.silent.push(format!("{}: {}", node.workload.key, error.message()));
                continue;
            }
        };
        findings.asked += 1;
        findings.others += answer.others;
        for seen in answer.callers {
            let Some(port) = NonZeroU16::new(seen.port) else { continue };
            let (mode, said) = mtls_at(after, node, port);
            if mode != MtlsMode::Strict || mtls_at(before, node, port).0 == MtlsMode::Strict {
                continue;
            }
            let named = Key { namespace: seen.namespace.clone(), name: seen.workload.clone() };
            let caller = Some(named).filter(|key| !key.name.is_empty()).or_else(|| owners.get(&seen.address).cloned());
            let service = service(after, node, port);
            let by = said.to_string();
            findings.cut_off.push(CutOff { caller, seen, pod: node.workload.key.clone(), service, by });
        }
    }
    findings
}

/// What owns the pod at each address. An address that several pods share says nothing.
fn owners(live: &Live) -> BTreeMap<String, Key> {
    let mut owners: BTreeMap<String, Option<Key>> = BTreeMap::new();
    for object in live.objects("Pod") {
        let Ok(pod) = Pod::deserialize(object) else { continue };
        if pod.is_over() || pod.status.pod_ip.is_empty() {
            continue;
        }
        let owner = Key { namespace: pod.metadata.key().namespace, name: pod.owner() };
        let known = owners.entry(pod.status.pod_ip.clone()).or_insert_with(|| Some(owner.clone()));
        if known.as_ref() != Some(&owner) {
            *known = None;
        }
    }
    owners.into_iter().filter_map(|(address, owner)| Some((address, owner?))).collect()
}

/// The service at a port of a workload, with its own port.
fn service(model: &Model, node: &Node, port: NonZeroU16) -> Option<String> {
    node.services.iter().find_map(|host| {
        let service = model.services.get(host)?;
        let endpoint =
            model.endpoints.get(host)?.iter().find(|it| it.workload.key == node.workload.key && it.port == port)?;
        Some(format!("{}:{}", service.key, endpoint.service_port))
    })
}

fn show(app: &App, findings: &Findings, format: &Format) -> Result<(), Error> {
    let value = || {
        let cut_off = findings.cut_off.iter().map(|it| {
            json!({
                "caller": it.caller.as_ref().map(|key| json!({ "namespace": key.namespace, "workload": key.name })),
                "address": it.seen.address,
                "pod": { "namespace": it.pod.namespace, "name": it.pod.name },
                "port": it.seen.port,
                "service": it.service,
                "connections": it.seen.connections,
                "lastSeen": it.seen.last_seen,
                "policy": it.by,
            })
        });
        json!({
            "wouldCutOff": cut_off.collect::<Vec<_>>(), "proxies": findings.asked, "untold": findings.others,
            "unanswered": findings.silent,
        })
    };
    match format {
        Format::Json => app.ui.json(&value())?,
        Format::Yaml => app.ui.yaml(&value())?,
        Format::JsonPath(template) => app.ui.print(&template.render(&value()))?,
        Format::Name => {
            findings.cut_off.iter().try_for_each(|it| app.ui.line(&caller(it)))?;
        }
        Format::Table | Format::Wide => table(app, findings)?,
    }
    for silent in &findings.silent {
        app.ui.warn(&format!("no answer from the proxy of {silent}"));
    }
    if findings.others > 0 {
        app.ui.warn(&format!(
            "{} of further callers, for whom there was no room",
            count(usize::try_from(findings.others).unwrap_or(usize::MAX), "connection")
        ));
    }
    Ok(())
}

fn table(app: &App, findings: &Findings) -> Result<(), Error> {
    if findings.cut_off.is_empty() {
        let proxies = count(findings.asked, "proxy");
        return app
            .ui
            .line(&format!("nobody would be cut off: {proxies} saw no caller in clear text there since they started"));
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["CALLER", "ADDRESS", "CALLS", "AT POD", "CONNECTIONS", "LAST SEEN"]);
    for it in &findings.cut_off {
        let service = it.service.clone().unwrap_or_else(|| format!("port {}", it.seen.port));
        let seen = &it.seen;
        table.row(vec![
            caller(it),
            seen.address.clone(),
            service,
            it.pod.to_string(),
            seen.connections.to_string(),
            age(&seen.last_seen, now),
        ]);
    }
    app.ui.print(&table.to_text(true))
}

/// Who calls, as far as that is known.
fn caller(it: &CutOff) -> String {
    it.caller.as_ref().map_or_else(|| format!("{} (no pod)", it.seen.address), ToString::to_string)
}
