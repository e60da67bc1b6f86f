//! What listeners accept. There are as many series as listeners have been served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The counters of all listeners, by name.
#[derive(Debug, Default)]
pub struct Listeners {
    by_name: Mutex<BTreeMap<String, Arc<Accepted>>>,
}

/// What one listener has accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    accepted: AtomicU64,
    ended: AtomicU64,
}

/// A connection that is open while this lives.
#[derive(Debug)]
pub struct Open(Arc<Accepted>);

impl Accepted {
    /// Counts a connection that has been accepted.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Listeners {
    /// The counters of a listener, the same whenever it is served again.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<Accepted> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_name.entry(name.to_owned()).or_default())
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if by_name.is_empty() {
            return Ok(());
        }
        let help = "Connections accepted";
        let mut metric = encoder.encode_descriptor("mesh_listener_connections", help, None, MetricType::Counter)?;
        for (name, listener) in &by_name {
            let labels = [("listener", name.as_str())];
            ConstCounter::new(listener.accepted.load(Ordering::Relaxed)).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Connections open";
        let mut metric = encoder.encode_descriptor("mesh_listener_connections_open", help, None, MetricType::Gauge)?;
        for (name, listener) in &by_name {
            let ended = listener.ended.load(Ordering::Relaxed);
            let open = listener.accepted.load(Ordering::Relaxed).saturating_sub(ended);
            let labels = [("listener", name.as_str())];
            ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
