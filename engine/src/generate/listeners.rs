//! Services and workloads → `Listener`.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use api::model::{MeshTls, Model, Node, OutboundPolicy, Port, Protocol, Role, Service};
use api::names::proxy_port;

use super::chain::{chain, http_manager, ipv6_too, rds, resource, upgrade};
use super::inbound::{self, InboundPort};
use super::{ClusterName, Resource, access, clusters, gateway, message, routes, tls};
use crate::proto::{core, extension, hcm, http_inspector, listener as pb, original_dst, protobuf, tls_inspector};
use crate::tables::alpn;

/// The listener that intercepted outbound connections arrive at.
pub(super) const OUTBOUND: &str = "virtual_outbound";
/// The listener that intercepted inbound connections arrive at.
pub(super) const INBOUND: &str = "virtual_inbound";

/// How long a connection's first bytes may take where they decide what is spoken; then it is opaque.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// What counts as HTTP.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
/// Words of ALPN by which the mesh's own TLS is told, with HTTP inside and with anything else.
const MESH_HTTP: [&str; 2] = [alpn::HTTP2, alpn::HTTP1];
const MESH_TCP: [&str; 1] = [alpn::OPAQUE];
/// What a connection that begins with TLS is told by, and one that does not.
const TLS: &str = "tls";
const CLEAR: &str = "raw_buffer";

/// Every listener that a node gets.
#[must_use]
pub fn listeners(model: &Model, node: &Node) -> Vec<Resource> {
    if node.role == Role::Gateway {
        return std::iter::once(gateway::listener(model)).chain(gateway::tls_listener(model)).collect();
    }
    let mut all = vec![outbound(model, node), inbound(model, node)];
    all.extend(service_ports(model).map(|(service, port, address)| of_port(service, port, address)));
    all
}

/// Names of all listeners that a node gets.
#[must_use]
pub fn listener_names(model: &Model, node: &Node) -> Vec<String> {
    if node.role == Role::Gateway {
        let tls = model.ingresses.values().any(|ingress| !ingress.passthrough.is_empty());
        return [gateway::LISTENER]
            .into_iter()
            .chain(tls.then_some(gateway::TLS_LISTENER))
            .map(str::to_owned)
            .collect();
    }
    let mut all = vec![OUTBOUND.to_owned(), INBOUND.to_owned()];
    all.extend(service_ports(model).map(|(_, port, address)| super::listener_name(address, port.number)));
    all
}

/// One listener by its name, if the node gets it.
#[must_use]
pub fn listener(model: &Model, node: &Node, name: &str) -> Option<Resource> {
    match (node.role, name) {
        (Role::Gateway, gateway::LISTENER) => Some(gateway::listener(model)),
        (Role::Gateway, gateway::TLS_LISTENER) => gateway::tls_listener(model),
        (Role::Gateway, _) => None,
        (Role::Sidecar, OUTBOUND) => Some(outbound(model, node)),
        (Role::Sidecar, INBOUND) => Some(inbound(model, node)),
        (Role::Sidecar, name) => {
            let (address, port) = name.rsplit_once('_')?;
            let (address, port): (IpAddr, NonZeroU16) = (address.parse().ok()?, port.parse().ok()?);
            service_ports(model)
                .find(|(_, of_service, at)| of_service.number == port && *at == address)
                .map(|(service, port, address)| of_port(service, port, address))
        }
    }
}

/// Every port of every service at each of its virtual addresses.
fn service_ports(model: &Model) -> impl Iterator<Item = (&Service, &Port, IpAddr)> {
    model.services.values().filter(|service| super::has_virtual_address(service)).flat_map(|service| {
        let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        ports.flat_map(move |port| service.addresses.iter().map(move |address| (&**service, port, *address)))
    })
}

fn outbound(model: &Model, node: &Node) -> Resource {
    let cluster = match model.mesh.outbound {
        OutboundPolicy::AllowAny => clusters::PASSTHROUGH,
        OutboundPolicy::RegistryOnly => clusters::BLACKHOLE,
    };
    resource(pb::Listener {
        name: OUTBOUND.to_owned(),
        address: Some(message::socket_address(Ipv4Addr::UNSPECIFIED.into(), proxy_port::OUTBOUND)),
        additional_addresses: ipv6_too(has_ipv6(node), proxy_port::OUTBOUND),
        use_original_dst: Some(protobuf::BoolValue { value: true }),
        default_filter_chain: Some(chain(cluster, None, message::tcp_filter(cluster, cluster))),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..Default::default()
    })
}

/// Whether the workload has an address of IPv6, so that connections may come to it, and go from it to anywhere.
fn has_ipv6(node: &Node) -> bool {
    node.workload.addresses.iter().any(IpAddr::is_ipv6)
}

fn of_port(service: &Service, port: &Port, address: IpAddr) -> Resource {
    let cluster = ClusterName::of(&service.host, port.number).to_string();
    let http = || http_filter(&cluster, rds(&super::route_name(&service.host, port.number)), Vec::new());
    let tcp = || message::tcp_filter(&cluster, &cluster);
    let (is_auto, is_tls) = (port.protocol == Protocol::Auto, port.protocol == Protocol::Https);
    let filter_chains = match port.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => vec![chain("http", None, http())],
        Protocol::Auto => vec![chain("http", Some(http_in_clear_text()), http())],
        // The address has chosen the service already: a name that is none of its own changes nothing but what is told.
        Protocol::Https => vec![chain("tls", Some(asking_for(service)), tcp()), chain("tcp", None, tcp())],
        _ => vec![chain("tcp", None, tcp())],
    };
    let mut listener = pb::Listener {
        name: super::listener_name(address, port.number),
        address: Some(message::socket_address(address, port.number.get())),
        bind_to_port: Some(protobuf::BoolValue { value: false }),
        filter_chains,
        // What a ClientHello offers is not what is spoken: all TLS is opaque, as is whatever is not HTTP.
        default_filter_chain: is_auto.then(|| chain("tcp", None, tcp())),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..Default::default()
    };
    if is_auto || is_tls {
        let tls = tls_inspector::TlsInspector::default();
        listener.listener_filters.push(message::listener_filter(extension::TLS_INSPECTOR, &tls));
        detect(&mut listener);
    }
    if is_auto {
        listener.listener_filters.push(http_inspector());
    }
    resource(listener)
}

fn http_in_clear_text() -> pb::FilterChainMatch {
    pb::FilterChainMatch {
        transport_protocol: CLEAR.to_owned(),
        application_protocols: HTTP.map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

/// TLS whose server name is one of those by which the service is called.
fn asking_for(service: &Service) -> pb::FilterChainMatch {
    let host = service.host.as_str();
    let mut server_names = vec![host.to_owned()];
    // `reviews.default.svc.cluster.local`, and each shorter form of it.
    let labels: Vec<&str> = host.split('.').collect();
    if labels.get(2) == Some(&"svc") {
        server_names.extend((1..=3).rev().map(|count| labels[..count].join(".")));
    }
    pb::FilterChainMatch { server_names, ..Default::default() }
}

fn inbound(model: &Model, node: &Node) -> Resource {
    let ports = inbound::ports(model, node);
    let all: Vec<_> = ports.iter().map(|port| port.number).collect();
    let auto: Vec<_> = ports.iter().filter(|port| port.protocol == Protocol::Auto).map(|port| port.number).collect();
    let passthrough = clusters::INBOUND_PASSTHROUGH;
    let mut listener = pb::Listener {
        name: INBOUND.to_owned(),
        additional_addresses: ipv6_too(has_ipv6(node), proxy_port::INBOUND),
        address: Some(message::socket_address(Ipv4Addr::UNSPECIFIED.into(), proxy_port::INBOUND)),
        listener_filters: vec![message::listener_filter(extension::ORIGINAL_DST, &original_dst::OriginalDst {})],
        filter_chains: ports.iter().flat_map(|port| inbound_chains(model, node, port)).collect(),
        default_filter_chain: Some(guarded(
            access::of_no_service(model, node),
            chain(passthrough, None, message::tcp_filter(passthrough, passthrough)),
        )),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        ..Default::default()
    };
    let takes_tls = node.tls != MeshTls::None && !all.is_empty();
    if takes_tls {
        let filter = message::listener_filter(extension::TLS_INSPECTOR, &tls_inspector::TlsInspector::default());
        listener.listener_filters.push(only_at(&all, filter));
    }
    if !auto.is_empty() {
        listener.listener_filters.push(only_at(&auto, http_inspector()));
    }
    if takes_tls || !auto.is_empty() {
        detect(&mut listener);
    }
    resource(listener)
}

/// The filter chains of a port: those for the mesh's own TLS, which its words of ALPN tell, beside those for everything else.
///
/// Who must have a certificate and has none is refused by the filters, and not by the want of a chain: connections that no
/// chain is for belong to no service. Where TLS is not wanted it is taken all the same: callers stop using it as they learn.
fn inbound_chains(model: &Model, node: &Node, port: &InboundPort<'_>) -> Vec<pb::FilterChain> {
    let guards = access::of_port(model, node, port);
    let cluster = inbound::cluster_name(port.number);
    let at_port = || pb::FilterChainMatch {
        destination_port: Some(protobuf::UInt32Value { value: port.number.get().into() }),
        ..Default::default()
    };
    let http = |name: &str, matches| {
        let route_config = routes::inbound(&cluster);
        let specifier = hcm::http_connection_manager::RouteSpecifier::RouteConfig(route_config);
        chain(&format!("{cluster}|{name}"), Some(matches), http_filter(&cluster, specifier, guards.http.clone()))
    };
    let tcp = |name: &str, matches| {
        let chain = chain(&format!("{cluster}|{name}"), Some(matches), message::tcp_filter(&cluster, &cluster));
        guarded(guards.tcp.clone(), chain)
    };
    let speaking = |transport: &str, words: &[&str]| pb::FilterChainMatch {
        transport_protocol: transport.to_owned(),
        application_protocols: words.iter().map(|word| (*word).to_owned()).collect(),
        ..at_port()
    };
    let ended = |words: &[&str], chain| pb::FilterChain { transport_socket: Some(tls::server(node, words)), ..chain };
    let has_tls = node.tls != MeshTls::None;
    let mesh_http = |transport: &str| ended(&MESH_HTTP, http("mesh-http", speaking(transport, &MESH_HTTP)));
    let mesh_tcp = |transport: &str| ended(&MESH_TCP, tcp("mesh-tcp", speaking(transport, &MESH_TCP)));
    match port.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc if has_tls => vec![mesh_http(""), http("http", at_port())],
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => vec![http("http", at_port())],
        // What a ClientHello offers must not be taken for what is spoken in clear text, and a connection that has been
        // told apart by its transport gets no chain that says nothing of it.
        Protocol::Auto if has_tls => vec![
            mesh_http(TLS),
            mesh_tcp(TLS),
            tcp("tls", speaking(TLS, &[])),
            http("http", speaking(CLEAR, &HTTP)),
            tcp("tcp", speaking(CLEAR, &[])),
        ],
        Protocol::Auto => vec![http("http", speaking("", &HTTP)), tcp("tcp", at_port())],
        _ if has_tls => vec![mesh_tcp(""), tcp("tcp", at_port())],
        _ => vec![tcp("tcp", at_port())],
    }
}

/// A filter chain with these filters before its own.
fn guarded(mut before: Vec<pb::Filter>, mut chain: pb::FilterChain) -> pb::FilterChain {
    before.append(&mut chain.filters);
    pb::FilterChain { filters: before, ..chain }
}

/// The filter that looks for HTTP in first bytes.
fn http_inspector() -> pb::ListenerFilter {
    message::listener_filter(extension::HTTP_INSPECTOR, &http_inspector::HttpInspector::default())
}

/// A filter that looks at first bytes, only on these ports, so that no other connection waits.
fn only_at(ports: &[NonZeroU16], mut filter: pb::ListenerFilter) -> pb::ListenerFilter {
    use pb::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let predicate = |rule| pb::ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| {
            let start = i32::from(port.get());
            predicate(Rule::DestinationPortRange(crate::proto::types::Int32Range { start, end: start + 1 }))
        })
        .collect();
    let any_of_them = match rules.len() {
        1 => rules.remove(0),
        _ => predicate(Rule::OrMatch(MatchSet { rules })),
    };
    filter.filter_disabled = Some(predicate(Rule::NotMatch(Box::new(any_of_them))));
    filter
}

fn detect(listener: &mut pb::Listener) {
    listener.listener_filters_timeout = Some(message::duration(DETECTION_TIMEOUT));
    listener.continue_on_listener_filters_timeout = true;
}

/// HTTP within the mesh, with these filters before all others.
fn http_filter(
    stat_prefix: &str,
    routes: hcm::http_connection_manager::RouteSpecifier,
    mut before: Vec<hcm::HttpFilter>,
) -> pb::Filter {
    let mut manager = http_manager(stat_prefix, routes);
    manager.upgrade_configs.push(upgrade(CONNECT));
    before.append(&mut manager.http_filters);
    manager.http_filters = before;
    message::network_filter(extension::HCM, &manager)
}

/// Within the mesh, where a service may be a proxy; nobody outside has a reason to tunnel through a gateway.
const CONNECT: &str = "CONNECT";
