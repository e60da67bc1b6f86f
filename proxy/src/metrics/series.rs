//! The counters of one kind of traffic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As Envoy's: milliseconds and bytes alike.
pub(super) const BOUNDS: [f64; 19] = [
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

/// Counters of one kind of HTTP traffic.
#[derive(Debug, Default)]
pub struct HttpSeries {
    pub(super) requests: AtomicU64,
    pub(super) duration: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
    pub(super) request_messages: AtomicU64,
    pub(super) response_messages: AtomicU64,
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

/// What is counted of one request; of both, what came from the client first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// How long it took.
    pub duration: Duration,
    /// Bytes of the bodies.
    pub bytes: (u64, u64),
    /// Messages of a call of gRPC.
    pub messages: (u64, u64),
}

#[derive(Debug, Default)]
pub(super) struct Histogram {
    pub(super) buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In thousandths.
    pub(super) sum: AtomicU64,
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
    pub fn observe(&self, counted: &Counted) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.duration.observe(u64::try_from(counted.duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.observe(counted.bytes.0.saturating_mul(1000));
        self.response_bytes.observe(counted.bytes.1.saturating_mul(1000));
        for (counter, count) in
            [(&self.request_messages, counted.messages.0), (&self.response_messages, counted.messages.1)]
        {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}
