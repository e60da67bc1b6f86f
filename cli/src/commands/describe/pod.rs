//! A pod: whether it is in the mesh, and what its requests meet.

use api::model::{Action, Host, Key, RouteRule, Workload};
use api::names::PROXY_CONTAINER;
use serde_json::Value;

use super::live::{Live, events, rule_cells, say_what_is_unknown};
use super::report::Report;
use super::{problems, service};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::pod as numbers;
use crate::resources::{name_of, namespace_of, text};
use crate::table::age;

pub(super) async fn describe(cluster: &Cluster, live: &mut Live, pod: &Value) -> Result<Report, Error> {
    let key = Key { namespace: namespace_of(pod).to_owned(), name: name_of(pod).to_owned() };
    let mut report = Report::new(format!("pod {key}"));
    let workload = live.registry.workload(&key).cloned();
    let domain = crate::mesh::trust_domain(cluster).await?;
    report.fields("Pod", facts(pod, workload.as_deref(), &domain));
    report.fields("Proxy", proxy(live, pod, &key));
    let hosts = live.registry.node(&key, api::model::Role::Sidecar).map(|node| node.services).unwrap_or_default();
    report.rows("Services", &["SERVICE", "PORT", "POD PORT", "PROTOCOL", "STATE"], services(live, &key, &hosts));
    report.rows("Containers", &["CONTAINER", "READY", "RESTARTS", "PORTS", "PROBES"], containers(pod));
    if let Some(workload) = &workload {
        let rows = hosts.iter().flat_map(|host| inbound(live, host, workload)).collect();
        let headings = ["SERVICE", "ORDER", "RULE", "PRECEDENCE", "MATCH", "WHAT", "THIS POD"];
        report.rows("Inbound rules (for requests to it, asked in this order)", &headings, rows);
        report.rows(
            "Outbound rules (for its own requests and not for everybody's)",
            &["ORDER", "RULE", "PRECEDENCE", "MATCH", "WHAT"],
            outbound(live, workload, &hosts),
        );
        let policies = hosts.iter().flat_map(|host| live.policies(host));
        let applies =
            policies.filter(|it| it.labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value)));
        let names: Vec<String> = applies.map(|policy| format!("destination-policy/{}", policy.key.name)).collect();
        report.lines("Inbound policies (for requests to it)", names);
    }
    report.rows("Events", &["AGE", "TYPE", "REASON", "MESSAGE"], events(cluster, &key.namespace, &key.name).await?);
    let namespace = cluster.get(&crate::mesh::known("namespaces")?, "", &key.namespace).await?;
    report.add(problems::of_pod(live, pod, namespace.as_ref(), &hosts));
    say_what_is_unknown(live, &mut report);
    Ok(report)
}

fn facts(pod: &Value, workload: Option<&Workload>, domain: &str) -> Vec<(&'static str, String)> {
    let (ready, all) = numbers::containers(pod);
    let field = |path: &[&str]| text(pod, path).unwrap_or_default().to_owned();
    let account = text(pod, &["spec", "serviceAccountName"]).unwrap_or("default");
    let since = age(&field(&["metadata", "creationTimestamp"]), jiff::Timestamp::now());
    vec![
        ("Status", format!("{}, {ready} of {all} containers ready, {since} old", numbers::phase(pod))),
        ("Address", field(&["status", "podIP"])),
        ("Node", field(&["spec", "nodeName"])),
        ("Belongs to", workload.map(|workload| workload.owner.clone()).unwrap_or_default()),
        ("Identity", format!("spiffe://{domain}/ns/{}/sa/{account}", namespace_of(pod))),
        ("Labels", pod.pointer("/metadata/labels").map(crate::columns::labels).unwrap_or_default()),
    ]
}

fn proxy(live: &Live, pod: &Value, key: &Key) -> Vec<(&'static str, String)> {
    let list = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let is_proxy = |container: &&Value| text(container, &["name"]) == Some(PROXY_CONTAINER);
    let kind = if list("/spec/initContainers").any(|it| is_proxy(&it)) {
        "native sidecar"
    } else if list("/spec/containers").any(|it| is_proxy(&it)) {
        match list("/spec/initContainers").any(|it| text(it, &["name"]) == Some(api::names::INIT_CONTAINER)) {
            true => "sidecar beside the other containers",
            false => "gateway",
        }
    } else {
        return vec![("Kind", "none: this pod is outside of the mesh".to_owned())];
    };
    let Some(proxy) = live.proxy(key) else { return vec![("Kind", kind.to_owned())] };
    let states: Vec<String> =
        proxy.types.iter().map(|it| format!("{} {:?}", it.kind, it.state).to_uppercase()).collect();
    vec![
        ("Kind", kind.to_owned()),
        ("Version", proxy.version.clone()),
        ("Connected", format!("for {}", age(&proxy.connected_since, jiff::Timestamp::now()))),
        ("Configuration", states.join(", ")),
    ]
}

fn services(live: &Live, pod: &Key, hosts: &[Host]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for host in hosts {
        let Some(of) = live.model().services.get(host) else { continue };
        let endpoints = live.model().endpoints.get(host).cloned().unwrap_or_default();
        for port in &of.ports {
            let own = endpoints.iter().find(|it| it.workload.key == *pod && it.service_port == port.number);
            let state = match own.map(|it| it.health) {
                Some(api::model::Health::Ready) => "ready",
                Some(api::model::Health::Draining) => "draining",
                None => "not ready",
            };
            rows.push(vec![
                format!("{}.{}", of.key.name, of.key.namespace),
                port.number.to_string(),
                own.map(|it| it.port.to_string()).unwrap_or_default(),
                service::protocol(port.protocol).to_owned(),
                state.to_owned(),
            ]);
        }
    }
    rows
}

fn containers(pod: &Value) -> Vec<Vec<String>> {
    let list = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let all = list("/spec/initContainers").filter(|it| text(it, &["restartPolicy"]) == Some("Always"));
    let row = |container: &Value| {
        let name = text(container, &["name"]).unwrap_or_default();
        let mut statuses = list("/status/containerStatuses").chain(list("/status/initContainerStatuses"));
        let status = statuses.find(|it| text(it, &["name"]) == Some(name));
        let ready = match status.and_then(|it| it.get("ready")).and_then(Value::as_bool) {
            Some(true) => "ready",
            _ => "not ready",
        };
        let restarts = status.and_then(|it| it.get("restartCount")).map_or_else(|| "0".to_owned(), Value::to_string);
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let ports: Vec<String> = ports.filter_map(|port| port.get("containerPort").map(Value::to_string)).collect();
        let probe = |kind: &str, word: &str| {
            let probe = container.get(kind)?.as_object()?;
            let through = probe.get("httpGet").and_then(|get| text(get, &["path"]));
            let is_rewritten = through.is_some_and(|path| path.starts_with("/app-health/"));
            Some(format!("{word}{}", if is_rewritten { " (by the proxy)" } else { "" }))
        };
        let probes = [("startupProbe", "startup"), ("readinessProbe", "ready"), ("livenessProbe", "alive")];
        let probes: Vec<String> = probes.into_iter().filter_map(|(kind, word)| probe(kind, word)).collect();
        vec![name.to_owned(), ready.to_owned(), restarts, ports.join(","), probes.join(", ")]
    };
    list("/spec/containers").chain(all).map(row).collect()
}

/// The rules of a service that the pod is an endpoint of, and what of each comes here.
fn inbound(live: &Live, host: &Host, pod: &Workload) -> Vec<Vec<String>> {
    let share = |rule: &RouteRule| match &rule.action {
        Action::Redirect(_) => "never".to_owned(),
        Action::Route { to, .. } => {
            let here = to.iter().filter(|target| target.host == *host);
            let here = here.filter(|to| to.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value)));
            match here.map(|target| target.weight).sum::<u32>() {
                0 => "never".to_owned(),
                percent => format!("shares {percent}%"),
            }
        }
    };
    let rules = live.rules(host);
    let row = |(at, rule): (usize, &std::sync::Arc<RouteRule>)| {
        let mut row = vec![live.model().services.get(host).map(|of| of.key.name.clone()).unwrap_or_default()];
        row.extend(rule_cells(live, rule, at + 1));
        row.push(share(rule));
        row
    };
    rules.iter().enumerate().map(row).collect()
}

/// Rules of any service that are about requests of this pod and not of everybody.
fn outbound(live: &Live, pod: &Workload, hosts: &[Host]) -> Vec<Vec<String>> {
    let is_meant = |rule: &RouteRule| {
        rule.source.as_ref().is_some_and(|source| {
            source.service.as_ref().is_none_or(|service| hosts.contains(service))
                && source.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        })
    };
    let mut rules: Vec<_> = live.model().route_rules.values().filter(|rule| is_meant(rule)).cloned().collect();
    rules.sort_by(|a, b| a.destination.cmp(&b.destination).then_with(|| a.order(b)));
    rules.iter().enumerate().map(|(at, rule)| rule_cells(live, rule, at + 1)).collect()
}
