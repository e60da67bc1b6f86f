//! What the data path has and loses beside traffic: idle connections, and lines of the access log.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::data::DataPath;

/// The state of a data path.
#[derive(Debug)]
pub struct PathMetrics(pub Arc<DataPath>);

impl Collector for PathMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauges = [
            ("mesh_upstream_connections_idle", "Upstream connections that wait for a request", self.0.idle_upstreams()),
            (
                "mesh_h2_upstream_connections",
                "Connections to upstreams that speak HTTP/2, which requests share",
                self.0.h2_upstreams(),
            ),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let Some(log) = self.0.access_log() else { return Ok(()) };
        let counters = [
            (
                "mesh_access_log_dropped",
                "Lines of the access log that were dropped, because nobody took them or they could not be written",
                log.dropped(),
            ),
            ("mesh_access_log_write_failures", "Writes of the access log that failed", log.failures()),
        ];
        for (name, help, value) in counters {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
