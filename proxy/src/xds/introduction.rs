//! What the proxy tells Pilot of itself: how much of its traffic is by mutual TLS, and its identity: the certificate in force and the roots that it trusts, so that
//! `proxy-status` can show them and a rotation of roots knows who has which.

use std::time::SystemTime;

use api::messages::{TrafficStatus, node_metadata as field};
use engine::Kind;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::value::Kind as Is;
use envoy_types::pb::google::protobuf::{Struct, Value};
use runtime::svid::Svids;
use runtime::svid::report::stamp;

/// The node with its identity as it is now, and what there was of traffic.
pub(super) fn node(node: &Node, svids: &Svids, traffic: TrafficStatus) -> Node {
    let text = |text: String| Value { kind: Some(Is::StringValue(text)) };
    let time = |time: SystemTime| text(stamp(time));
    let mut fields: Vec<(&str, Value)> = vec![(field::TLS, text(field::TLS_OWN.to_owned()))];
    if traffic != TrafficStatus::default() {
        fields.push((field::TRAFFIC_MUTUAL_TLS, text(traffic.mutual_tls.to_string())));
        fields.push((field::TRAFFIC_CLEAR_TEXT, text(traffic.clear_text.to_string())));
    }
    if let Some(svid) = svids.current() {
        fields.push((field::SVID, text(svid.id.to_string())));
        fields.push((field::SVID_SERIAL, text(svid.serial.clone())));
        fields.push((field::SVID_ISSUER, text(svid.issuer.clone())));
        fields.push((field::SVID_SINCE, time(svid.since)));
        fields.push((field::SVID_NOT_AFTER, time(svid.not_after)));
    }
    if let Some(bundle) = svids.bundle() {
        fields.push((field::BUNDLE, text(bundle.version())));
    }
    let mut node = node.clone();
    let metadata = node.metadata.get_or_insert_with(Struct::default);
    metadata.fields.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    node
}

/// Whether Pilot asks the proxy to renew its identity; then gives the answer to it.
pub(super) fn renewal(response: &DeltaDiscoveryResponse) -> Option<DeltaDiscoveryRequest> {
    (response.type_url == field::RENEW).then(|| DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    })
}

/// A request on a running stream that asks for nothing and only says who the proxy is now.
pub(super) fn again(of: &Node, svids: &Svids, traffic: TrafficStatus) -> DeltaDiscoveryRequest {
    let type_url = Kind::Listener.type_url().to_owned();
    DeltaDiscoveryRequest { node: Some(node(of, svids, traffic)), type_url, ..Default::default() }
}
