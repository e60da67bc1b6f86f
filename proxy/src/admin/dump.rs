//! What the proxy has, as JSON.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::Ordering;

use engine::Kind;
use engine::tables::{Cluster, Discovery, Endpoint, Filter, Lb, Listener, Routes, Tables};
use serde_json::{Value, json};

use crate::snapshot::{Held, Snapshots};
use crate::sockets::Served;

/// All resources in hand, by kind, and those that were refused.
pub(super) fn config(snapshots: &Snapshots) -> Value {
    let resources =
        |kind: Kind| -> Vec<Value> { snapshots.held(kind).iter().map(|held| resource(kind, held)).collect() };
    let rejected: Vec<Value> = snapshots
        .refused()
        .iter()
        .map(|refused| {
            json!({
                "name": refused.name,
                "type": refused.kind.service(),
                "version": refused.version,
                "error": refused.error,
            })
        })
        .collect();
    json!({
        "version": version(snapshots),
        "listeners": resources(Kind::Listener),
        "routes": resources(Kind::Route),
        "clusters": resources(Kind::Cluster),
        "endpoints": resources(Kind::Endpoints),
        "rejected": rejected,
        "waitingFor": snapshots.missing(),
    })
}

fn resource(kind: Kind, held: &Held) -> Value {
    match engine::text::to_json(kind, &held.body) {
        Ok(resource) => json!({"name": held.name, "version": held.version, "resource": resource}),
        Err(error) => json!({"name": held.name, "version": held.version, "error": runtime::exit::chain(&error)}),
    }
}

/// One short word for all versions in hand: equal when two proxies have the same resources.
pub(super) fn version(snapshots: &Snapshots) -> String {
    let mut hasher = foldhash::quality::FixedState::default().build_hasher();
    for kind in Kind::ALL {
        let sorted: BTreeMap<String, String> = snapshots.versions(kind).into_iter().collect();
        (kind.service(), sorted).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// How many resources of each kind are in hand.
pub(super) fn counts(snapshots: &Snapshots) -> Value {
    let counts = snapshots.counts();
    counts.into_iter().map(|(kind, count)| (kind.service().to_owned(), json!(count))).collect()
}

/// Clusters by name, with their endpoints.
pub(super) fn clusters(tables: &Tables) -> Value {
    let sorted: BTreeMap<&str, &Cluster> =
        tables.clusters().map(|cluster| (cluster.spec.name.as_str(), &**cluster)).collect();
    json!({"clusters": sorted.values().map(|cluster| cluster_json(cluster)).collect::<Vec<_>>()})
}

fn cluster_json(cluster: &Cluster) -> Value {
    let spec = &cluster.spec;
    let endpoints = cluster.endpoints.iter().flat_map(|endpoints| endpoints.all());
    json!({
        "name": spec.name.as_str(),
        "discovery": match &spec.discovery {
            Discovery::Static => "STATIC",
            Discovery::Eds(_) => "EDS",
            Discovery::OriginalDestination => "ORIGINAL_DST",
        },
        "loadBalancing": match spec.lb {
            Lb::RoundRobin => "ROUND_ROBIN",
            Lb::Random => "RANDOM",
            Lb::LeastRequest => "LEAST_REQUEST",
        },
        "connectTimeoutMs": u64::try_from(spec.connect_timeout.as_millis()).unwrap_or(u64::MAX),
        "service": spec.service.as_ref().map(|service| json!({
            "host": service.host, "name": service.name, "namespace": service.namespace,
        })),
        "awaitsEndpoints": matches!(spec.discovery, Discovery::Eds(_)) && cluster.endpoints.is_none(),
        "endpoints": endpoints.map(|endpoint| endpoint_json(endpoint)).collect::<Vec<_>>(),
    })
}

fn endpoint_json(endpoint: &Endpoint) -> Value {
    let health = match (endpoint.ready, endpoint.draining) {
        (true, _) => "HEALTHY",
        (false, true) => "DRAINING",
        (false, false) => "UNHEALTHY",
    };
    let load = &endpoint.load;
    json!({
        "address": endpoint.address.to_string(),
        "health": health,
        "workload": endpoint.workload,
        "namespace": endpoint.namespace,
        "app": endpoint.app,
        "version": endpoint.version,
        "serviceAccount": endpoint.service_account,
        "inFlight": load.in_flight(),
        "total": load.total.load(Ordering::Relaxed),
        "failed": load.failed.load(Ordering::Relaxed),
        "connections": load.connections.load(Ordering::Relaxed),
    })
}

/// Listeners by name, with the address that each has bound, or why it has not.
pub(super) fn listeners(tables: &Tables, served: &Served) -> Value {
    let sorted: BTreeMap<&str, &Listener> =
        tables.listeners().map(|listener| (listener.name.as_str(), &**listener)).collect();
    json!({"listeners": sorted.values().map(|listener| listener_json(listener, served)).collect::<Vec<_>>()})
}

fn listener_json(listener: &Listener, served: &Served) -> Value {
    let name = listener.name.as_str();
    let chains = listener.chains.iter().chain(&listener.default_chain);
    json!({
        "name": name,
        "address": listener.address.to_string(),
        "bindToPort": listener.bind,
        "boundAddress": served.bound.get(name).map(ToString::to_string),
        "error": served.failed.get(name),
        "filterChains": chains.map(|chain| json!({
            "name": chain.name,
            "destinationPort": chain.matches.destination_port,
            "applicationProtocols": chain.matches.application_protocols,
            "filter": filter_json(&chain.filter),
        })).collect::<Vec<_>>(),
    })
}

fn filter_json(filter: &Filter) -> Value {
    match filter {
        Filter::Http(http) => match &http.routes {
            Routes::Named(name) => json!({"http": {"routes": name.as_str()}}),
            Routes::Inline(table) => json!({"http": {"inlineRoutes": table.name.as_str()}}),
        },
        Filter::Tcp(tcp) => {
            let clusters: Vec<_> =
                tcp.clusters.iter().map(|to| json!({"name": to.name.as_str(), "weight": to.weight})).collect();
            json!({"tcp": {"clusters": clusters}})
        }
    }
}
