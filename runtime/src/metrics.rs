//! A daemon's metrics: one registry, which build it is, what the process uses, and how a scraper reads it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::version;

/// The metrics of one daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
}

impl Metrics {
    /// A registry with `mesh_build_info`, the usual `process_*` metrics, and those of the async runtime that it is made in.
    #[must_use]
    pub fn new(component: &'static str) -> Arc<Self> {
        let mut registry = Registry::default();
        let labels = vec![
            ("component", component),
            ("version", version::VERSION),
            ("revision", version::revision().unwrap_or("unknown")),
        ];
        registry.register("mesh_build", "Which build this is", Info::new(labels));
        registry.register_collector(Box::new(Process::new()));
        if let Ok(handle) = Handle::try_current() {
            registry.register_collector(Box::new(Workers { handle }));
        }
        Arc::new(Metrics { registry: Mutex::new(registry) })
    }

    /// Adds metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = text::encode(&mut text, &registry) {
            tracing::error!(%error, "the metrics cannot be encoded");
        }
        text
    }

    /// All metrics in the older text format of Prometheus, which differs in its comments only.
    #[must_use]
    pub fn prometheus(&self) -> String {
        to_prometheus(&self.open_metrics())
    }

    /// A router with `GET /metrics`, in the format that the scraper asks for.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().route("/metrics", get(move |headers: HeaderMap| async move { self.answer(&headers) }))
    }

    fn answer(&self, headers: &HeaderMap) -> impl IntoResponse + use<> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("application/openmetrics-text") {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            return ([(header::CONTENT_TYPE, kind)], self.open_metrics());
        }
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.prometheus())
    }
}

/// Turns OpenMetrics text into the older format: there the comments of counters and infos carry the sample's full name,
/// infos are gauges, and units and the end mark do not exist.
fn to_prometheus(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            // An exemplar follows a sample after ` # `, which no label value ends with outside quotes.
            let sample = line.rfind(" # {").filter(|at| line[..*at].matches('"').count() % 2 == 0);
            text.push_str(&line[..sample.unwrap_or(line.len())]);
            text.push('\n');
        }
    }
    text
}

/// What the process uses, read from `/proc` when somebody asks.
struct Process {
    started: f64,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

/// The async runtime's threads and tasks.
#[derive(Debug)]
struct Workers {
    handle: Handle,
}

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let runtime = self.handle.metrics();
        let gauges = [
            ("mesh_runtime_workers", "Threads that run tasks", runtime.num_workers()),
            ("mesh_runtime_tasks", "Tasks that have not ended", runtime.num_alive_tasks()),
            ("mesh_runtime_queued_tasks", "Tasks in the queue that all threads share", runtime.global_queue_depth()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let busy = (0..runtime.num_workers()).map(|at| runtime.worker_total_busy_duration(at).as_secs_f64()).sum();
        let counter: ConstCounter<f64> = ConstCounter::new(busy);
        let (name, help) = ("mesh_runtime_busy_seconds", "Time that the threads have spent on tasks");
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }
}

/// The kernel's unit of CPU time towards user space (`USER_HZ`), the same on all architectures that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Process { started: started.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_start_time_seconds", "When the process started, in seconds since 1970", self.started)?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let of_status = [
            ("VmRSS:", 1024.0, "process_resident_memory_bytes", "Memory of the process that is in RAM"),
            ("VmSize:", 1024.0, "process_virtual_memory_bytes", "Memory that the process has asked for"),
            ("Threads:", 1.0, "process_threads", "Threads of the process"),
        ];
        for (field, unit, name, help) in of_status {
            if let Some(value) = number(&status, field) {
                gauge(name, help, value * unit)?;
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Open file descriptors", open.count() as f64)?;
        }
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = number(&limits, "Max open files") {
            gauge("process_max_fds", "File descriptors that may be open", most)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "CPU time used by the process";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// The first number behind a field's name; `None` if there is none, or it is unlimited.
fn number(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn both_formats_carry_the_same_samples() {
        let metrics = Metrics::new("test");
        let requests: Counter = Counter::default();
        requests.inc();
        metrics.register(|registry| registry.register("istio_requests", "Requests", requests.clone()));
        let open = metrics.open_metrics();
        assert!(open.contains("# TYPE istio_requests counter\nistio_requests_total 1\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let plain = metrics.prometheus();
        assert!(plain.contains("# TYPE istio_requests_total counter\nistio_requests_total 1\n"), "{plain}");
        assert!(plain.contains("# TYPE mesh_build_info gauge\nmesh_build_info{component=\"test\""), "{plain}");
        assert!(plain.contains("\nprocess_resident_memory_bytes "), "{plain}");
        assert!(plain.contains("\nprocess_cpu_seconds_total "), "{plain}");
        for name in ["process_virtual_memory_bytes", "process_threads", "process_open_fds"] {
            assert!(plain.contains(&format!("\n{name} ")), "{name} in {plain}");
        }
        assert!(!plain.contains("# EOF"));
    }
}
