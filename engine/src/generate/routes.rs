//! Rules → `RouteConfiguration`, one per service and port.

pub(super) mod of_service;
mod rule;

use std::num::NonZeroU16;

use api::model::{Host, Model, Node, Port, Protocol, Role, Service};
use prost::Message;

use super::message::anywhere;
use super::{ClusterName, Resource, gateway, wire};
use crate::proto::{Kind, protobuf, route as pb};

use of_service::DEFAULT_TIMEOUT;
use of_service::routes_of;
use rule::{Encoded, to_cluster};

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

fn http_ports(model: &Model) -> impl Iterator<Item = (&Service, &Port)> {
    model.services.values().filter(|service| super::has_virtual_address(service)).flat_map(|service| {
        service.ports.iter().filter(|port| routes_http(port.protocol)).map(move |port| (&**service, port))
    })
}

/// Whether requests on a port of this protocol are routed one by one.
fn routes_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Auto)
}
