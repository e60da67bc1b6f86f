//! Ingresses → the gateway's listeners and its route configuration.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use api::model::{IngressPath, IngressRule, Model, Node, Passthrough};
use api::names::proxy_port;
use prost::Message;

use super::routes::of_service::routes_of;
use super::{ClusterName, Resource, chain, message, wire};
use crate::proto::{Kind, core, extension, listener as pb, protobuf, route, tls_inspector};

use route::route_match::PathSpecifier;

/// The gateway's listener for HTTP.
pub(super) const LISTENER: &str = "http";
/// The gateway's listener for TLS that passes through.
pub(super) const TLS_LISTENER: &str = "https";
/// The route configuration that it names.
pub(super) const ROUTES: &str = "http.8080";

/// The gateway's listener for HTTP: the same whatever Ingresses say.
pub(super) fn listener(model: &Model) -> Resource {
    let mut manager = chain::http_manager(ROUTES, chain::rds(ROUTES));
    manager.use_remote_address = Some(protobuf::BoolValue { value: true });
    let filter = message::network_filter(extension::HCM, &manager);
    chain::resource(pb::Listener {
        name: LISTENER.to_owned(),
        address: Some(message::socket_address(Ipv4Addr::UNSPECIFIED.into(), proxy_port::GATEWAY_HTTP)),
        additional_addresses: chain::ipv6_too(super::has_ipv6_services(model), proxy_port::GATEWAY_HTTP),
        filter_chains: vec![chain::chain(LISTENER, None, filter)],
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..Default::default()
    })
}

/// The gateway's listener for TLS that passes through, a filter chain for each server; none where there is no server.
///
/// What asks for another server, or for none, has no chain and is closed, and so is what is no TLS or never comes.
pub(super) fn tls_listener(model: &Model) -> Option<Resource> {
    let mut servers: BTreeMap<&str, &Passthrough> = BTreeMap::new();
    for server in model.ingresses.values().flat_map(|ingress| &ingress.passthrough) {
        // The first Ingress by namespace and name wins.
        servers.entry(&server.server_name).or_insert(server);
    }
    if servers.is_empty() {
        return None;
    }
    let chain = |(name, server): (&str, &Passthrough)| {
        let cluster = ClusterName::of(&server.service, server.port).to_string();
        let matches = pb::FilterChainMatch { server_names: vec![name.to_owned()], ..Default::default() };
        chain::chain(name, Some(matches), message::tcp_filter(&cluster, &cluster))
    };
    let inspector = message::listener_filter(extension::TLS_INSPECTOR, &tls_inspector::TlsInspector::default());
    Some(chain::resource(pb::Listener {
        name: TLS_LISTENER.to_owned(),
        address: Some(message::socket_address(Ipv4Addr::UNSPECIFIED.into(), proxy_port::GATEWAY_TLS)),
        additional_addresses: chain::ipv6_too(super::has_ipv6_services(model), proxy_port::GATEWAY_TLS),
        listener_filters: vec![inspector],
        filter_chains: servers.into_iter().map(chain).collect(),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..Default::default()
    }))
}

/// All Ingress paths, each with the rules of its service, grouped by host.
pub(super) fn route_config(model: &Model, node: &Node) -> Resource {
    let mut by_host: BTreeMap<Option<&str>, Vec<&IngressRule>> = BTreeMap::new();
    for rule in model.ingresses.values().flat_map(|ingress| &ingress.rules) {
        by_host.entry(rule.host.as_deref()).or_default().push(rule);
    }
    // A host's own paths are followed by what is for every host and path: the default back end.
    let for_all: Vec<_> =
        by_host.get(&None).into_iter().flatten().copied().filter(|rule| is_everything(&rule.path)).collect();
    let mut body =
        route::RouteConfiguration { name: ROUTES.to_owned(), ignore_port_in_host_matching: true, ..Default::default() }
            .encode_to_vec();
    for (host, mut rules) in by_host {
        if host.is_some() {
            rules.extend(&for_all);
        }
        // Stable, so that the first Ingress by namespace and name wins where two have the same path.
        rules.sort_by_key(|rule| rank(&rule.path));
        let domain = host.unwrap_or("*").to_ascii_lowercase();
        let mut encoded =
            route::VirtualHost { name: domain.clone(), domains: vec![domain], ..Default::default() }.encode_to_vec();
        for rule in rules {
            let path = specifier(&rule.path);
            for route in routes_of(model, &rule.service, rule.port, node, Some(&path)) {
                wire::field(&mut encoded, 3, &route);
            }
        }
        wire::field(&mut body, 2, &encoded);
    }
    wire::resource(Kind::Route, ROUTES.to_owned(), body)
}

/// The more specific path first: exact, then by length, then element by element before text.
fn rank(path: &IngressPath) -> (u8, Reverse<usize>, u8) {
    match path {
        IngressPath::Exact(path) => (0, Reverse(path.len()), 0),
        IngressPath::Elements(path) => (1, Reverse(path.trim_end_matches('/').len()), 0),
        IngressPath::Text(path) => (1, Reverse(path.trim_end_matches('/').len()), 1),
    }
}

fn is_everything(path: &IngressPath) -> bool {
    matches!(path, IngressPath::Elements(path) | IngressPath::Text(path) if matches!(path.as_str(), "" | "/"))
}

fn specifier(path: &IngressPath) -> PathSpecifier {
    match path {
        IngressPath::Exact(path) => PathSpecifier::Path(path.clone()),
        IngressPath::Elements(path) => match path.trim_end_matches('/') {
            "" => message::anywhere(),
            path => PathSpecifier::PathSeparatedPrefix(path.to_owned()),
        },
        IngressPath::Text(path) if path.is_empty() => message::anywhere(),
        IngressPath::Text(path) => PathSpecifier::Prefix(path.clone()),
    }
}
