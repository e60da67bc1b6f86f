//! What connections were taken for by their first bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::detect::spoken::Spoken;

const RESULTS: [&str; 8] = ["http/1.1", "http/1.0", "h2c", "tls", "opaque", "silent", "undecided", "late_http"];

/// Counts what connections were taken for.
#[derive(Debug, Default)]
pub(crate) struct Detections([AtomicU64; RESULTS.len()]);

impl Detections {
    /// One more connection that was inspected.
    pub(crate) fn count(&self, spoken: Option<Spoken>) {
        let at = match spoken {
            Some(Spoken::Http11) => 0,
            Some(Spoken::Http10) => 1,
            Some(Spoken::H2c) => 2,
            Some(Spoken::Tls) => 3,
            Some(Spoken::Opaque) => 4,
            Some(Spoken::Silent) => 5,
            Some(Spoken::Undecided) => 6,
            None => return,
        };
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was silent and so taken for opaque has spoken HTTP after all.
    pub(crate) fn count_late_http(&self) {
        self.0[7].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the metric.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Connections by what their first bytes were taken for; late_http are those that were taken for \
                    opaque because they were silent, and then spoke HTTP";
        let mut family = encoder.encode_descriptor("mesh_protocol_detection", help, None, MetricType::Counter)?;
        for (result, count) in RESULTS.iter().zip(&self.0) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("result", *result)])?)?;
        }
        Ok(())
    }
}
