//! What the proxy has, as JSON.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

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

/// Clusters by name, with their endpoints, at a time of the data path's clock.
pub(super) fn clusters(tables: &Tables, now: u64) -> Value {
    let sorted: BTreeMap<&str, &Cluster> =
        tables.clusters().map(|cluster| (cluster.spec.name.as_str(), &**cluster)).collect();
    json!({"clusters": sorted.values().map(|cluster| cluster_json(cluster, now)).collect::<Vec<_>>()})
}

fn cluster_json(cluster: &Cluster, now: u64) -> Value {
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
        "circuitBreaker": breaker_json(cluster),
        "outlierDetection": spec.outlier.map(|outlier| json!({
            "consecutiveErrors": outlier.consecutive_errors,
            "intervalMs": u64::try_from(outlier.interval.as_millis()).unwrap_or(u64::MAX),
            "baseEjectionMs": u64::try_from(outlier.base.as_millis()).unwrap_or(u64::MAX),
            "maxEjectionPercent": outlier.max_percent,
            "ejections": cluster.endpoints.as_ref().map_or(0, |endpoints| endpoints.ejections.total()),
        })),
        "awaitsEndpoints": matches!(spec.discovery, Discovery::Eds(_)) && cluster.endpoints.is_none(),
        "endpoints": endpoints.map(|endpoint| endpoint_json(endpoint, now)).collect::<Vec<_>>(),
    })
}

/// What is open to a cluster, how much of it there may be (`null` is any number), and what there was too much of so far.
fn breaker_json(cluster: &Cluster) -> Value {
    let (limits, usage) = (cluster.spec.limits, &cluster.usage);
    let bound = |bound: u32| Some(bound).filter(|bound| *bound != u32::MAX);
    let now = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    let part = |now: u32, max: u32, refused: &AtomicU64| json!({"now": now, "max": bound(max), "refused": refused.load(Ordering::Relaxed)});
    let requests = now(&usage.requests);
    json!({
        "connections": part(now(&usage.connections), limits.connections, &usage.connections_refused),
        "pending": part(now(&usage.pending), limits.pending, &usage.pending_refused),
        "requests": part(requests, limits.requests, &usage.requests_refused),
        "retries": part(now(&usage.retries), limits.retries.bound(requests), &usage.retries_refused),
        "requestsPerConnection": cluster.spec.requests_per_connection.map(std::num::NonZero::get),
    })
}

fn endpoint_json(endpoint: &Endpoint, now: u64) -> Value {
    let is_ejected = endpoint.load.health.ejected_until(now).is_some();
    let health = match (endpoint.ready, endpoint.draining) {
        (true, _) if is_ejected => "EJECTED",
        (true, _) => "HEALTHY",
        (false, true) => "DRAINING",
        (false, false) => "UNHEALTHY",
    };
    let load = &endpoint.load;
    let ejected_for = load.health.ejected_until(now).map(|until| Duration::from_millis(until - now));
    let ejected_until = ejected_for.and_then(|left| jiff::Timestamp::now().checked_add(left).ok());
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
        "ejectedUntil": ejected_until.map(|until| until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
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
            "serverNames": chain.matches.server_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
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
