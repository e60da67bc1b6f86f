//! A route rule or destination policy: its place among the others, and who has applied it.

use api::model::{Action, Host, Key};
use serde_json::Value;

use super::live::{Live, endpoints_with, rule_cells, say_what_is_unknown};
use super::problems;
use super::report::Report;
use crate::columns;
use crate::commands::target::Target;
use crate::error::Error;
use crate::resources::{text, version_of};
use crate::table::age;

pub(super) async fn describe(live: &mut Live, target: &Target, object: &Value) -> Result<Report, Error> {
    let key = Key { namespace: target.namespace.clone(), name: target.name.clone() };
    let mut report = Report::new(target.label());
    let since = text(object, &["metadata", "creationTimestamp"]).unwrap_or_default();
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let accepted = conditions.into_iter().find(|it| text(it, &["type"]) == Some("Accepted"));
    let status = match accepted.map(|it| text(it, &["status"])) {
        Some(Some("True")) => "accepted",
        Some(_) => "rejected",
        None => "not judged yet",
    };
    let (kind, host) = match live.model().route_rules.get(&key).filter(|_| target.resource.kind == "RouteRule") {
        Some(rule) => ("RouteRule", Some(rule.destination.clone())),
        None => {
            let policy = live.model().destination_policies.get(&key).filter(|_| target.resource.kind != "RouteRule");
            (target.resource.kind.as_str(), policy.map(|policy| policy.destination.clone()))
        }
    };
    let mut facts = vec![
        ("Destination", host.as_ref().map(Host::to_string).unwrap_or_default()),
        ("Match", columns::conditions(object, true)),
        ("Does", columns::action(object)),
        ("Faults", columns::faults(object)),
        (
            "Timeout",
            text(object, &["spec", "httpReqTimeout", "simpleTimeout", "timeout"]).unwrap_or_default().to_owned(),
        ),
        ("Status", status.to_owned()),
        ("Revision", version_of(object).to_owned()),
        ("Age", age(since, jiff::Timestamp::now())),
    ];
    facts.push(("Applied", live.applied(kind, &key).await));
    report.fields("Object", facts);
    if let Some(host) = &host {
        let rules = live.rules(host);
        let row = |(at, rule): (usize, &std::sync::Arc<api::model::RouteRule>)| {
            let mut row = rule_cells(live, rule, at + 1);
            row.push(if rule.key == key { "this one".to_owned() } else { String::new() });
            row
        };
        let rows = rules.iter().enumerate().map(row).collect();
        let headings = ["ORDER", "RULE", "PRECEDENCE", "MATCH", "WHAT", "NOTE"];
        report.rows("Route rules of the destination (asked in this order)", &headings, rows);
        report.rows("Where requests go", &["SERVICE", "LABELS", "WEIGHT", "ENDPOINTS"], targets(live, &key));
    }
    let problems = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    for message in problems.filter_map(|it| text(it, &["message"])).filter(|message| !message.is_empty()) {
        if status == "rejected" {
            report.error(message, format!("mend it with `meshctl edit {}`", target.word()));
        } else {
            report.warning(message, "");
        }
    }
    if let Some(rule) = live.model().route_rules.get(&key).filter(|_| kind == "RouteRule") {
        report.add(problems::of_rule(live, rule));
    }
    if let (Some(host), "DestinationPolicy") = (&host, kind) {
        report.add(problems::of_destination(live, host));
    }
    say_what_is_unknown(live, &mut report);
    Ok(report)
}

fn targets(live: &Live, rule: &Key) -> Vec<Vec<String>> {
    let Some(rule) = live.model().route_rules.get(rule) else { return Vec::new() };
    let Action::Route { to, .. } = &rule.action else { return Vec::new() };
    let row = |target: &api::model::Target| {
        let labels: Vec<String> = target.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            target.host.to_string(),
            if labels.is_empty() { "any".to_owned() } else { labels.join(",") },
            format!("{}%", target.weight),
            endpoints_with(live, &target.host, &target.labels).to_string(),
        ]
    };
    to.iter().map(row).collect()
}
