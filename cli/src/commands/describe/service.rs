//! A service: what is spoken there, who serves it, and what requests to it meet.

use std::collections::BTreeMap;

use api::model::{Endpoint, Health, Host, Key, Model, Protocol, Resolution, Service};
use engine::generate::authentication;
use serde_json::Value;

use super::live::{Live, events, rule_cells, say_what_is_unknown};
use super::problems;
use super::report::Report;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::resources::{name_of, namespace_of, text};

pub(super) async fn describe(cluster: &Cluster, live: &mut Live, object: &Value) -> Result<Report, Error> {
    let (namespace, name) = (namespace_of(object), name_of(object));
    let host = Host::of_service(name, namespace, &live.model().mesh.domain);
    let mut report = Report::new(format!("service {namespace}/{name}"));
    let Some(service) = live.model().services.get(&host).cloned() else {
        report.error("Pilot does not use this service", "see `meshctl get services`");
        return Ok(report);
    };
    let resolution = match &service.resolution {
        Resolution::Virtual => "balanced over its endpoints".to_owned(),
        Resolution::Headless => "headless: callers address its endpoints".to_owned(),
        Resolution::External(host) => format!("an alias of {host}"),
    };
    let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
    report.fields(
        "Service",
        vec![
            ("Host", host.to_string()),
            ("Type", text(object, &["spec", "type"]).unwrap_or("ClusterIP").to_owned()),
            ("Addresses", addresses.join(", ")),
            ("Traffic", resolution),
            ("Selector", object.pointer("/spec/selector").map(crate::columns::labels).unwrap_or_default()),
        ],
    );
    let endpoints = live.model().endpoints.get(&host).cloned().unwrap_or_default();
    report.rows(
        "Ports",
        &["PORT", "NAME", "PROTOCOL", "ENDPOINTS", "MUTUAL TLS"],
        ports(live.model(), &service, &endpoints),
    );
    report.rows(
        "Endpoints",
        &["ADDRESS", "POD", "VERSION", "STATE", "SIDECAR"],
        endpoints.iter().map(|endpoint| endpoint_row(live, endpoint)).collect(),
    );
    let rows = rule_rows(live, &host).await;
    report.rows(
        "Route rules (asked in this order)",
        &["ORDER", "RULE", "PRECEDENCE", "MATCH", "WHAT", "APPLIED BY"],
        rows,
    );
    report.rows(
        "Destination policies",
        &["POLICY", "VERSION", "BALANCING", "LIMITS", "APPLIED BY"],
        policy_rows(live, &host).await,
    );
    report.rows("Ingress", &["INGRESS", "HOST", "PATH"], ingress_rows(live, &host));
    report.rows("Events", &["AGE", "TYPE", "REASON", "MESSAGE"], events(cluster, namespace, name).await?);
    report.add(problems::of_service(live, &service, &endpoints));
    say_what_is_unknown(live, &mut report);
    Ok(report)
}

fn ports(model: &Model, service: &Service, endpoints: &[Endpoint]) -> Vec<Vec<String>> {
    let row = |port: &api::model::Port| {
        let served = endpoints.iter().filter(|endpoint| endpoint.service_port == port.number).count();
        let applied = authentication(model, &service.key.namespace, Some((service, port.number)));
        let mode = match applied.mtls {
            _ if port.protocol == Protocol::Udp => String::new(),
            Some((mode, said)) => format!("{mode} ({said})"),
            None => applied.mode(model).to_string(),
        };
        vec![port.number.to_string(), port.name.clone(), protocol(port.protocol).to_owned(), served.to_string(), mode]
    };
    service.ports.iter().map(row).collect()
}

/// A protocol in words.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP/2",
        Protocol::Grpc => "gRPC",
        Protocol::Https => "TLS of the application (opaque)",
        Protocol::Tcp => "TCP (opaque)",
        Protocol::Auto => "found out by the first bytes",
        Protocol::Udp => "UDP (passes the mesh by)",
    }
}

fn endpoint_row(live: &Live, endpoint: &Endpoint) -> Vec<String> {
    let pod = &endpoint.workload;
    let state = match endpoint.health {
        Health::Ready => "ready",
        Health::Draining => "draining",
    };
    let sidecar = match (pod.has_sidecar, live.proxy(&pod.key)) {
        (false, _) => "none".to_owned(),
        (true, Some(proxy)) => proxy.version.clone(),
        (true, None) => "not connected".to_owned(),
    };
    vec![
        std::net::SocketAddr::new(endpoint.address, endpoint.port.get()).to_string(),
        pod.key.name.clone(),
        pod.labels.get("version").cloned().unwrap_or_default(),
        state.to_owned(),
        sidecar,
    ]
}

async fn rule_rows(live: &mut Live, host: &Host) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (at, rule) in live.rules(host).iter().enumerate() {
        let mut row = rule_cells(live, rule, at + 1);
        row.push(live.applied("RouteRule", &rule.key).await);
        rows.push(row);
    }
    rows
}

async fn policy_rows(live: &mut Live, host: &Host) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for policy in live.policies(host) {
        let labels: BTreeMap<_, _> = policy.labels.iter().collect();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut limits = Vec::new();
        limits.extend(policy.breaker.as_ref().map(|_| "circuit breaker"));
        limits.extend(policy.outlier.as_ref().map(|_| "ejects failing endpoints"));
        rows.push(vec![
            format!("destination-policy/{}", policy.key.name),
            if labels.is_empty() { "all".to_owned() } else { labels.join(",") },
            format!("{:?}", policy.balancing),
            limits.join(", "),
            live.applied("DestinationPolicy", &policy.key).await,
        ]);
    }
    rows
}

fn ingress_rows(live: &Live, host: &Host) -> Vec<Vec<String>> {
    let all =
        live.model().ingresses.values().flat_map(|ingress| ingress.rules.iter().map(move |rule| (&ingress.key, rule)));
    let row = |(key, rule): (&Key, &api::model::IngressRule)| {
        let path = match &rule.path {
            api::model::IngressPath::Exact(path) => path.clone(),
            api::model::IngressPath::Elements(path) => format!("{}/…", path.trim_end_matches('/')),
            api::model::IngressPath::Text(path) => format!("{path}…"),
        };
        vec![key.to_string(), rule.host.clone().unwrap_or_else(|| "*".to_owned()), path]
    };
    let rows = all.filter(|(_, rule)| rule.service == *host).map(row);
    let servers = live.model().ingresses.values().flat_map(|ingress| {
        let of_host = ingress.passthrough.iter().filter(|server| server.service == *host);
        of_host.map(|server| {
            vec![ingress.key.to_string(), server.server_name.clone(), format!("TLS passes to port {}", server.port)]
        })
    });
    rows.chain(servers).collect()
}
