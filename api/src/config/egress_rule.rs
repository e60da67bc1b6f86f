//! `EgressRule`: services outside of the mesh that may be called.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{IstioService, Surroundings, check};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `spec` of an egress rule, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// The service, by `service` alone: a domain, a wildcard or a range of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IstioService>,
    /// Ports that may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<EgressPort>>,
    /// Whether calls go through a proxy at the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_egress_proxy: Option<bool>,
}

/// One port of an egress rule, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EgressPort {
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// What is spoken there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Protocols that know host names.
const HTTP: [&str; 4] = ["http", "https", "http2", "grpc"];
/// Protocols that know addresses alone.
const TCP: [&str; 2] = ["tcp", "mongo"];

impl Read for EgressRule {
    const WHAT: &'static str = "a mapping with `destination` and `ports`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let rule = EgressRule {
            destination: fields.required("destination"),
            ports: fields.optional("ports"),
            use_egress_proxy: fields.optional("useEgressProxy"),
        };
        fields.end();
        Some(rule)
    }
}

impl Read for EgressPort {
    const WHAT: &'static str = "a mapping with `port` and `protocol`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let port = EgressPort { port: fields.required("port"), protocol: fields.required("protocol") };
        fields.end();
        Some(port)
    }
}

impl EgressRule {
    /// Checks the rule, with `context` looking at `spec`.
    pub fn check(&self, around: &Surroundings<'_>, context: &mut Context<'_>) {
        let notation = self.destination.as_ref().and_then(|destination| {
            context.within("destination", |context| check_destination(destination, around, context))
        });
        let ports = self.ports.as_deref().unwrap_or_default();
        context.within("ports", |context| {
            if ports.is_empty() && context.is_clean() {
                context.error_with_hint("`ports` names no port", "add one, as `- {port: 443, protocol: https}`");
            }
            let mut seen = BTreeSet::new();
            for (index, port) in ports.iter().enumerate() {
                context.within(index, |context| {
                    port.check(notation, context);
                    if port.port.is_some_and(|number| !seen.insert(number)) {
                        context.within("port", |context| context.error("the port is here a second time"));
                    }
                });
            }
        });
        if self.use_egress_proxy == Some(true) {
            context.within("useEgressProxy", |context| {
                context.error_with_hint(
                    "`useEgressProxy` is not supported",
                    "leave it out: sidecars call the service themselves",
                );
            });
        }
    }
}

/// How a destination is written, which decides the protocols that go with it.
#[derive(Clone, Copy, PartialEq)]
enum Notation {
    Range,
    Address,
    Domain,
}

/// Checks the destination; says how it is written, if it is good.
fn check_destination(
    destination: &IstioService,
    around: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> Option<Notation> {
    let has_name = destination.name.is_some();
    if !destination.check(context) {
        return None;
    }
    if has_name || destination.service.is_none() {
        let name = destination.name.as_deref().unwrap_or("example");
        context.error_with_hint(
            "an egress rule names its destination by `service` alone",
            format!("write `service: {name}.com`; services of namespace {} need no rule", around.key.namespace),
        );
    }
    if destination.labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
        context.within("labels", |context| context.error("a service outside of the mesh has no labels"));
    }
    let service = destination.service.as_deref()?;
    Some(match check::is_ipv4_range(service) {
        true if service.contains('/') => Notation::Range,
        true => Notation::Address,
        false => Notation::Domain,
    })
}

impl EgressPort {
    fn check(&self, notation: Option<Notation>, context: &mut Context<'_>) {
        if let Some(port) = self.port.filter(|port| !(1..=65535).contains(port)) {
            context
                .within("port", |context| context.error(format!("`port` is {port}, which is not between 1 and 65535")));
        }
        let Some(protocol) = &self.protocol else { return };
        let lower = protocol.to_ascii_lowercase();
        context.within("protocol", |context| {
            if !HTTP.contains(&lower.as_str()) && !TCP.contains(&lower.as_str()) {
                let hint = format!("the protocols are {} and {}", HTTP.join(", "), TCP.join(", "));
                context.error_with_hint(format!("`{protocol}` is not a protocol of egress rules"), hint);
            } else if notation == Some(Notation::Range) && HTTP.contains(&lower.as_str()) {
                context.error_with_hint(
                    format!("a range of addresses does not go with {protocol}, which knows host names"),
                    "use the protocol tcp, or a host name",
                );
            } else if notation == Some(Notation::Domain) && TCP.contains(&lower.as_str()) {
                context.error_with_hint(
                    format!("a host name does not go with {protocol}, which knows addresses alone"),
                    "use a range of addresses as `service`, or a protocol such as https",
                );
            }
        });
    }
}
