//! Services → `Cluster`.

use std::collections::BTreeSet;

use api::model::{
    Action, Balancing, Host, Labels, Model, Node, Protocol, Resolution, Role, RouteRule, Service, Target,
};
use prost::Message;

use super::wire::{self, Meta};
use super::{ClusterName, Resource, inbound, message, protocol, resilience, rules, tls};
use crate::compile::KNOWN_ENDPOINTS;
use crate::proto::{Kind, cluster as pb};

/// Cluster of connections to destinations outside the registry.
pub(super) const PASSTHROUGH: &str = "passthrough";
/// Cluster without endpoints, for destinations outside the registry where they are refused.
pub(super) const BLACKHOLE: &str = "blackhole";
/// Cluster of inbound connections to ports of no service.
pub(super) const INBOUND_PASSTHROUGH: &str = "inbound_passthrough";

/// Every cluster that a node gets.
#[must_use]
pub fn clusters(model: &Model, node: &Node) -> Vec<Resource> {
    let mut all: Vec<_> = cluster_names(model).iter().filter_map(|name| outbound(model, name, node)).collect();
    if node.role == Role::Sidecar {
        all.extend([passthrough(model), blackhole(model), original_dst(model, INBOUND_PASSTHROUGH, Protocol::Tcp)]);
        all.extend(inbound::ports(model, node).iter().map(|port| of_inbound(model, port)));
    }
    all
}

/// One cluster by its name, if the node gets it.
#[must_use]
pub fn cluster(model: &Model, node: &Node, name: &str) -> Option<Resource> {
    if let Some(parsed) = ClusterName::parse(name) {
        return cluster_names_of(model, &parsed.host).contains(&parsed).then(|| outbound(model, &parsed, node))?;
    }
    let inbound = || inbound::ports(model, node).into_iter().find(|port| inbound::cluster_name(port.number) == name);
    match name {
        _ if node.role != Role::Sidecar => None,
        BLACKHOLE => Some(blackhole(model)),
        PASSTHROUGH => Some(passthrough(model)),
        INBOUND_PASSTHROUGH => Some(original_dst(model, name, Protocol::Tcp)),
        _ => inbound().map(|port| of_inbound(model, &port)),
    }
}

/// Names of all outbound clusters.
#[must_use]
pub fn cluster_names(model: &Model) -> BTreeSet<ClusterName> {
    let mut label_sets: std::collections::BTreeMap<&Host, BTreeSet<&Labels>> = std::collections::BTreeMap::new();
    for (host, labels) in named_labels(model) {
        label_sets.entry(host).or_default().insert(labels);
    }
    let mut names = BTreeSet::new();
    for service in model.services.values() {
        let sets = label_sets.get(&service.host);
        names.extend(of_service(service, sets.into_iter().flatten().copied()));
    }
    names
}

/// Names of the outbound clusters of one service.
#[must_use]
pub fn cluster_names_of(model: &Model, host: &Host) -> BTreeSet<ClusterName> {
    let Some(service) = model.services.get(host) else { return BTreeSet::new() };
    let by_rules = model.route_rules.naming(host).iter().flat_map(|rule| targets(rule));
    let by_rules = by_rules.filter(|target| target.host == *host).map(|target| &target.labels);
    let by_policies = model.destination_policies.about(host).iter().map(|policy| &policy.labels);
    of_service(service, by_rules.chain(by_policies).filter(|labels| !labels.is_empty()))
}

/// Whether the clusters of a service differ by who asks.
pub(super) fn depends_on_source(model: &Model, host: &Host) -> bool {
    model.destination_policies.about(host).iter().any(|policy| policy.source.is_some())
}

fn of_service<'m>(service: &Service, sets: impl Iterator<Item = &'m Labels>) -> BTreeSet<ClusterName> {
    let mut names = BTreeSet::new();
    // Callers of a headless service choose an endpoint themselves, and its cluster says what the endpoints are.
    if service.resolution != Resolution::Headless && !super::has_virtual_address(service) {
        return names;
    }
    for labels in std::iter::once(Labels::new()).chain(sets.cloned()) {
        let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        names.extend(ports.map(|port| ClusterName {
            host: service.host.clone(),
            port: port.number,
            labels: labels.clone(),
        }));
    }
    names
}

/// The label sets that rules and policies name, with the service that they are about.
fn named_labels(model: &Model) -> impl Iterator<Item = (&Host, &Labels)> {
    let by_rules = model.route_rules.values().flat_map(|rule| targets(rule));
    let by_rules = by_rules.map(|target| (&target.host, &target.labels));
    let by_policies = model.destination_policies.values().map(|policy| (&policy.destination, &policy.labels));
    by_rules.chain(by_policies).filter(|(_, labels)| !labels.is_empty())
}

/// Where a rule sends requests.
fn targets(rule: &RouteRule) -> &[Target] {
    match &rule.action {
        Action::Route { to, .. } => to,
        Action::Redirect(_) => &[],
    }
}

fn outbound(model: &Model, name: &ClusterName, node: &Node) -> Option<Resource> {
    let service = model.services.get(&name.host)?;
    let policy = rules::policy_for(model, &name.host, &name.labels, node);
    let balancing = policy.map_or_else(Balancing::default, |policy| policy.balancing);
    let breaker = policy.and_then(|policy| policy.breaker);
    let outlier = policy.and_then(|policy| policy.outlier);
    let lb_policy = match balancing {
        Balancing::RoundRobin => pb::cluster::LbPolicy::RoundRobin,
        Balancing::LeastRequest => pb::cluster::LbPolicy::LeastRequest,
        Balancing::Random => pb::cluster::LbPolicy::Random,
    };
    let protocol = service.ports.iter().find(|port| port.number == name.port).map(|port| port.protocol);
    let protocol = protocol.unwrap_or(Protocol::Tcp);
    let options = protocol::options(protocol, node.role, breaker.as_ref());
    let text = name.to_string();
    let mut body = pb::Cluster {
        name: text.clone(),
        cluster_discovery_type: discovery(pb::cluster::DiscoveryType::Eds),
        eds_cluster_config: Some(pb::cluster::EdsClusterConfig {
            eds_config: Some(message::ads()),
            service_name: text.clone(),
        }),
        connect_timeout: Some(message::duration(model.mesh.connect_timeout)),
        lb_policy: lb_policy.into(),
        circuit_breakers: Some(resilience::breakers(breaker.as_ref())),
        outlier_detection: outlier.as_ref().map(resilience::outlier_detection),
        typed_extension_protocol_options: options.into_iter().collect(),
        transport_socket_matches: tls::sockets(model, node, name, protocol),
        ..Default::default()
    }
    .encode_to_vec();
    wire::field(&mut body, 25, &service_metadata(service));
    Some(wire::resource(Kind::Cluster, text, body))
}

/// The cluster of one of the workload's own ports.
fn of_inbound(model: &Model, port: &inbound::InboundPort<'_>) -> Resource {
    let name = inbound::cluster_name(port.number);
    let mut body = original_dst_body(model, &name, port.protocol);
    wire::field(&mut body, 25, &service_metadata(port.service));
    wire::resource(Kind::Cluster, name, body)
}

/// What telemetry says of the service that a cluster belongs to.
fn service_metadata(service: &Service) -> Vec<u8> {
    wire::mesh_metadata(&[
        ("host", Meta::Text(service.host.as_str())),
        ("name", Meta::Text(&service.key.name)),
        ("namespace", Meta::Text(&service.key.namespace)),
    ])
}

/// To wherever connections were going. Our own proxy finds endpoints that it knows among these addresses, and calls them by TLS; a
/// stock Envoy does not know the word.
fn passthrough(model: &Model) -> Resource {
    let mut body = original_dst_body(model, PASSTHROUGH, Protocol::Tcp);
    wire::field(&mut body, 25, &wire::mesh_metadata(&[(KNOWN_ENDPOINTS.0, Meta::Text(KNOWN_ENDPOINTS.1))]));
    wire::resource(Kind::Cluster, PASSTHROUGH.to_owned(), body)
}

fn original_dst(model: &Model, name: &str, protocol: Protocol) -> Resource {
    wire::resource(Kind::Cluster, name.to_owned(), original_dst_body(model, name, protocol))
}

fn original_dst_body(model: &Model, name: &str, protocol: Protocol) -> Vec<u8> {
    let body = pb::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: discovery(pb::cluster::DiscoveryType::OriginalDst),
        connect_timeout: Some(message::duration(model.mesh.connect_timeout)),
        lb_policy: pb::cluster::LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(resilience::breakers(None)),
        typed_extension_protocol_options: protocol::options(protocol, Role::Sidecar, None).into_iter().collect(),
        ..Default::default()
    };
    body.encode_to_vec()
}

fn blackhole(model: &Model) -> Resource {
    let body = pb::Cluster {
        name: BLACKHOLE.to_owned(),
        cluster_discovery_type: discovery(pb::cluster::DiscoveryType::Static),
        connect_timeout: Some(message::duration(model.mesh.connect_timeout)),
        ..Default::default()
    };
    wire::resource(Kind::Cluster, BLACKHOLE.to_owned(), body.encode_to_vec())
}

fn discovery(discovery: pb::cluster::DiscoveryType) -> Option<pb::cluster::ClusterDiscoveryType> {
    Some(pb::cluster::ClusterDiscoveryType::Type(discovery.into()))
}
