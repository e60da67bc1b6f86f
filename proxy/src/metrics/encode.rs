//! The counters as a scraper reads them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::labels::Labels;
use super::series::{BOUNDS, Histogram};
use super::{HttpSeries, Metrics, clusters};
use crate::frames::Cut;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let http = self.http.sorted();
        counters(encoder, ("istio_requests", "Requests"), &http, |series| Some(&series.requests))?;
        histograms(encoder, ("istio_request_duration_milliseconds", "Duration of requests"), &http, |s| &s.duration)?;
        histograms(encoder, ("istio_request_bytes", "Bytes of request bodies"), &http, |s| &s.request_bytes)?;
        histograms(encoder, ("istio_response_bytes", "Bytes of response bodies"), &http, |s| &s.response_bytes)?;
        counters(encoder, ("istio_request_messages", "Messages of gRPC calls from clients"), &http, |s| {
            above_zero(&s.request_messages)
        })?;
        counters(encoder, ("istio_response_messages", "Messages of gRPC calls to clients"), &http, |s| {
            above_zero(&s.response_messages)
        })?;
        let tcp = self.tcp.sorted();
        let connections = "istio_tcp_connections_opened";
        counters(encoder, (connections, "Opaque connections opened"), &tcp, |s| Some(&s.opened))?;
        let connections = "istio_tcp_connections_closed";
        counters(encoder, (connections, "Opaque connections closed"), &tcp, |s| Some(&s.closed))?;
        counters(encoder, ("istio_tcp_sent_bytes", "Bytes sent to callers"), &tcp, |s| Some(&s.sent))?;
        counters(encoder, ("istio_tcp_received_bytes", "Bytes received from callers"), &tcp, |s| Some(&s.received))?;
        self.room(encoder)?;
        self.listeners.encode(encoder)?;
        self.cut_connections(encoder)?;
        self.limits.encode(encoder, self.admission.open())?;
        self.detections.encode(encoder)?;
        self.handshakes.encode(encoder)?;
        self.upgrades.encode(encoder)?;
        self.refused.encode(encoder)?;
        clusters::encode(encoder, &self.tables.load())
    }
}

impl Metrics {
    /// Clients that were cut off.
    fn cut_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (name, help) =
            ("mesh_h2_connections_cut", "Connections of HTTP/2 that were cut, by what was wrong with them");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (count, reason) in self.cut.iter().zip(Cut::ALL) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("reason", reason.as_str())])?)?;
        }
        Ok(())
    }

    /// How near the number of series is to its bound.
    fn room(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            ("mesh_metrics_series", "Kinds of traffic that are counted apart", self.room.taken()),
            ("mesh_metrics_series_limit", "Kinds of traffic that may be counted apart", self.room.limit()),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Look-ups of kinds of traffic that there was no room for, so that they are counted under `overflow`";
        let overflows = ConstCounter::new(self.overflows.load(Ordering::Relaxed));
        overflows.encode(encoder.encode_descriptor("mesh_metrics_overflows", help, None, MetricType::Counter)?)
    }
}

fn above_zero(counter: &AtomicU64) -> Option<&AtomicU64> {
    (counter.load(Ordering::Relaxed) > 0).then_some(counter)
}

/// Writes the counters that there are; a family without any is left out.
fn counters<S>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    all: &[(Labels, Arc<S>)],
    of: impl Fn(&S) -> Option<&AtomicU64>,
) -> Result<(), fmt::Error> {
    let counted: Vec<_> = all.iter().filter_map(|(labels, series)| Some((labels, of(series)?))).collect();
    if counted.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, counter) in counted {
        ConstCounter::new(counter.load(Ordering::Relaxed)).encode(metric.encode_family(labels)?)?;
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
