//! What the CA counts. Labels are words of our own: nothing unbounded comes from the network.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::authority::Authority;

/// The CA's metrics.
#[derive(Debug)]
pub struct Metrics {
    issued: Family<ByProof, Counter>,
    refused: Family<ByReason, Counter>,
    seconds: Histogram,
    rejected_changes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProof {
    proof: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &runtime::metrics::Metrics, authority: Arc<ArcSwap<Authority>>) -> Arc<Self> {
        let metrics = Arc::new(Metrics {
            issued: Family::default(),
            refused: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.0001, 4.0, 9)),
            rejected_changes: Counter::default(),
        });
        let m = &metrics;
        registry.register(|registry| {
            registry.register("mesh_ca_issued", "Certificates issued, by what proved the caller", m.issued.clone());
            registry.register("mesh_ca_refused", "Requests refused, by reason", m.refused.clone());
            registry.register("mesh_ca_request_seconds", "Time to answer a request", m.seconds.clone());
            let help = "Changed authorities that cannot be used; the one before stays in force";
            registry.register("mesh_ca_rejected_changes", help, m.rejected_changes.clone());
            registry.register_collector(Box::new(Expiry { authority }));
        });
        metrics
    }

    /// A certificate was issued.
    pub fn issued(&self, proof: &'static str, took: Duration) {
        self.issued.get_or_create(&ByProof { proof }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str, took: Duration) {
        self.refused.get_or_create(&ByReason { reason }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A connection was closed at once, as there are too many.
    pub fn turned_away(&self) {
        self.refused.get_or_create(&ByReason { reason: "connections" }).inc();
    }

    /// How many were refused for that reason.
    #[must_use]
    pub fn count_refused(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ByReason { reason }).get()
    }

    /// The authority in the Secret has changed into something that cannot be used.
    pub fn rejected_change(&self) {
        self.rejected_changes.inc();
    }

    /// How many certificates were issued by that proof.
    #[must_use]
    pub fn count_issued(&self, proof: &'static str) -> u64 {
        self.issued.get_or_create(&ByProof { proof }).get()
    }
}

/// How long the authority itself still holds.
struct Expiry {
    authority: Arc<ArcSwap<Authority>>,
}

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let authority = self.authority.load();
        let now = authority.now().unwrap_or(SystemTime::UNIX_EPOCH);
        let left = authority.valid().1.duration_since(now).unwrap_or_default();
        let gauge = ConstGauge::new(left.as_secs_f64());
        let help = "Time until the authority's own certificate, or one above it, expires";
        gauge.encode(encoder.encode_descriptor("mesh_ca_expiry_seconds", help, None, gauge.metric_type())?)
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiry")
    }
}
