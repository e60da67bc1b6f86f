//! What one workload's inbound listener is made of.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use api::model::{Host, Model, Node, Protocol, Service};

/// A port at which a workload serves.
#[derive(Debug, Clone)]
pub(super) struct InboundPort<'m> {
    /// The port at the workload.
    pub(super) number: NonZeroU16,
    /// What is spoken there.
    pub(super) protocol: Protocol,
    /// The service that it belongs to, for telemetry; the first, if there are several.
    pub(super) service: &'m Service,
    /// The services that are served there, each with its own port.
    pub(super) services: Vec<(Host, NonZeroU16)>,
}

/// Name of a port's cluster, and of its inline route configuration.
pub(super) fn cluster_name(port: NonZeroU16) -> String {
    format!("inbound|{port}")
}

/// The ports at which a workload serves its services, in order.
///
/// A workload that is not ready is no endpoint yet, so a port that it declares counts as soon as another endpoint of
/// the service has it, or the service itself does: the listener then stays the same when the workload becomes ready.
/// Where two services say different things of one port it is found out by the first bytes.
pub(super) fn ports<'m>(model: &'m Model, node: &Node) -> Vec<InboundPort<'m>> {
    let mut ports: BTreeMap<NonZeroU16, InboundPort<'m>> = BTreeMap::new();
    for host in &node.services {
        let Some(service) = model.services.get(host) else { continue };
        let endpoints = model.endpoints.get(host).map_or(&[][..], |endpoints| endpoints);
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let of_port = endpoints.iter().filter(|endpoint| endpoint.service_port == port.number);
            let own = of_port.clone().filter(|endpoint| endpoint.workload.key == node.workload.key);
            let declared = |number: &NonZeroU16| node.workload.ports.contains(number);
            let others = of_port.map(|endpoint| endpoint.port).chain([port.number]).filter(declared);
            let is_endpoint = own.clone().next().is_some();
            let numbers: Vec<_> = own.map(|e| e.port).chain(others.filter(|_| !is_endpoint)).collect();
            for number in numbers {
                let new = || InboundPort { number, protocol: port.protocol, service, services: Vec::new() };
                let known = ports.entry(number).or_insert_with(new);
                if known.protocol != port.protocol {
                    known.protocol = Protocol::Auto;
                }
                let served = (host.clone(), port.number);
                if !known.services.contains(&served) {
                    known.services.push(served);
                }
            }
        }
    }
    ports.into_values().collect()
}
