//! The `istio_requests_total` family: counters per kind of traffic, found once and then only added to.

mod clusters;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::tables::{ClusterSpec, Endpoint, Tables};
use foldhash::fast::FixedState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::headers::Edge;

/// Who the proxy stands beside, or is; empty is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of what owns the pod.
    pub workload: String,
    /// The namespace.
    pub namespace: String,
    /// The label `app`.
    pub app: String,
    /// The label `version`.
    pub version: String,
    /// The SPIFFE ID, without its scheme.
    pub principal: String,
}

/// Kinds of traffic beyond this are counted together, with every label unknown.
const MAX_SERIES: usize = 4096;
/// A thread looks up at most so many kinds without the shared map.
const MAX_NEAR: usize = 1024;
/// As Envoy's: milliseconds and bytes alike.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

type Labels = Vec<(&'static str, String)>;

/// All counters of the data path.
pub struct Metrics {
    /// Tells the counters of one data path from another's in what a thread remembers.
    serial: u64,
    identity: Identity,
    tables: Arc<ArcSwap<Tables>>,
    http: Mutex<HashMap<Labels, Arc<HttpSeries>, FixedState>>,
    tcp: Mutex<HashMap<Labels, Arc<TcpSeries>, FixedState>>,
    /// Log lines that were dropped because nobody took them.
    pub dropped_log_lines: AtomicU64,
}

/// Counters of one kind of HTTP traffic.
#[derive(Debug, Default)]
pub struct HttpSeries {
    requests: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// Counters of one kind of opaque traffic.
#[derive(Debug, Default)]
pub struct TcpSeries {
    /// Connections opened.
    pub opened: AtomicU64,
    /// Connections closed.
    pub closed: AtomicU64,
    /// Bytes sent to callers.
    pub sent: AtomicU64,
    /// Bytes received from callers.
    pub received: AtomicU64,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In thousandths.
    sum: AtomicU64,
}

impl Histogram {
    fn observe(&self, thousandths: u64) {
        let value = thousandths as f64 / 1000.0;
        let at = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }
}

impl HttpSeries {
    /// Counts one request.
    pub fn observe(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.duration.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.observe(request_bytes.saturating_mul(1000));
        self.response_bytes.observe(response_bytes.saturating_mul(1000));
    }
}

/// What tells one kind of traffic from another.
#[derive(Debug, Clone, Copy)]
pub struct Kind<'a> {
    /// Where it came in.
    pub edge: Edge,
    /// The cluster it went to.
    pub cluster: Option<&'a Arc<ClusterSpec>>,
    /// The endpoint it went to.
    pub endpoint: Option<&'a Arc<Endpoint>>,
    /// The status of the answer.
    pub status: u16,
    /// Envoy's flag for the failure.
    pub flag: &'static str,
}

/// A kind by its parts' addresses; the parts are kept beside it, so that no address is used again.
type NearKey = (u64, Edge, usize, usize, u16, &'static str);
type NearValue = (Option<Arc<ClusterSpec>>, Option<Arc<Endpoint>>, Arc<HttpSeries>);

thread_local! {
    static NEAR: RefCell<HashMap<NearKey, NearValue, FixedState>> = const { RefCell::new(HashMap::with_hasher(FixedState::with_seed(0))) };
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Metrics {
    /// Counters that are all at zero; those of clusters are in their tables.
    #[must_use]
    pub fn new(identity: Identity, tables: Arc<ArcSwap<Tables>>) -> Arc<Self> {
        Arc::new(Metrics {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            identity,
            tables,
            http: Mutex::default(),
            tcp: Mutex::default(),
            dropped_log_lines: AtomicU64::new(0),
        })
    }

    /// Counts one request; takes no lock and formats nothing when its kind was seen by this thread before.
    pub fn request(&self, kind: &Kind<'_>, duration: Duration, request_bytes: u64, response_bytes: u64) {
        let key = (
            self.serial,
            kind.edge,
            kind.cluster.map_or(0, |cluster| Arc::as_ptr(cluster).addr()),
            kind.endpoint.map_or(0, |endpoint| Arc::as_ptr(endpoint).addr()),
            kind.status,
            kind.flag,
        );
        let seen = NEAR.try_with(|near| {
            let mut near = near.borrow_mut();
            if let Some((_, _, series)) = near.get(&key) {
                series.observe(duration, request_bytes, response_bytes);
                return;
            }
            let series = self.http_series(kind);
            series.observe(duration, request_bytes, response_bytes);
            if near.len() >= MAX_NEAR {
                near.clear();
            }
            near.insert(key, (kind.cluster.cloned(), kind.endpoint.cloned(), series));
        });
        if seen.is_err() {
            self.http_series(kind).observe(duration, request_bytes, response_bytes);
        }
    }

    fn http_series(&self, kind: &Kind<'_>) -> Arc<HttpSeries> {
        let mut labels = self.labels(kind, "http");
        labels.push(("response_code", kind.status.to_string()));
        labels.push(("grpc_response_status", String::new()));
        find(&self.http, labels)
    }

    /// The counters of one kind of opaque traffic.
    #[must_use]
    pub fn tcp_series(&self, kind: &Kind<'_>) -> Arc<TcpSeries> {
        find(&self.tcp, self.labels(kind, "tcp"))
    }

    /// Istio's standard labels.
    fn labels(&self, kind: &Kind<'_>, protocol: &str) -> Labels {
        let mine = &self.identity;
        let my_side = [&mine.workload, &mine.namespace, &mine.app, &mine.version, &mine.principal].map(String::as_str);
        let other_side = kind.endpoint.map_or([""; 5], |endpoint| {
            [&*endpoint.workload, &*endpoint.namespace, &*endpoint.app, &*endpoint.version, ""]
        });
        let (reporter, source, destination) = match kind.edge {
            Edge::Inbound => ("destination", [""; 5], my_side),
            Edge::Outbound | Edge::Gateway => ("source", my_side, other_side),
        };
        let service = kind.cluster.and_then(|cluster| cluster.service.as_ref());
        let service = service.map_or([""; 3], |service| [&*service.host, &*service.name, &*service.namespace]);
        let mut labels = vec![("reporter", reporter.to_owned())];
        const SOURCE: [&str; 5] =
            ["source_workload", "source_workload_namespace", "source_app", "source_version", "source_principal"];
        const DESTINATION: [&str; 5] = [
            "destination_workload",
            "destination_workload_namespace",
            "destination_app",
            "destination_version",
            "destination_principal",
        ];
        const SERVICE: [&str; 3] = ["destination_service", "destination_service_name", "destination_service_namespace"];
        labels.extend(SOURCE.into_iter().zip(source.map(known)));
        labels.push(("source_canonical_service", known(source[2])));
        labels.push(("source_canonical_revision", known(source[3])));
        labels.extend(DESTINATION.into_iter().zip(destination.map(known)));
        labels.extend(SERVICE.into_iter().zip(service.map(known)));
        labels.push(("destination_canonical_service", known(destination[2])));
        labels.push(("destination_canonical_revision", known(destination[3])));
        labels.push(("request_protocol", protocol.to_owned()));
        labels.push(("response_flags", kind.flag.to_owned()));
        let security = if kind.edge == Edge::Inbound { "none" } else { "unknown" };
        labels.push(("connection_security_policy", security.to_owned()));
        labels
    }
}

fn known(value: &str) -> String {
    if value.is_empty() { "unknown".to_owned() } else { value.to_owned() }
}

fn find<S: Default>(all: &Mutex<HashMap<Labels, Arc<S>, FixedState>>, mut labels: Labels) -> Arc<S> {
    let mut all = lock(all);
    if all.len() >= MAX_SERIES && !all.contains_key(&labels) {
        for (_, value) in &mut labels {
            "unknown".clone_into(value);
        }
    }
    Arc::clone(all.entry(labels).or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let http: Vec<_> =
            lock(&self.http).iter().map(|(labels, series)| (labels.clone(), Arc::clone(series))).collect();
        let tcp: Vec<_> = lock(&self.tcp).iter().map(|(labels, series)| (labels.clone(), Arc::clone(series))).collect();
        counters(&mut encoder, ("istio_requests", "Requests"), &http, |series| &series.requests)?;
        histograms(&mut encoder, ("istio_request_duration_milliseconds", "Duration of requests"), &http, |s| {
            &s.duration
        })?;
        histograms(&mut encoder, ("istio_request_bytes", "Bytes of request bodies"), &http, |s| &s.request_bytes)?;
        histograms(&mut encoder, ("istio_response_bytes", "Bytes of response bodies"), &http, |s| &s.response_bytes)?;
        counters(&mut encoder, ("istio_tcp_connections_opened", "Opaque connections opened"), &tcp, |s| &s.opened)?;
        counters(&mut encoder, ("istio_tcp_connections_closed", "Opaque connections closed"), &tcp, |s| &s.closed)?;
        counters(&mut encoder, ("istio_tcp_sent_bytes", "Bytes sent to callers"), &tcp, |s| &s.sent)?;
        counters(&mut encoder, ("istio_tcp_received_bytes", "Bytes received from callers"), &tcp, |s| &s.received)?;
        let dropped = ConstCounter::new(self.dropped_log_lines.load(Ordering::Relaxed));
        let (name, help) = ("mesh_access_log_dropped", "Lines of the access log that were dropped");
        dropped.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        clusters::encode(&mut encoder, &self.tables.load())
    }
}

fn counters<S>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    all: &[(Labels, Arc<S>)],
    of: impl Fn(&S) -> &AtomicU64,
) -> Result<(), fmt::Error> {
    if all.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in all {
        ConstCounter::new(of(series).load(Ordering::Relaxed)).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}

fn histograms(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    all: &[(Labels, Arc<HttpSeries>)],
    of: impl Fn(&HttpSeries) -> &Histogram,
) -> Result<(), fmt::Error> {
    if all.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, series) in all {
        let histogram = of(series);
        let bounds = BOUNDS.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = histogram.sum.load(Ordering::Relaxed) as f64 / 1000.0;
        metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn requests_are_counted_with_the_standard_labels() {
        let identity =
            Identity { workload: "productpage-v1".to_owned(), namespace: "default".to_owned(), ..Identity::default() };
        let metrics = Metrics::new(identity, Arc::default());
        let kind = Kind { edge: Edge::Outbound, cluster: None, endpoint: None, status: 404, flag: "NR" };
        metrics.request(&kind, Duration::from_millis(3), 10, 20);
        metrics.request(&kind, Duration::from_millis(700), 0, 0);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&metrics)));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("encodes");
        let line = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        let total = line("istio_requests_total{");
        assert!(total.ends_with(" 2"), "{out}");
        for label in [
            "reporter=\"source\"",
            "source_workload=\"productpage-v1\"",
            "destination_workload=\"unknown\"",
            "response_code=\"404\"",
            "response_flags=\"NR\"",
        ] {
            assert!(total.contains(label), "{label} in {total}");
        }
        assert!(line("istio_request_duration_milliseconds_sum").ends_with(" 703.0"), "{out}");
        assert!(out.contains("le=\"5.0\""), "{out}");
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let metrics = Metrics::new(Identity::default(), Arc::default());
        for status in 0..u16::try_from(MAX_SERIES + 100).expect("small") {
            let kind = Kind { edge: Edge::Outbound, cluster: None, endpoint: None, status, flag: "-" };
            metrics.request(&kind, Duration::ZERO, 0, 0);
        }
        assert!(lock(&metrics.http).len() <= MAX_SERIES + 1);
    }
}
