//! What a scraper learns of the process's identity: how long it still holds, and how renewals go.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Svids;
use super::renew::Status;
use crate::metrics::Metrics;

struct SvidMetrics {
    svids: Svids,
    status: Status,
}

/// Registers `mesh_svid_*`. Alert on `mesh_svid_expiry_seconds` below a third of the lifetime: renewal is tried from
/// half of it on.
pub fn register(metrics: &Metrics, svids: Svids, status: Status) {
    metrics.register(|registry| registry.register_collector(Box::new(SvidMetrics { svids, status })));
}

impl Collector for SvidMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let svid = self.svids.latest();
        let left = svid.as_ref().map_or(0.0, |svid| svid.left(self.svids.now()).as_secs_f64());
        let lifetime = svid.as_ref().map_or(0.0, |svid| svid.lifetime().as_secs_f64());
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("mesh_svid_expiry_seconds", "Time until the certificate in force expires; 0 when there is none", left)?;
        gauge("mesh_svid_lifetime_seconds", "Time for which the certificate in force holds as a whole", lifetime)?;
        let progress = self.status.progress();
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter("mesh_svid_renewals", "Certificates received", progress.renewals)?;
        counter("mesh_svid_renewal_failures", "Attempts to get a certificate that failed", progress.failures)
    }
}

impl fmt::Debug for SvidMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SvidMetrics")
    }
}
