//! The routes of a service's port.

use std::num::NonZeroU16;
use std::time::Duration;

use api::model::{Host, Model, Node, Protocol};
use prost::Message;

use super::rule::{Encoded, of_rule, to_cluster};
use crate::generate::message::anywhere;
use crate::generate::{ClusterName, rules};
use crate::proto::route as pb;

/// The routes of a service's port: its rules, then the default unless a rule takes everything.
///
/// With an Ingress' path every route is for that path, and a rule's own condition on the path comes on top.
pub(in crate::generate) fn routes_of(
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
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
