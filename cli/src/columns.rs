//! What tables of objects show.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::paint::Paint;
use crate::pod;
use crate::resources::{Resource, name_of, namespace_of, text};
use crate::table::{Table, age};

/// How a table is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// With more columns.
    pub is_wide: bool,
    /// With a column for namespaces.
    pub with_namespace: bool,
    /// The time that ages count from.
    pub now: Timestamp,
    /// Colour.
    pub paint: Paint,
}

/// A table of objects of a kind.
#[must_use]
pub fn of_objects(resource: &Resource, objects: &[Value], options: &Options) -> Table {
    let columns: Vec<Column> = match resource.kind.as_str() {
        "RouteRule" if resource.is_mesh() => route_rule(options),
        "DestinationPolicy" if resource.is_mesh() => destination_policy(options),
        "Pod" => pods(options),
        _ => vec![("AGE", Box::new(created))],
    };
    let mut headings = Vec::new();
    if options.with_namespace {
        headings.push("NAMESPACE");
    }
    headings.push("NAME");
    headings.extend(columns.iter().map(|(heading, _)| *heading));
    let mut table = Table::new(&headings);
    for object in objects {
        let mut row = Vec::new();
        if options.with_namespace {
            row.push(namespace_of(object).to_owned());
        }
        row.push(name_of(object).to_owned());
        row.extend(columns.iter().map(|(_, cell)| cell(object, options)));
        table.row(row);
    }
    table
}

type Column = (&'static str, Box<dyn Fn(&Value, &Options) -> String>);

fn route_rule(options: &Options) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![
        ("DESTINATION", Box::new(|rule, _| destination(rule))),
        ("PRECEDENCE", Box::new(|rule, _| rule.pointer("/spec/precedence").map_or("0".to_owned(), Value::to_string))),
        ("MATCH", Box::new(|rule, options| conditions(rule, options.is_wide))),
        ("ROUTES", Box::new(|rule, _| action(rule))),
        ("AGE", Box::new(created)),
        ("STATUS", Box::new(status)),
    ];
    if options.is_wide {
        let faults: Column = ("FAULTS", Box::new(|rule, _| faults(rule)));
        columns.insert(4, faults);
    }
    columns
}

fn destination_policy(_: &Options) -> Vec<Column> {
    vec![
        ("DESTINATION", Box::new(|policy, _| destination(policy))),
        ("LABELS", Box::new(|policy, _| policy.pointer("/spec/destination/labels").map(labels).unwrap_or_default())),
        (
            "BALANCING",
            Box::new(|policy, _| text(policy, &["spec", "loadBalancing", "name"]).unwrap_or_default().to_owned()),
        ),
        ("AGE", Box::new(created)),
        ("STATUS", Box::new(status)),
    ]
}

fn pods(_: &Options) -> Vec<Column> {
    vec![
        (
            "READY",
            Box::new(|pod, _| {
                let (ready, all) = pod::containers(pod);
                format!("{ready}/{all}")
            }),
        ),
        ("STATUS", Box::new(|pod, _| pod::phase(pod).to_owned())),
        ("RESTARTS", Box::new(|pod, _| pod::restarts(pod).to_string())),
        ("AGE", Box::new(created)),
    ]
}

fn created(object: &Value, options: &Options) -> String {
    text(object, &["metadata", "creationTimestamp"]).map(|since| age(since, options.now)).unwrap_or_default()
}

/// What the control plane says of an object: its `Accepted` condition.
fn status(object: &Value, options: &Options) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let accepted = conditions.into_iter().flatten().find(|c| text(c, &["type"]) == Some("Accepted"));
    match accepted.map(|c| (text(c, &["status"]), text(c, &["message"]))) {
        None => String::new(),
        Some((Some("True"), _)) => options.paint.good("Accepted"),
        Some((_, message)) => {
            let word = options.paint.error("Rejected");
            match message {
                Some(message) if !message.is_empty() => format!("{word}: {message}"),
                _ => word,
            }
        }
    }
}

fn destination(object: &Value) -> String {
    object.pointer("/spec/destination").map(service).unwrap_or_default()
}

/// A service as it is named: `reviews`, `reviews.prod`, or a host.
fn service(service: &Value) -> String {
    let field = |name| text(service, &[name]);
    match (field("name"), field("namespace"), field("service")) {
        (Some(name), Some(namespace), _) => format!("{name}.{namespace}"),
        (Some(name), None, _) => name.to_owned(),
        (None, _, Some(host)) => host.to_owned(),
        _ => String::new(),
    }
}

pub(crate) fn conditions(rule: &Value, is_wide: bool) -> String {
    let mut words = Vec::new();
    if let Some(source) = rule.pointer("/spec/match/source") {
        let mut from = service(source);
        if let Some(with) = source.get("labels") {
            from = format!("{from}[{}]", labels(with));
        }
        words.push(format!("from {from}"));
    }
    let headers = rule.pointer("/spec/match/request/headers").and_then(Value::as_object);
    for (name, condition) in headers.into_iter().flatten() {
        let (how, value) = condition
            .as_object()
            .and_then(|c| c.iter().next())
            .map_or(("", ""), |(how, value)| (how.as_str(), value.as_str().unwrap_or_default()));
        let sign = match how {
            "prefix" => "^=",
            "regex" => "~",
            _ => "=",
        };
        let limit = if is_wide { usize::MAX } else { 24 };
        words.push(format!("{name}{sign}{}", shortened(value, limit)));
    }
    words.join(" & ")
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let head: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{head}…")
}

pub(crate) fn action(rule: &Value) -> String {
    if let Some(redirect) = rule.pointer("/spec/redirect") {
        let field = |name| text(redirect, &[name]).unwrap_or_default();
        return format!("redirect {}{}", field("authority"), field("uri"));
    }
    let routes: Vec<&Value> = rule.pointer("/spec/route").and_then(Value::as_array).into_iter().flatten().collect();
    let word = |route: &&Value| {
        let mut to = route.get("labels").map(short_labels).unwrap_or_default();
        if let Some(other) = route.get("destination").map(service).filter(|s| !s.is_empty()) {
            to = if to.is_empty() { other } else { format!("{other}[{to}]") };
        }
        let to = if to.is_empty() { "any".to_owned() } else { to };
        match route.get("weight").and_then(Value::as_u64).filter(|weight| *weight > 0) {
            Some(weight) if routes.len() > 1 => format!("{to}:{weight}%"),
            _ => to,
        }
    };
    routes.iter().map(word).collect::<Vec<_>>().join(" ")
}

pub(crate) fn faults(rule: &Value) -> String {
    let mut words = Vec::new();
    let percent = |fault: &Value| fault.get("percent").map_or("100".to_owned(), Value::to_string);
    if let Some(delay) = rule.pointer("/spec/httpFault/delay") {
        words.push(format!("delay {} {}%", text(delay, &["fixedDelay"]).unwrap_or_default(), percent(delay)));
    }
    if let Some(abort) = rule.pointer("/spec/httpFault/abort") {
        let status = abort.get("httpStatus").map(Value::to_string).unwrap_or_default();
        words.push(format!("abort {status} {}%", percent(abort)));
    }
    words.join(", ")
}

pub(crate) fn labels(labels: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    labels.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(",")
}

/// Labels, but a lone `version` is its value: `v1`.
fn short_labels(value: &Value) -> String {
    let all: BTreeMap<&str, &str> =
        value.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
    match (all.len(), all.get("version")) {
        (1, Some(version)) => (*version).to_owned(),
        _ => labels(value),
    }
}

/// The table that the server drew, with the columns that are asked for.
#[must_use]
pub fn of_server(table: &Value, options: &Options) -> Table {
    let list = |field: &str| table.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let definitions = list("columnDefinitions");
    let shown: Vec<usize> = definitions
        .iter()
        .enumerate()
        .filter(|(_, d)| options.is_wide || d.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0)
        .map(|(i, _)| i)
        .collect();
    let heading = |i: &usize| text(&definitions[*i], &["name"]).unwrap_or_default().to_uppercase();
    let mut headings: Vec<String> = shown.iter().map(heading).collect();
    if options.with_namespace {
        headings.insert(0, "NAMESPACE".to_owned());
    }
    let mut drawn = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for row in list("rows") {
        let cells = row.get("cells").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut line: Vec<String> = Vec::new();
        if options.with_namespace {
            line.push(row.get("object").map(namespace_of).unwrap_or_default().to_owned());
        }
        line.extend(shown.iter().map(|i| match cells.get(*i) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }));
        drawn.row(line);
    }
    drawn
}

/// An object, or a list of them, without the bookkeeping that nobody writes.
#[must_use]
pub fn without_noise(mut value: Value) -> Value {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    match value.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) => items.iter_mut().for_each(strip),
        None => strip(&mut value),
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(rule: Value) -> String {
        let options = Options { is_wide: true, with_namespace: true, now: Timestamp::UNIX_EPOCH, paint: Paint::PLAIN };
        let resource = crate::resources::by_word("rr").expect("known");
        let text = of_objects(&resource, &[rule], &options).to_text(false);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rule_is_told_in_one_row() {
        let rule = json!({
            "metadata": { "name": "canary", "namespace": "default", "creationTimestamp": "1969-12-31T23:59:00Z" },
            "spec": {
                "destination": { "name": "reviews" }, "precedence": 2,
                "match": { "source": { "name": "productpage", "labels": { "version": "v1" } },
                           "request": { "headers": { "cookie": { "regex": "user=jason" }, "uri": { "prefix": "/x" } } } },
                "route": [ { "labels": { "version": "v1" }, "weight": 90 }, { "labels": { "version": "v3" }, "weight": 10 } ],
                "httpFault": { "delay": { "fixedDelay": "7s", "percent": 100 } },
            },
            "status": { "conditions": [ { "type": "Accepted", "status": "True" } ] },
        });
        assert_eq!(
            row(rule),
            "default canary reviews 2 from productpage[version=v1] & cookie~user=jason & uri^=/x v1:90% v3:10% \
             delay 7s 100% 60s Accepted"
        );
    }

    #[test]
    fn a_redirect_and_a_refusal_are_shown() {
        let rule = json!({
            "metadata": { "name": "r", "namespace": "a" },
            "spec": { "destination": { "service": "x.example" }, "redirect": { "authority": "y", "uri": "/z" } },
            "status": { "conditions": [ { "type": "Accepted", "status": "False", "message": "no such service" } ] },
        });
        assert_eq!(row(rule), "a r x.example 0 - redirect y/z - - Rejected: no such service");
    }
}
