//! What listeners of sidecars and gateways are made of.

use prost::Message;

use super::{Resource, message, wire};
use crate::proto::{Kind, extension, hcm, listener as pb, protobuf};

/// A listener that also listens where there is IPv6: elsewhere the address may not even exist.
pub(super) fn ipv6_too(has_ipv6: bool, port: u16) -> Vec<pb::AdditionalAddress> {
    has_ipv6.then(|| message::every_ipv6_address(port)).into_iter().collect()
}

/// Routes by name, over the same stream.
pub(super) fn rds(name: &str) -> hcm::http_connection_manager::RouteSpecifier {
    hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
        config_source: Some(message::ads()),
        route_config_name: name.to_owned(),
    })
}

/// What clients may switch to: WebSocket, and what the Kubernetes and Docker APIs use for `exec` and `attach`.
const UPGRADES: [&str; 3] = ["websocket", "spdy/3.1", "tcp"];
pub(super) fn upgrade(protocol: &str) -> hcm::http_connection_manager::UpgradeConfig {
    hcm::http_connection_manager::UpgradeConfig { upgrade_type: protocol.to_owned(), ..Default::default() }
}

/// How HTTP is served everywhere in the mesh.
pub(super) fn http_manager(
    stat_prefix: &str,
    routes: hcm::http_connection_manager::RouteSpecifier,
) -> hcm::HttpConnectionManager {
    hcm::HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![
            message::http_filter(extension::FAULT, &crate::proto::fault::HttpFault::default()),
            message::router_filter(),
        ],
        normalize_path: Some(protobuf::BoolValue { value: true }),
        merge_slashes: true,
        path_with_escaped_slashes_action: hcm::http_connection_manager::PathWithEscapedSlashesAction::KeepUnchanged
            .into(),
        upgrade_configs: UPGRADES.map(upgrade).to_vec(),
        ..Default::default()
    }
}

/// A filter chain of one filter.
pub(super) fn chain(name: &str, matches: Option<pb::FilterChainMatch>, filter: pb::Filter) -> pb::FilterChain {
    pb::FilterChain { name: name.to_owned(), filter_chain_match: matches, filters: vec![filter], ..Default::default() }
}

/// Names and versions a listener.
pub(super) fn resource(listener: pb::Listener) -> Resource {
    let body = listener.encode_to_vec();
    wire::resource(Kind::Listener, listener.name, body)
}
