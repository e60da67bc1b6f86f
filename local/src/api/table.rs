//! Tables, as `kubectl get` shows them.

use serde_json::{Value, json};

use super::classic;
use super::object::{array, text};
use super::request::Target;

/// Objects as a `Table`; with the list's resource version if there is a list.
pub(super) fn of<'a>(target: &Target, objects: impl Iterator<Item = &'a Value>, version: Option<u64>) -> Value {
    let now = jiff::Timestamp::now();
    let columns = Columns::of(target);
    let rows: Vec<Value> = objects
        .map(|object| {
            json!({
                "cells": columns.cells(object, now),
                "object": {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]},
            })
        })
        .collect();
    let metadata = version.map_or(json!({}), |version| json!({"resourceVersion": version.to_string()}));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.definitions(), "rows": rows,
    })
}

type Cell = fn(&Value, jiff::Timestamp) -> Value;

enum Columns {
    /// Name, what it shows, and whether only `-o wide` shows it.
    BuiltIn(Vec<(&'static str, Cell, bool)>),
    /// `additionalPrinterColumns`.
    Custom(Vec<Value>),
}

impl Columns {
    fn of(target: &Target) -> Self {
        let version = target.view.api_version().rsplit('/').next().unwrap_or_default();
        match target.resource.version(version) {
            Some(found) if !found.columns.is_empty() => Self::Custom(found.columns.clone()),
            _ => Self::BuiltIn(built_in(&target.resource.key())),
        }
    }

    fn definitions(&self) -> Vec<Value> {
        let definition = |name: &str, kind: &str, format: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": name, "priority": priority});
        let mut definitions = vec![definition("Name", "string", "name", 0)];
        match self {
            Self::BuiltIn(columns) => {
                definitions
                    .extend(columns.iter().map(|(name, _, wide)| definition(name, "string", "", i64::from(*wide))));
                definitions.push(definition("Age", "string", "", 0));
            }
            Self::Custom(columns) => definitions.extend(columns.iter().map(|column| {
                let priority = column["priority"].as_i64().unwrap_or(0);
                definition(text(column, "/name"), text(column, "/type"), text(column, "/format"), priority)
            })),
        }
        definitions
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut cells = vec![object["metadata"]["name"].clone()];
        match self {
            Self::BuiltIn(columns) => {
                cells.extend(columns.iter().map(|(_, cell, _)| cell(object, now)));
                cells.push(since(text(object, "/metadata/creationTimestamp"), now).into());
            }
            Self::Custom(columns) => cells.extend(columns.iter().map(|column| custom(column, object, now))),
        }
        cells
    }
}

fn custom(column: &Value, object: &Value, now: jiff::Timestamp) -> Value {
    let Some(found) = path(object, text(column, "/jsonPath")) else { return Value::Null };
    match (text(column, "/type"), &found) {
        ("date", Value::String(at)) => since(at, now).into(),
        (_, Value::Array(_) | Value::Object(_)) => found.to_string().into(),
        _ => found,
    }
}

/// The JSON paths that printer columns use: fields, quoted fields, indexes, `[*]`, and `[?(@.field=="text")]`.
fn path(object: &Value, path: &str) -> Option<Value> {
    let mut found = vec![object];
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']')?;
            let (inner, next) = (&after[..end], &after[end + 1..]);
            rest = next;
            found = found.into_iter().flat_map(|value| bracket(value, inner)).collect();
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let mut end = 0;
            let mut escaped = false;
            for (at, c) in after.char_indices() {
                if !escaped && (c == '.' || c == '[') {
                    break;
                }
                escaped = c == '\\';
                end = at + c.len_utf8();
            }
            let field = after[..end].replace('\\', "");
            rest = &after[end..];
            if !field.is_empty() {
                found = found.into_iter().filter_map(|value| value.get(&field)).collect();
            } else if rest.is_empty() {
                break;
            }
        }
    }
    match found.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        many => Some(
            many.iter()
                .map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(",")
                .into(),
        ),
    }
}

fn bracket<'a>(value: &'a Value, inner: &str) -> Vec<&'a Value> {
    let inner = inner.trim();
    if inner == "*" {
        return value.as_array().map(|list| list.iter().collect()).unwrap_or_default();
    }
    if let Ok(index) = inner.parse::<usize>() {
        return value.get(index).into_iter().collect();
    }
    if let Some(condition) = inner.strip_prefix("?(@.").and_then(|it| it.strip_suffix(')')) {
        let Some((field, wanted)) = condition.split_once("==") else { return vec![] };
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        return list.iter().filter(|entry| entry[field.trim()] == wanted).collect();
    }
    value.get(inner.trim_matches(['"', '\''])).into_iter().collect()
}

fn built_in(resource: &str) -> Vec<(&'static str, Cell, bool)> {
    let none: Cell = |_, _| "<none>".into();
    match resource {
        "pods" => vec![
            ("Ready", |o, _| pod_ready(o), false),
            ("Status", |o, _| pod_status(o).into(), false),
            ("Restarts", pod_restarts, false),
            ("IP", |o, _| or_none(text(o, "/status/podIP")), true),
            ("Node", |o, _| or_none(text(o, "/spec/nodeName")), true),
            ("Nominated Node", none, true),
            ("Readiness Gates", none, true),
        ],
        "deployments.apps" => vec![
            ("Ready", |o, _| fraction(o, "/status/readyReplicas", "/spec/replicas"), false),
            ("Up-to-date", |o, _| number(o, "/status/updatedReplicas"), false),
            ("Available", |o, _| number(o, "/status/availableReplicas"), false),
            ("Containers", |o, _| containers(o, "name"), true),
            ("Images", |o, _| containers(o, "image"), true),
            ("Selector", |o, _| labels(&o["spec"]["selector"]["matchLabels"]), true),
        ],
        "replicasets.apps" => vec![
            ("Desired", |o, _| number(o, "/spec/replicas"), false),
            ("Current", |o, _| number(o, "/status/replicas"), false),
            ("Ready", |o, _| number(o, "/status/readyReplicas"), false),
        ],
        "services" => vec![
            ("Type", |o, _| o["spec"]["type"].clone(), false),
            ("Cluster-IP", |o, _| or_none(text(o, "/spec/clusterIP")), false),
            ("External-IP", |o, _| external(o), false),
            ("Port(s)", |o, _| ports(o), false),
            ("Selector", |o, _| labels(&o["spec"]["selector"]), true),
        ],
        "namespaces" => vec![("Status", |o, _| o["status"]["phase"].clone(), false)],
        "nodes" => vec![
            (
                "Status",
                |o, _| if super::object::has_condition(o, "Ready") { "Ready".into() } else { "NotReady".into() },
                false,
            ),
            ("Roles", none, false),
            ("Version", |o, _| o["status"]["nodeInfo"]["kubeletVersion"].clone(), false),
        ],
        "configmaps" => vec![("Data", |o, _| count(&o["data"]), false)],
        "secrets" => vec![("Type", |o, _| o["type"].clone(), false), ("Data", |o, _| count(&o["data"]), false)],
        "events" => vec![
            ("Last Seen", |o, now| since(seen(o), now).into(), false),
            ("Type", |o, _| o["type"].clone(), false),
            ("Reason", |o, _| o["reason"].clone(), false),
            ("Object", |o, _| involved(o), false),
            ("Message", |o, _| o["message"].clone(), false),
        ],
        "ingresses.networking.k8s.io" => vec![
            ("Class", |o, _| or_none(text(o, "/spec/ingressClassName")), false),
            ("Hosts", |o, _| classic::hosts(o).join(",").into(), false),
            ("Address", |o, _| addresses(o).into(), false),
            ("Ports", |_, _| "80".into(), false),
        ],
        "endpointslices.discovery.k8s.io" => vec![
            ("AddressType", |o, _| o["addressType"].clone(), false),
            (
                "Endpoints",
                |o, _| {
                    let endpoints = array(o, "/endpoints").iter().flat_map(|it| array(it, "/addresses"));
                    endpoints.filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
                },
                false,
            ),
        ],
        "customresourcedefinitions.apiextensions.k8s.io" => {
            vec![("Created At", |o, _| o["metadata"]["creationTimestamp"].clone(), false)]
        }
        _ => vec![],
    }
}

fn or_none(found: &str) -> Value {
    if found.is_empty() { "<none>".into() } else { found.into() }
}

fn number(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).to_string().into()
}

fn fraction(object: &Value, part: &str, whole: &str) -> Value {
    let number = |pointer| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    format!("{}/{}", number(part), number(whole)).into()
}

fn count(value: &Value) -> Value {
    value.as_object().map_or(0, serde_json::Map::len).to_string().into()
}

fn labels(value: &Value) -> Value {
    let pairs = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    or_none(&pairs.collect::<Vec<_>>().join(","))
}

fn containers(object: &Value, field: &str) -> Value {
    let containers =
        array(object, "/spec/template/spec/containers").iter().map(|it| it[field].as_str().unwrap_or_default());
    containers.collect::<Vec<_>>().join(",").into()
}

fn addresses(object: &Value) -> String {
    let entries = array(object, "/status/loadBalancer/ingress").iter();
    entries.map(|it| it["ip"].as_str().or(it["hostname"].as_str()).unwrap_or_default()).collect::<Vec<_>>().join(",")
}

fn external(service: &Value) -> Value {
    match (text(service, "/spec/type"), addresses(service)) {
        ("ExternalName", _) => service["spec"]["externalName"].clone(),
        ("LoadBalancer", found) if found.is_empty() => "<pending>".into(),
        ("LoadBalancer", found) => found.into(),
        _ => "<none>".into(),
    }
}

fn ports(service: &Value) -> Value {
    let ports = array(service, "/spec/ports").iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_u64() {
            Some(node) => format!("{}:{node}/{protocol}", port["port"]),
            None => format!("{}/{protocol}", port["port"]),
        }
    });
    or_none(&ports.collect::<Vec<_>>().join(","))
}

/// Init containers that go on running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn pod_ready(pod: &Value) -> Value {
    let sidecars: Vec<&str> =
        array(pod, "/spec/initContainers").iter().filter(|it| is_sidecar(it)).map(|it| text(it, "/name")).collect();
    let total = array(pod, "/spec/containers").len() + sidecars.len();
    let init = array(pod, "/status/initContainerStatuses").iter().filter(|it| sidecars.contains(&text(it, "/name")));
    let ready = array(pod, "/status/containerStatuses").iter().chain(init).filter(|it| it["ready"] == true).count();
    format!("{ready}/{total}").into()
}

fn pod_status(pod: &Value) -> String {
    if super::object::is_deleting(pod) {
        return "Terminating".into();
    }
    let statuses = |pointer| array(pod, pointer).iter();
    let sidecars: Vec<&str> =
        array(pod, "/spec/initContainers").iter().filter(|it| is_sidecar(it)).map(|it| text(it, "/name")).collect();
    let total = array(pod, "/spec/initContainers").len();
    for (done, status) in statuses("/status/initContainerStatuses").enumerate() {
        let started_sidecar = sidecars.contains(&text(status, "/name")) && status["started"] == true;
        if started_sidecar || status.pointer("/state/terminated/exitCode") == Some(&json!(0)) {
            continue;
        }
        let reason = |pointer| status.pointer(pointer).and_then(Value::as_str).filter(|it| *it != "PodInitializing");
        return match reason("/state/waiting/reason").or_else(|| reason("/state/terminated/reason")) {
            Some(reason) => format!("Init:{reason}"),
            None => format!("Init:{done}/{total}"),
        };
    }
    for status in statuses("/status/containerStatuses") {
        let reason = |pointer| status.pointer(pointer).and_then(Value::as_str);
        if let Some(reason) = reason("/state/waiting/reason").or_else(|| reason("/state/terminated/reason")) {
            return reason.to_owned();
        }
    }
    match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    }
}

fn pod_restarts(pod: &Value, now: jiff::Timestamp) -> Value {
    let statuses = || array(pod, "/status/containerStatuses").iter().chain(array(pod, "/status/initContainerStatuses"));
    let restarts: u64 = statuses().filter_map(|it| it["restartCount"].as_u64()).sum();
    let last = statuses().map(|it| text(it, "/lastState/terminated/finishedAt")).max().unwrap_or_default();
    if restarts > 0 && !last.is_empty() {
        format!("{restarts} ({} ago)", since(last, now)).into()
    } else {
        restarts.to_string().into()
    }
}

fn seen(event: &Value) -> &str {
    let candidates = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    candidates.into_iter().map(|pointer| text(event, pointer)).find(|it| !it.is_empty()).unwrap_or_default()
}

fn involved(event: &Value) -> Value {
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    format!("{kind}/{}", text(event, "/involvedObject/name")).into()
}

/// A length of time as people read it: `5s`, `3m20s`, `2h`, `4d`.
fn since(at: &str, now: jiff::Timestamp) -> String {
    let Ok(at) = at.parse::<jiff::Timestamp>() else { return "<unknown>".into() };
    let seconds = (now.as_second() - at.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_kubectls() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        for (ago, expected) in
            [(5, "5s"), (125, "2m5s"), (3600, "60m"), (4 * 3600, "4h"), (3 * 86_400 + 3600, "3d1h"), (-5, "0s")]
        {
            let at = jiff::Timestamp::from_second(-ago).expect("in range").to_string();
            assert_eq!(since(&at, now), expected);
        }
        assert_eq!(since("", now), "<unknown>");
    }

    #[test]
    fn printer_columns_find_their_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}}, "spec": {"n": 3, "list": [{"k": "p", "v": 1}, {"k": "q", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        for (expression, expected) in [
            (".spec.n", json!(3)),
            (".spec.list[1].k", json!("q")),
            (".spec.list[*].k", json!("p,q")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".metadata.labels['a.b/c']", json!("x")),
            (".metadata.labels.a\\.b/c", json!("x")),
            (".nothing", Value::Null),
        ] {
            assert_eq!(path(&object, expression).unwrap_or(Value::Null), expected, "{expression}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_printer_column_panics(expression in "[.a-z\\[\\]*?@()'\"=0-9\\\\é$]{0,30}") {
            let _ = path(&json!({"a": [{"b": 1}], "é": {"c": "d"}}), &expression);
        }
    }

    #[test]
    fn a_pods_row_counts_sidecars_and_names_what_it_waits_for() {
        let pod = json!({
            "spec": {"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}]},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [
                    {"name": "i", "ready": true, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    {"name": "s", "ready": true, "started": true, "state": {"running": {}}},
                ],
                "containerStatuses": [{"name": "c", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
            },
        });
        assert_eq!(pod_ready(&pod), "1/2");
        assert_eq!(pod_status(&pod), "CrashLoopBackOff");
        let waiting = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{}]}, "status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}});
        assert_eq!(pod_status(&waiting), "Init:0/1");
    }
}
