//! Connections that have become something else than HTTP.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::upgrade::Switch;

/// What connections become, in words that no client can add to.
const KINDS: [&str; 3] = ["connect", "websocket", "other"];

/// Counts connections that have become something else.
#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    total: [AtomicU64; KINDS.len()],
    active: [AtomicU64; KINDS.len()],
}

/// Counts one of them while it lives.
#[derive(Debug)]
pub(crate) struct Open<'u>(&'u AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upgrades {
    /// One more.
    #[must_use]
    pub(crate) fn open(&self, switch: Option<&Switch>) -> Open<'_> {
        let kind = match switch {
            Some(Switch::Tunnel) => 0,
            Some(Switch::Protocol(protocol)) if protocol.eq_ignore_ascii_case(b"websocket") => 1,
            Some(Switch::Protocol(_)) | None => 2,
        };
        self.total[kind].fetch_add(1, Ordering::Relaxed);
        self.active[kind].fetch_add(1, Ordering::Relaxed);
        Open(&self.active[kind])
    }

    /// Writes the metrics.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Connections that became WebSocket, a tunnel, or another protocol";
        let mut total = encoder.encode_descriptor("mesh_upgrades", help, None, MetricType::Counter)?;
        for (kind, count) in KINDS.iter().zip(&self.total) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(total.encode_family(&[("kind", *kind)])?)?;
        }
        let help = "Connections that are WebSocket, a tunnel, or another protocol now";
        let mut active = encoder.encode_descriptor("mesh_upgrades_active", help, None, MetricType::Gauge)?;
        for (kind, count) in KINDS.iter().zip(&self.active) {
            let count = ConstGauge::new(i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
            count.encode(active.encode_family(&[("kind", *kind)])?)?;
        }
        Ok(())
    }
}
