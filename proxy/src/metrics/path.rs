//! What the data path has and loses beside traffic: idle connections, the access log, and the threads that serve it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use crate::data::DataPath;

/// The state of a data path and of the runtime that it is served by.
#[derive(Debug)]
pub struct PathMetrics {
    /// The data path.
    pub path: Arc<DataPath>,
    /// Where it runs.
    pub runtime: Handle,
}

impl Collector for PathMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let runtime = self.runtime.metrics();
        let gauges = [
            (
                "mesh_upstream_connections_idle",
                "Upstream connections that wait for a request",
                self.path.idle_upstreams(),
            ),
            (
                "mesh_h2_upstream_connections",
                "Connections to upstreams that speak HTTP/2, which requests share",
                self.path.h2_upstreams(),
            ),
            ("mesh_runtime_workers", "Threads that serve connections", runtime.num_workers()),
            (
                "mesh_runtime_tasks",
                "Tasks that have not ended: connections, and what the proxy does beside",
                runtime.num_alive_tasks(),
            ),
            (
                "mesh_runtime_queued_tasks",
                "Tasks that wait in the queue that all threads share",
                runtime.global_queue_depth(),
            ),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let busy: f64 = (0..runtime.num_workers()).map(|at| runtime.worker_total_busy_duration(at).as_secs_f64()).sum();
        let help = "Time that the threads have spent on tasks";
        let seconds = ConstCounter::new(busy);
        seconds.encode(encoder.encode_descriptor("mesh_runtime_busy_seconds", help, None, MetricType::Counter)?)?;
        let Some(log) = self.path.access_log() else { return Ok(()) };
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
