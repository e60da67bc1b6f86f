//! One proxy, resource by resource: what Pilot has sent, what the proxy has acknowledged, and what is in force there.

use std::collections::BTreeMap;

use api::messages::{ProxyResources, ResourceStatus};
use serde_json::{Value, json};

use crate::app::App;
use crate::cluster::Cluster;
use crate::error::{Error, count};
use crate::mesh::{self, Daemon, known};
use crate::table::Table;

/// How the resources of a proxy stand.
pub(super) struct Comparison {
    /// Number of resources.
    all: usize,
    /// Those that are not the same everywhere.
    differences: Vec<Difference>,
    /// Why it is not known what is in force.
    unknown: Option<String>,
}

/// A resource that is not the same everywhere; versions are those of Pilot.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    kind: String,
    name: String,
    sent: Option<String>,
    acknowledged: Option<String>,
    in_force: Option<String>,
    reason: String,
}

/// The fields of a configuration dump.
const FIELDS: [(&str, &str); 4] = [("LDS", "listeners"), ("RDS", "routes"), ("CDS", "clusters"), ("EDS", "endpoints")];

/// Asks both sides.
pub(super) async fn proxy(cluster: &Cluster, pilots: &mut [Daemon], id: &str) -> Result<Comparison, Error> {
    let mut sent = Vec::new();
    for pilot in pilots {
        let answer: ProxyResources = pilot.connection.get(&format!("/v1/resources?proxy={id}")).await?;
        if answer.connected {
            sent = answer.resources;
        }
    }
    let dump = match dump(cluster, id).await {
        Ok(dump) => Ok(dump),
        Err(error) => Err(error.message().to_owned()),
    };
    Ok(compare(&sent, dump))
}

async fn dump(cluster: &Cluster, id: &str) -> Result<Value, Error> {
    let (name, namespace) = id.rsplit_once('.').unwrap_or((id, ""));
    let pod = cluster.get(&known("pods")?, namespace, name).await?;
    let pod = pod.ok_or_else(|| Error::failed(format!("there is no pod {id}")))?;
    mesh::proxy_admin(cluster, &pod).await?.get("/config_dump").await
}

fn compare(sent: &[ResourceStatus], dump: Result<Value, String>) -> Comparison {
    let (dump, unknown) = match dump {
        Ok(dump) => (dump, None),
        Err(why) => (Value::Null, Some(why)),
    };
    let mut in_force: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (kind, field) in FIELDS {
        for held in dump.get(field).and_then(Value::as_array).into_iter().flatten() {
            let word = |field: &str| held.get(field).and_then(Value::as_str).unwrap_or_default();
            in_force.insert((kind, word("name")), word("version"));
        }
    }
    let is_known = unknown.is_none();
    let mut differences = Vec::new();
    for resource in sent {
        let here = in_force.remove(&(resource.kind.as_str(), resource.name.as_str()));
        let is_same = resource.acknowledged == resource.sent && (!is_known || here == resource.sent.as_deref());
        if is_same && resource.refused.is_none() {
            continue;
        }
        let reason = match (&resource.refused, &resource.sent) {
            (Some(why), _) => format!("refused: {why}"),
            (None, None) => "it was taken away, and is in force still".to_owned(),
            (None, sent) if resource.acknowledged != *sent => "not acknowledged yet".to_owned(),
            _ => "acknowledged, and not in force".to_owned(),
        };
        differences.push(Difference {
            kind: resource.kind.clone(),
            name: resource.name.clone(),
            sent: resource.sent.clone(),
            acknowledged: resource.acknowledged.clone(),
            in_force: here.map(str::to_owned),
            reason,
        });
    }
    for ((kind, name), version) in in_force {
        differences.push(Difference {
            kind: kind.to_owned(),
            name: name.to_owned(),
            sent: None,
            acknowledged: None,
            in_force: Some(version.to_owned()),
            reason: "in force, and not from Pilot".to_owned(),
        });
    }
    Comparison { all: sent.len(), differences, unknown }
}

impl Comparison {
    /// As a program reads it.
    pub(super) fn to_json(&self) -> Value {
        let one = |it: &Difference| {
            json!({
                "type": it.kind, "name": it.name, "sent": it.sent, "acknowledged": it.acknowledged,
                "inForce": it.in_force, "reason": it.reason,
            })
        };
        self.differences.iter().map(one).collect()
    }

    /// As a person reads it.
    pub(super) fn show(&self, app: &App) -> Result<(), Error> {
        if let Some(why) = &self.unknown {
            app.ui.warn(&format!("what is in force there is not known: {why}"));
        }
        if self.differences.is_empty() {
            let what = if self.unknown.is_some() { "acknowledged" } else { "acknowledged and in force" };
            app.ui
                .say(&app.ui.err.good(&format!("all of {} that Pilot has sent: {what}", count(self.all, "resource"))));
            return Ok(());
        }
        let mut table = Table::new(&["TYPE", "RESOURCE", "SENT", "ACKNOWLEDGED", "IN FORCE", "WHY"]);
        let short = |version: &Option<String>| version.as_deref().map_or("", |it| it.get(..8).unwrap_or(it)).to_owned();
        for it in &self.differences {
            let versions = [&it.sent, &it.acknowledged, &it.in_force].map(short);
            let mut row = vec![it.kind.clone(), it.name.clone()];
            row.extend(versions);
            row.push(it.reason.clone());
            table.row(row);
        }
        app.ui.line("")?;
        app.ui.print(&table.to_text(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, name: &str, sent: &str, acknowledged: &str) -> ResourceStatus {
        let version = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (kind, name) = (kind.to_owned(), name.to_owned());
        ResourceStatus { kind, name, sent: version(sent), acknowledged: version(acknowledged), refused: None }
    }

    #[test]
    fn only_what_differs_is_told_and_why() {
        let refused = ResourceStatus { refused: Some("no such filter".to_owned()), ..resource("LDS", "bad", "2", "1") };
        let sent = [
            resource("LDS", "same", "1", "1"),
            refused,
            resource("RDS", "late", "2", "1"),
            resource("CDS", "lost", "1", "1"),
            resource("EDS", "gone", "", ""),
        ];
        let dump = json!({
            "listeners": [{"name": "same", "version": "1"}, {"name": "bad", "version": "1"}],
            "routes": [{"name": "late", "version": "1"}],
            "clusters": [{"name": "foreign", "version": "9"}],
        });
        let found = compare(&sent, Ok(dump));
        let told: Vec<(&str, &str)> =
            found.differences.iter().map(|it| (it.name.as_str(), it.reason.as_str())).collect();
        let expected = [
            ("bad", "refused: no such filter"),
            ("late", "not acknowledged yet"),
            ("lost", "acknowledged, and not in force"),
            ("foreign", "in force, and not from Pilot"),
        ];
        assert_eq!(told, expected);
        let unknown = compare(&sent[..1], Err("away".to_owned()));
        assert!(unknown.differences.is_empty() && unknown.unknown.is_some());
    }
}
