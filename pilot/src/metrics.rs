//! What Pilot counts. Labels are kinds and reasons of our own: nothing unbounded comes from the network.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::resource::{Kind, Resource};

/// Pilot's metrics.
#[derive(Debug)]
pub struct Metrics {
    pushes: Family<OfKind, Counter>,
    bytes: Family<OfKind, Counter>,
    acks: Family<OfKind, Counter>,
    refused: Family<OfKind, Counter>,
    proxies: Gauge,
    refused_streams: Counter,
    changes: Counter,
    snapshots: Counter,
    snapshot_seconds: Histogram,
    problems: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    r#type: &'static str,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &runtime::metrics::Metrics) -> Arc<Self> {
        let metrics = Arc::new(Metrics {
            pushes: Family::default(),
            bytes: Family::default(),
            acks: Family::default(),
            refused: Family::default(),
            proxies: Gauge::default(),
            refused_streams: Counter::default(),
            changes: Counter::default(),
            snapshots: Counter::default(),
            snapshot_seconds: Histogram::new(exponential_buckets(0.0001, 4.0, 9)),
            problems: Gauge::default(),
        });
        let m = &metrics;
        registry.register(|registry| {
            registry.register("mesh_pilot_pushes", "Resources sent to proxies", m.pushes.clone());
            registry.register("mesh_pilot_push_bytes", "Bytes of resources sent to proxies", m.bytes.clone());
            registry.register("mesh_pilot_acks", "Responses that proxies acknowledged", m.acks.clone());
            registry.register("mesh_pilot_rejected_resources", "Resources that proxies refused", m.refused.clone());
            registry.register("mesh_pilot_proxies", "Proxies connected", m.proxies.clone());
            registry.register("mesh_pilot_refused_streams", "Streams that were not let in", m.refused_streams.clone());
            registry.register("mesh_pilot_changes", "Changes that sources reported", m.changes.clone());
            registry.register("mesh_pilot_snapshots", "Snapshots published", m.snapshots.clone());
            registry.register("mesh_pilot_snapshot_seconds", "Time to make a snapshot", m.snapshot_seconds.clone());
            registry.register("mesh_pilot_problem_objects", "Objects with problems", m.problems.clone());
        });
        metrics
    }

    /// Resources are sent.
    pub fn pushed(&self, kind: Kind, resources: &[Arc<Resource>]) {
        let bytes: usize = resources.iter().map(|resource| resource.entry().len()).sum();
        self.pushes.get_or_create(&of(kind)).inc_by(resources.len() as u64);
        self.bytes.get_or_create(&of(kind)).inc_by(bytes as u64);
    }

    /// A response is acknowledged.
    pub fn acknowledged(&self, kind: Kind) {
        self.acks.get_or_create(&of(kind)).inc();
    }

    /// Resources of a response are refused.
    pub fn refused(&self, kind: Kind, count: u64) {
        self.refused.get_or_create(&of(kind)).inc_by(count);
    }

    /// A proxy comes. It goes when the returned value is dropped.
    #[must_use]
    pub fn connected(&self) -> impl Drop + use<> {
        self.proxies.inc();
        Goes(self.proxies.clone())
    }

    /// Somebody is not let in.
    pub fn refused_stream(&self) {
        self.refused_streams.inc();
    }

    /// A snapshot is published, made of so many changes.
    pub fn published(&self, changes: usize, took: Duration, problems: usize) {
        self.changes.inc_by(changes as u64);
        self.snapshots.inc();
        self.snapshot_seconds.observe(took.as_secs_f64());
        self.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }
}

struct Goes(Gauge);

impl Drop for Goes {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn of(kind: Kind) -> OfKind {
    OfKind { r#type: kind.short() }
}
