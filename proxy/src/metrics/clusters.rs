//! What clusters count, read from their tables when somebody asks: nothing is looked up on the path.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use engine::tables::{Cluster, Tables};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// A counter of clusters: its name, its help, the second label of each of its series, and where it stands.
type Family<'f> = (&'f str, &'f str, &'f [(&'f str, fn(&Cluster) -> u64)]);

/// What there is at the moment.
const GAUGES: &[Family<'_>] = &[
    (
        "mesh_upstream_connections_open",
        "Connections to the cluster that are open or being made",
        &[("", |cluster| now(&cluster.usage.connections))],
    ),
    ("mesh_upstream_requests_active", "Requests that are active", &[("", |cluster| now(&cluster.usage.requests))]),
    (
        "mesh_upstream_requests_pending",
        "Requests that wait for a connection",
        &[("", |cluster| now(&cluster.usage.pending))],
    ),
    ("mesh_upstream_retries_active", "Retries that are active", &[("", |cluster| now(&cluster.usage.retries))]),
];

const FAMILIES: &[Family<'_>] = &[
    ("mesh_upstream_connections", "Connections made", &[("", |cluster| count(&cluster.usage.connected))]),
    (
        "mesh_upstream_connect_failures",
        "Connections that could not be made",
        &[("", |cluster| count(&cluster.usage.connects_failed))],
    ),
    ("mesh_upstream_retries", "Requests that were tried again", &[("", |cluster| count(&cluster.usage.retried))]),
    (
        "mesh_upstream_retries_refused",
        "Requests that failed though their route would have them tried again",
        &[
            ("attempts", |cluster| count(&cluster.usage.retries_exhausted)),
            ("budget", |cluster| count(&cluster.usage.retries_refused)),
        ],
    ),
    (
        "mesh_upstream_overflow",
        "Requests and connections that the circuit breaker refused",
        &[
            ("connections", |cluster| count(&cluster.usage.connections_refused)),
            ("pending", |cluster| count(&cluster.usage.pending_refused)),
            ("requests", |cluster| count(&cluster.usage.requests_refused)),
        ],
    ),
    (
        "mesh_upstream_ejections",
        "Endpoints that were ejected after failures",
        &[("", |cluster| cluster.endpoints.as_ref().map_or(0, |endpoints| endpoints.ejections.total()))],
    ),
];

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn now(gauge: &AtomicU32) -> u64 {
    gauge.load(Ordering::Relaxed).into()
}

/// Writes what is not at zero of all clusters.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, tables: &Tables) -> Result<(), fmt::Error> {
    let mut clusters: Vec<&Cluster> = tables.clusters().map(|cluster| &**cluster).collect();
    clusters.sort_by_key(|cluster| cluster.spec.name.as_str());
    write(encoder, &clusters, (GAUGES, MetricType::Gauge))?;
    write(encoder, &clusters, (FAMILIES, MetricType::Counter))
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    clusters: &[&Cluster],
    (families, kind): (&[Family<'_>], MetricType),
) -> Result<(), fmt::Error> {
    for (name, help, series) in families {
        let counted: Vec<_> = clusters
            .iter()
            .flat_map(|cluster| series.iter().map(move |(limit, of)| (cluster, limit, of(cluster))))
            .map(|(cluster, limit, count)| (cluster.spec.name.as_str(), *limit, count))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        if counted.is_empty() {
            continue;
        }
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (cluster, limit, count) in counted {
            let labels = [("cluster", cluster), ("limit", limit)];
            let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>();
            let encoder = metric.encode_family(&labels)?;
            match kind {
                MetricType::Gauge => ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(encoder)?,
                _ => ConstCounter::new(count).encode(encoder)?,
            }
        }
    }
    Ok(())
}
