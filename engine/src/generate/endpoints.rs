//! Endpoints → `ClusterLoadAssignment`.

use api::model::{Endpoint, Health, Model};
use prost::Message;

use super::wire::{self, Meta};
use super::{ClusterName, Resource, clusters, message, tls};
use crate::proto::{Kind, core, endpoint};

/// Every assignment that clusters ask for.
#[must_use]
pub fn endpoints(model: &Model) -> Vec<Resource> {
    clusters::cluster_names(model).iter().filter_map(|name| cluster_load_assignment(model, name)).collect()
}

/// The endpoints of one cluster; `None` if the service has no such port.
#[must_use]
pub fn cluster_load_assignment(model: &Model, name: &ClusterName) -> Option<Resource> {
    let service = model.services.get(&name.host)?;
    service.ports.iter().find(|port| port.number == name.port)?;
    let all = model.endpoints.get(&name.host).map_or(&[][..], |endpoints| endpoints);
    let words = tls::metadata(model, service, name.port);
    let mut locality = Vec::new();
    for endpoint in all.iter().filter(|endpoint| belongs(endpoint, name)) {
        let words = if endpoint.workload.takes_tls { &words[..] } else { &[] };
        wire::field(&mut locality, 2, &lb_endpoint(endpoint, words));
    }
    let text = name.to_string();
    let mut body = endpoint::ClusterLoadAssignment { cluster_name: text.clone(), ..Default::default() }.encode_to_vec();
    if !locality.is_empty() {
        wire::field(&mut body, 2, &locality);
    }
    Some(wire::resource(Kind::Endpoints, text, body))
}

fn belongs(endpoint: &Endpoint, name: &ClusterName) -> bool {
    endpoint.service_port == name.port
        && name.labels.iter().all(|(key, value)| endpoint.workload.labels.get(key) == Some(value))
}

fn lb_endpoint(from: &Endpoint, words: &[u8]) -> Vec<u8> {
    let status = match from.health {
        Health::Ready => core::HealthStatus::Unknown,
        Health::Draining => core::HealthStatus::Draining,
    };
    let address = message::socket_address(from.address, from.port.get());
    let mut bytes = endpoint::LbEndpoint {
        health_status: status.into(),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        ..Default::default()
    }
    .encode_to_vec();
    let workload = &from.workload;
    let label = |key: &str| workload.labels.get(key).map_or("", String::as_str);
    let mut metadata = words.to_vec();
    let others = workload.addresses.iter().filter(|address| **address != from.address).map(ToString::to_string);
    let others = others.collect::<Vec<_>>().join(",");
    metadata.extend(wire::mesh_metadata(&[
        // Where else its connections may come from.
        ("addresses", Meta::Text(&others)),
        ("app", Meta::Text(label("app"))),
        ("namespace", Meta::Text(&workload.key.namespace)),
        // What a proxy beside it takes from another one. Others do not know the word.
        ("proxy", Meta::Text(if workload.has_sidecar { "h2" } else { "" })),
        ("service_account", Meta::Text(&workload.service_account)),
        ("version", Meta::Text(label("version"))),
        ("workload", Meta::Text(&workload.owner)),
    ]));
    wire::field(&mut bytes, 3, &metadata);
    bytes
}
