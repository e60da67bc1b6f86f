//! Rules → `RouteConfiguration`, one per service and port.

mod rule;

use std::num::NonZeroU16;
use std::time::Duration;

use api::model::{Host, Model, Node, Port, Protocol, Role, Service};
use prost::Message;

use super::{ClusterName, Resource, gateway, rules, wire};
use crate::proto::{Kind, protobuf, route as pb};

pub(super) use rule::{Encoded, of_rule, quoted, to_cluster};

/// Every route configuration that a node's listeners name.
#[must_use]
pub fn routes(model: &Model, node: &Node) -> Vec<Resource> {
    match node.role {
        Role::Gateway => vec![gateway::route_config(model, node)],
        Role::Sidecar => {
            http_ports(model).map(|(service, port)| route_config(model, service, port.number, node)).collect()
        }
    }
}

/// Names of all route configurations that a node's listeners name.
#[must_use]
pub fn route_names(model: &Model, node: &Node) -> Vec<String> {
    match node.role {
        Role::Gateway => vec![gateway::ROUTES.to_owned()],
        Role::Sidecar => {
            http_ports(model).map(|(service, port)| super::route_name(&service.host, port.number)).collect()
        }
    }
}

/// One route configuration by its name, if the node gets it.
#[must_use]
pub fn route_resource(model: &Model, node: &Node, name: &str) -> Option<Resource> {
    if node.role == Role::Gateway {
        return (name == gateway::ROUTES).then(|| gateway::route_config(model, node));
    }
    let (host, port) = name.rsplit_once(':')?;
    let port: NonZeroU16 = port.parse().ok()?;
    let service = model.services.get(&Host::new(host))?;
    let is_http = |of: &&Port| of.number == port && routes_http(of.protocol);
    service.ports.iter().find(is_http)?;
    super::has_virtual_address(service).then(|| route_config(model, service, port, node))
}

/// The route configuration of one port of a service, as a node's requests meet it.
#[must_use]
pub fn route_config(model: &Model, service: &Service, port: NonZeroU16, node: &Node) -> Resource {
    let name = super::route_name(&service.host, port);
    let mut host =
        pb::VirtualHost { name: name.clone(), domains: vec!["*".to_owned()], ..Default::default() }.encode_to_vec();
    for route in routes_of(model, &service.host, port, node, None) {
        wire::field(&mut host, 3, &route);
    }
    wire::field(&mut host, 3, &connect(&ClusterName::of(&service.host, port).to_string()));
    let mut body = pb::RouteConfiguration { name: name.clone(), ..Default::default() }.encode_to_vec();
    wire::field(&mut body, 2, &host);
    wire::resource(Kind::Route, name, body)
}

/// The routes of a service's port: its rules, then the default unless a rule takes everything.
///
/// With an Ingress' path every route is for that path, and a rule's own condition on the path comes on top.
pub(super) fn routes_of(
    model: &Model,
    host: &Host,
    port: NonZeroU16,
    node: &Node,
    ingress: Option<&pb::route_match::PathSpecifier>,
) -> Vec<Encoded> {
    let rules = rules::rules_for(model, host, node);
    let timeout = default_timeout(model, host, port);
    let mut routes: Vec<_> = rules.iter().map(|rule| of_rule(model, rule, (port, timeout), ingress)).collect();
    if rules.last().is_none_or(|rule| !rule.conditions.is_empty()) {
        let cluster = ClusterName::of(host, port).to_string();
        let path = ingress.cloned().unwrap_or_else(anywhere);
        routes.push(to_cluster("default", path, &cluster, timeout).encode_to_vec());
    }
    routes
}

/// The inline route configuration of an inbound port: everything to the application, without a timeout.
pub(super) fn inbound(cluster: &str) -> pb::RouteConfiguration {
    pb::RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![pb::VirtualHost {
            name: cluster.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![
                to_cluster("default", anywhere(), cluster, None),
                to_cluster("connect", tunnel(), cluster, None),
            ],
            ..Default::default()
        }],
        validate_clusters: Some(protobuf::BoolValue { value: false }),
        ..Default::default()
    }
}

/// The route of CONNECT, which has no path: to the service itself, which is a proxy if it is asked this.
fn connect(cluster: &str) -> Encoded {
    to_cluster("connect", tunnel(), cluster, Some(DEFAULT_TIMEOUT)).encode_to_vec()
}

fn tunnel() -> pb::route_match::PathSpecifier {
    pb::route_match::PathSpecifier::ConnectMatcher(pb::route_match::ConnectMatcher {})
}

/// Any path.
pub(super) fn anywhere() -> pb::route_match::PathSpecifier {
    pb::route_match::PathSpecifier::Prefix("/".to_owned())
}

fn http_ports(model: &Model) -> impl Iterator<Item = (&Service, &Port)> {
    model.services.values().filter(|service| super::has_virtual_address(service)).flat_map(|service| {
        service.ports.iter().filter(|port| routes_http(port.protocol)).map(move |port| (&**service, port))
    })
}

/// Whether requests on a port of this protocol are routed one by one.
fn routes_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Auto)
}

/// How long a request on a service's port may take unless a rule says otherwise. Calls of gRPC, and what else is declared
/// to be HTTP/2, may be streams that last as long as they like.
fn default_timeout(model: &Model, host: &Host, port: NonZeroU16) -> Option<Duration> {
    let service = model.services.get(host);
    let of_port = service.and_then(|service| service.ports.iter().find(|of| of.number == port));
    match of_port.map(|port| port.protocol) {
        Some(Protocol::Http2 | Protocol::Grpc) => None,
        _ => Some(DEFAULT_TIMEOUT),
    }
}

/// How long a request of HTTP may take unless a rule says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
