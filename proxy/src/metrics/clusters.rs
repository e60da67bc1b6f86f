//! What clusters count, read from their tables when somebody asks: nothing is looked up on the path.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::tables::{Cluster, Tables};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// A counter of clusters: its name, its help, the second label of each of its series, and where it stands.
type Family<'f> = (&'f str, &'f str, &'f [(&'f str, fn(&Cluster) -> u64)]);

const FAMILIES: &[Family<'_>] = &[
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

/// Writes the counters of all clusters that are not at zero.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, tables: &Tables) -> Result<(), fmt::Error> {
    let mut clusters: Vec<&Cluster> = tables.clusters().map(|cluster| &**cluster).collect();
    clusters.sort_by_key(|cluster| cluster.spec.name.as_str());
    for (name, help, series) in FAMILIES {
        let counted: Vec<_> = clusters
            .iter()
            .flat_map(|cluster| series.iter().map(move |(limit, of)| (cluster, limit, of(cluster))))
            .map(|(cluster, limit, count)| (cluster.spec.name.as_str(), *limit, count))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        if counted.is_empty() {
            continue;
        }
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (cluster, limit, count) in counted {
            let labels = [("cluster", cluster), ("limit", limit)];
            let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>();
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
