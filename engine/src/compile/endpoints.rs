//! `ClusterLoadAssignment` → endpoints.

use std::collections::HashMap;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;

use super::strict::{At, Refusal, decode, named, nothing_left, socket_address};
use crate::proto::{core, endpoint as pb};
use crate::tables::{Endpoint, Endpoints, Load, Name};

/// Metadata by which a cluster chooses how to connect to an endpoint.
pub(crate) const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Compiles an assignment that came by EDS. Counters of addresses that stay are those of `old`.
pub(super) fn compile(name: &str, body: &[u8], old: Option<&Endpoints>) -> Result<Endpoints, Refusal> {
    let message: pb::ClusterLoadAssignment = decode(body)?;
    named(name, &message.cluster_name)?;
    assignment(message, old)
}

/// Compiles an assignment.
pub(super) fn assignment(
    mut message: pb::ClusterLoadAssignment,
    old: Option<&Endpoints>,
) -> Result<Endpoints, Refusal> {
    let name = Name::new(&take(&mut message.cluster_name));
    let known: HashMap<SocketAddr, &Arc<Load>> =
        old.into_iter().flat_map(Endpoints::all).map(|endpoint| (endpoint.address, &endpoint.load)).collect();
    // Kept in the order in which they came; an address that comes twice counts once, as in Envoy.
    let mut seen = std::collections::HashSet::new();
    let (mut ready, mut others) = (Vec::new(), Vec::new());
    for (nth, locality) in take(&mut message.endpoints).into_iter().enumerate() {
        for endpoint in of_locality(locality, &known).at_nth("endpoints", nth)? {
            if seen.insert(endpoint.address) {
                if endpoint.ready { &mut ready } else { &mut others }.push(Arc::new(endpoint));
            }
        }
    }
    nothing_left(&message)?;
    let count = ready.len();
    ready.append(&mut others);
    let turn = old.map_or_else(Arc::default, |old| Arc::clone(&old.turn));
    let ejections = old.map_or_else(Arc::default, |old| Arc::clone(&old.ejections));
    Ok(Endpoints { name, all: ready.into(), ready: count, turn, ejections })
}

fn of_locality(
    mut locality: pb::LocalityLbEndpoints,
    known: &HashMap<SocketAddr, &Arc<Load>>,
) -> Result<Vec<Endpoint>, Refusal> {
    // Where endpoints are changes nothing as long as nothing is weighed by it.
    locality.locality = None;
    let endpoints = take(&mut locality.lb_endpoints)
        .into_iter()
        .enumerate()
        .map(|(nth, endpoint)| one(endpoint, known).at_nth("lb_endpoints", nth))
        .collect::<Result<_, _>>()?;
    nothing_left(&locality)?;
    Ok(endpoints)
}

fn one(mut message: pb::LbEndpoint, known: &HashMap<SocketAddr, &Arc<Load>>) -> Result<Endpoint, Refusal> {
    let status = core::HealthStatus::try_from(take(&mut message.health_status))
        .map_err(|error| Refusal::invalid(format!("health_status: {error}")))?;
    let mut metadata = message.metadata.take().unwrap_or_default();
    let socket_words = metadata.filter_metadata.remove(SOCKET_MATCH).map(super::tls::words).transpose();
    let socket_words = socket_words.at(SOCKET_MATCH).at("metadata")?.unwrap_or_default();
    let text = |key: &str| mesh_text(&metadata, key);
    if message.load_balancing_weight.is_some_and(|weight| weight.value == 1) {
        message.load_balancing_weight = None;
    }
    let mut endpoint = match message.host_identifier.take() {
        Some(pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(pb::lb_endpoint::HostIdentifier::EndpointName(_)) => return Err(Refusal::not_in_force("endpoint_name")),
        None => return Err(Refusal::invalid("the endpoint is missing")),
    };
    let address = socket_address(endpoint.address.take()).at("endpoint.address")?;
    if address.port() == 0 {
        return Err(Refusal::invalid("the endpoint has no port"));
    }
    nothing_left(&endpoint).at("endpoint")?;
    nothing_left(&message)?;
    Ok(Endpoint {
        address,
        ready: matches!(
            status,
            core::HealthStatus::Unknown | core::HealthStatus::Healthy | core::HealthStatus::Degraded
        ),
        draining: status == core::HealthStatus::Draining,
        others: text("addresses").split(',').filter_map(|address| address.parse().ok()).collect(),
        workload: text("workload"),
        namespace: text("namespace"),
        app: text("app"),
        version: text("version"),
        service_account: text("service_account"),
        speaks_h2: &*text("proxy") == "h2",
        socket_words,
        load: known.get(&address).map_or_else(Arc::default, |load| Arc::clone(load)),
    })
}

/// A text in the mesh's own metadata; empty if it is not there. Metadata of others is nobody's business here.
pub(super) fn mesh_text(metadata: &core::Metadata, key: &str) -> Box<str> {
    use crate::proto::protobuf::value::Kind;
    let value = metadata.filter_metadata.get("mesh").and_then(|mesh| mesh.fields.get(key));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.as_str().into(),
        _ => "".into(),
    }
}
