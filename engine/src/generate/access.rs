//! Who is let in at a workload's ports → the filters that stand before them.
//!
//! What is fixed when the filters are made (the service, its labels, its port) is decided here; the rest is asked per
//! request. Where several services share a port, nobody can tell which of them a caller means: the stricter of what is
//! said of them holds, and a role for one of them is enough to reach the port.

mod denials;
mod guards;
mod rules;
mod tokens;

use std::num::NonZeroU16;
use std::sync::Arc;

use api::model::{AuthenticationPolicy, Model, MtlsMode, Node, PortRef, Protocol, Service};
use api::names::CLASSIC_AUTH;

use super::inbound::{self, InboundPort};
use crate::proto::listener as pb;

pub(super) use self::guards::Guards;
use self::guards::{Policies, Rules};

/// How callers of a port of a service must prove who they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied<'m> {
    /// By mutual TLS, and what says so. Where nothing does it is as the mesh has it.
    pub mtls: Option<(MtlsMode, Said<'m>)>,
    /// By tokens, as each of these policies says.
    pub tokens: Vec<&'m Arc<AuthenticationPolicy>>,
}

/// What says how workloads prove who they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Said<'m> {
    /// A policy.
    Policy(&'m Arc<AuthenticationPolicy>),
    /// The annotation of a Service, for this port.
    Annotation(&'m Service, NonZeroU16),
    /// The setting of the mesh as a whole.
    Mesh,
}

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Said::Policy(policy) => write!(f, "authentication-policy/{}", policy.key),
            Said::Annotation(service, port) => write!(f, "service/{}/{CLASSIC_AUTH}{port}", service.key),
            Said::Mesh => f.write_str("mesh/authPolicy"),
        }
    }
}

impl Applied<'_> {
    /// The mode in force.
    #[must_use]
    pub fn mode(&self, model: &Model) -> MtlsMode {
        self.mtls.map_or(model.mesh.mtls, |(mode, _)| mode)
    }
}

/// The policies about a port of a service: those about the port go before those about the service, its namespace and the
/// mesh, each for what it says. Of several that are as close, the stricter holds.
#[must_use]
pub fn authentication<'m>(
    model: &'m Model,
    namespace: &str,
    service: Option<(&'m Service, NonZeroU16)>,
) -> Applied<'m> {
    let mut close: [Vec<&Arc<AuthenticationPolicy>>; 4] = Default::default();
    for policy in model.access.authentication.values() {
        if policy.is_mesh_wide() {
            close[3].push(policy);
        }
        if policy.key.namespace != namespace {
            continue;
        }
        if policy.targets.is_empty() {
            close[2].push(policy);
        }
        let Some((service, number)) = service else { continue };
        for target in policy.targets.iter().filter(|target| target.service == service.host) {
            let name = service.ports.iter().find(|port| port.number == number).map(|port| port.name.as_str());
            let is_port = |port: &PortRef| match port {
                PortRef::Number(wanted) => *wanted == number,
                PortRef::Name(wanted) => name == Some(wanted),
            };
            match target.ports.as_slice() {
                [] => close[1].push(policy),
                ports if ports.iter().any(is_port) => close[0].push(policy),
                _ => {}
            }
        }
    }
    let annotated = service.and_then(|(service, number)| {
        let port = service.ports.iter().find(|port| port.number == number)?;
        Some((port.mtls?, Said::Annotation(service, number)))
    });
    let of_policies = |policies: &[&'m Arc<AuthenticationPolicy>]| {
        let modes = policies.iter().filter_map(|policy| Some((policy.mtls?, *policy)));
        let strictest = modes.max_by(|(one, a), (other, b)| one.cmp(other).then_with(|| b.key.cmp(&a.key)));
        strictest.map(|(mode, policy)| (mode, Said::Policy(policy)))
    };
    // An annotation is about a port, as the closest policies are. Of two that are as strict, the policy is named.
    let closest = annotated.into_iter().chain(of_policies(&close[0])).max_by_key(|(mode, _)| *mode);
    let mtls = closest.or_else(|| close[1..].iter().find_map(|policies| of_policies(policies)));
    let of_tokens = close.iter().find(|policies| policies.iter().any(|policy| policy.origins.is_some()));
    let asks =
        |policy: &&&Arc<AuthenticationPolicy>| policy.origins.as_ref().is_some_and(|origins| !origins.is_empty());
    Applied { mtls, tokens: of_tokens.into_iter().flatten().filter(asks).copied().collect() }
}

/// What stands before a port at which services are served.
pub(super) fn of_port(model: &Model, node: &Node, port: &InboundPort<'_>) -> Guards {
    let services = served(model, port);
    let applied = at_port(model, node, &services);
    let mut guards = Guards::default();
    guards.strict(&applied);
    tokens::add(model, &applied.tokens, port.protocol == Protocol::Auto, &mut guards);
    let services: Vec<&Service> = services.into_iter().map(|(service, _)| service).collect();
    denials::add(model, node, &services, &mut guards);
    rules::add(model, node, &services, Some(port.number), &mut guards);
    guards
}

/// Whether callers of a port of a workload must prove who they are by mutual TLS, and what says so.
#[must_use]
pub fn mtls_at<'m>(model: &'m Model, node: &Node, port: NonZeroU16) -> (MtlsMode, Said<'m>) {
    let known = inbound::ports(model, node).into_iter().find(|known| known.number == port);
    let applied = match known {
        Some(port) => at_port(model, node, &served(model, &port)),
        None => authentication(model, &node.workload.key.namespace, None),
    };
    applied.mtls.unwrap_or((model.mesh.mtls, Said::Mesh))
}

/// The services at a port of a workload, each with its own port.
fn served<'m>(model: &'m Model, port: &InboundPort<'_>) -> Vec<(&'m Service, NonZeroU16)> {
    port.services.iter().filter_map(|(host, number)| Some((&**model.services.get(host)?, *number))).collect()
}

/// What holds where these services are served together.
fn at_port<'m>(model: &'m Model, node: &Node, services: &[(&'m Service, NonZeroU16)]) -> Applied<'m> {
    let namespace = &node.workload.key.namespace;
    let mut applied = Applied::default();
    for (service, number) in services {
        let of_service = authentication(model, namespace, Some((service, *number)));
        let mode = of_service.mode(model);
        if applied.mtls.is_none_or(|(known, _)| mode > known) {
            applied.mtls = Some((mode, of_service.mtls.map_or(Said::Mesh, |(_, said)| said)));
        }
        for policy in of_service.tokens {
            if !applied.tokens.iter().any(|known| known.key == policy.key) {
                applied.tokens.push(policy);
            }
        }
    }
    applied
}

/// What stands before the ports that belong to no service.
pub(super) fn of_no_service(model: &Model, node: &Node) -> Vec<pb::Filter> {
    let mut guards = Guards::default();
    let applied = authentication(model, &node.workload.key.namespace, None);
    guards.strict(&Applied { mtls: Some(applied.mtls.unwrap_or((model.mesh.mtls, Said::Mesh))), ..applied });
    denials::add(model, node, &[], &mut guards);
    rules::add(model, node, &[], None, &mut guards);
    guards.tcp
}

impl Guards {
    /// Callers without a certificate are kept out where they must have one: a request in clear text is answered, so that its
    /// sender learns why.
    fn strict(&mut self, applied: &Applied<'_>) {
        use crate::proto::rbac::{Principal, principal};
        let Some((MtlsMode::Strict, said)) = applied.mtls else { return };
        let anybody = principal::Authenticated { principal_name: None };
        let known = Principal { identifier: Some(principal::Identifier::Authenticated(anybody)) };
        let mut policies = Policies::default();
        policies.add("mutual-tls", vec![rules::anything()], vec![known]);
        let name = said.to_string();
        self.add(&name, &Rules { enforced: Some(policies.clone()), shadow: None }, true);
        self.add(&name, &Rules { enforced: Some(policies), shadow: None }, false);
    }
}
