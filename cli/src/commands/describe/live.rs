//! What the mesh is made of right now.

use std::sync::Arc;

use api::messages::{Proxies, ProxyStatus};
use api::model::{DestinationPolicy, Host, Key, Labels, Mesh, Model, RouteRule};
use api::registry::{Registry, Resource as Source};
use futures_util::future::join_all;
use serde_json::Value;

use super::report::Report;
use crate::cluster::{Cluster, Selection};
use crate::columns;
use crate::error::Error;
use crate::mesh::{self, Daemon, items};
use crate::resources::{Resource, name_of, namespace_of, text};
use crate::table::age;
use crate::wait::{self, Change};

/// The objects of the mesh, the model that follows from them, and who knows what proxies have.
pub(in crate::commands) struct Live {
    pub(in crate::commands) registry: Registry,
    objects: Vec<(Source, Value)>,
    pilots: Result<Vec<Daemon>, Error>,
    /// What could not be listed, and why.
    pub(super) not_listed: Vec<String>,
    /// Every connected proxy.
    pub(super) proxies: Vec<ProxyStatus>,
}

impl Live {
    /// Asks the API server for everything, and Pilot for the proxies, if it answers.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(in crate::commands) async fn load(cluster: &Cluster) -> Result<Self, Error> {
        let lists = join_all(Source::ALL.map(|source| async move {
            let list = cluster.list(&resource(source), &Selection::default()).await;
            (source, list)
        }));
        let (lists, pilots) = tokio::join!(lists, mesh::pilots(cluster));
        let mut live = Live {
            registry: Registry::new(Mesh::default()),
            objects: Vec::new(),
            pilots,
            not_listed: Vec::new(),
            proxies: Vec::new(),
        };
        for (source, list) in lists {
            let list = match list {
                Ok(list) => list,
                Err(error) if error.exit() == crate::error::Exit::Unreachable => return Err(error),
                // The classic group is not served everywhere, and neither is ours without a mesh.
                Err(error) if error.message().contains("does not serve") => continue,
                Err(error) => {
                    live.not_listed.push(format!("{} are not known: {}", source.plural(), error.message()));
                    continue;
                }
            };
            for object in items(&list) {
                live.registry.apply(source, object);
                live.objects.push((source, object.clone()));
            }
        }
        if let Ok(pilots) = &mut live.pilots {
            for pilot in pilots {
                let answer: Proxies = pilot.connection.get("/v1/proxies").await?;
                live.proxies.extend(answer.proxies);
            }
        }
        Ok(live)
    }

    pub(super) fn model(&self) -> &Model {
        self.registry.model()
    }

    /// Why nobody can say what proxies have.
    pub(super) fn no_pilot(&self) -> Option<&Error> {
        self.pilots.as_ref().err()
    }

    /// An object as the API server has it.
    pub(in crate::commands) fn object(&self, kind: &str, key: &Key) -> Option<&Value> {
        let is_it = |object: &Value| name_of(object) == key.name && namespace_of(object) == key.namespace;
        self.objects.iter().find(|(source, object)| source.kind() == kind && is_it(object)).map(|(_, object)| object)
    }

    /// All objects of a kind, as the API server has them.
    pub(in crate::commands) fn objects(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |(source, _)| source.kind() == kind).map(|(_, object)| object)
    }

    /// The proxy in a pod, if it is connected.
    pub(super) fn proxy(&self, pod: &Key) -> Option<&ProxyStatus> {
        let id = format!("{}.{}", pod.name, pod.namespace);
        self.proxies.iter().find(|proxy| proxy.id == id)
    }

    /// Rules about a service, in the order in which they are asked.
    pub(super) fn rules(&self, host: &Host) -> Vec<Arc<RouteRule>> {
        let mut rules = self.model().route_rules.about(host).to_vec();
        rules.sort_by(|a, b| a.order(b));
        rules
    }

    /// Policies about a service.
    pub(super) fn policies(&self, host: &Host) -> Vec<Arc<DestinationPolicy>> {
        self.model().destination_policies.about(host).to_vec()
    }

    /// `applied by 3 of 7`, or why that is not known.
    pub(super) async fn applied(&mut self, kind: &str, key: &Key) -> String {
        let Some(object) = self.object(kind, key).cloned() else { return String::new() };
        let Some(resource) = crate::resources::by_word(kind) else { return String::new() };
        let Ok(pilots) = &mut self.pilots else { return String::new() };
        match wait::state(pilots, &Change::made(&resource, &object)).await {
            Ok(state) => state.short(),
            Err(error) => error.message().to_owned(),
        }
    }
}

/// The cells of a rule's row: order, name, precedence, match, what it does.
pub(super) fn rule_cells(live: &Live, rule: &RouteRule, order: usize) -> Vec<String> {
    let object = live.object("RouteRule", &rule.key).cloned().unwrap_or_default();
    let cell = |text: String, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text };
    let mut what = vec![columns::action(&object), columns::faults(&object)];
    what.retain(|text| !text.is_empty());
    vec![
        order.to_string(),
        format!("route-rule/{}", rule.key.name),
        rule.precedence.to_string(),
        cell(columns::conditions(&object, false), "everything"),
        cell(what.join("; "), "(its defaults)"),
    ]
}

/// The kind by which the CLI asks for a resource of the registry.
fn resource(source: Source) -> Resource {
    Resource {
        group: source.group().to_owned(),
        version: source.version().to_owned(),
        kind: source.kind().to_owned(),
        plural: source.plural().to_owned(),
        short: Vec::new(),
        is_namespaced: true,
    }
}

/// The last events about an object, newest last.
pub(super) async fn events(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<Vec<String>>, Error> {
    const SHOWN: usize = 8;
    let field = format!("involvedObject.name={name}");
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let selection = Selection { namespace, fields: Some(&field), ..Selection::default() };
    let list = cluster.list(&mesh::known("events")?, &selection).await?;
    let when = |event: &Value| {
        let at = text(event, &["lastTimestamp"]).or_else(|| text(event, &["eventTime"]));
        at.or_else(|| text(event, &["metadata", "creationTimestamp"])).unwrap_or_default().to_owned()
    };
    let mut events: Vec<&Value> =
        items(&list).filter(|event| text(event, &["involvedObject", "name"]) == Some(name)).collect();
    events.sort_by_key(|event| when(event));
    let now = jiff::Timestamp::now();
    let row = |event: &&Value| {
        let word = |field: &str| text(event, &[field]).unwrap_or_default().to_owned();
        vec![age(&when(event), now), word("type"), word("reason"), word("message").replace('\n', " ")]
    };
    Ok(events.iter().skip(events.len().saturating_sub(SHOWN)).map(row).collect())
}

/// Says what is not known: objects that could not be listed, and what proxies have.
pub(super) fn say_what_is_unknown(live: &Live, report: &mut Report) {
    for what in &live.not_listed {
        report.warning(what, "what follows from them is missing above");
    }
    if let Some(error) = live.no_pilot() {
        report.warning(
            format!("what proxies have applied is not known: {}", error.message()),
            "see `meshctl get pods -n mesh-system`",
        );
    }
}

/// Number of pods that serve a service and have these labels.
pub(super) fn endpoints_with(live: &Live, host: &Host, labels: &Labels) -> usize {
    let endpoints = live.model().endpoints.get(host).cloned().unwrap_or_default();
    let mut pods: Vec<&Key> = endpoints
        .iter()
        .filter(|it| labels.iter().all(|(key, value)| it.workload.labels.get(key) == Some(value)))
        .map(|it| &it.workload.key)
        .collect();
    pods.sort();
    pods.dedup();
    pods.len()
}
