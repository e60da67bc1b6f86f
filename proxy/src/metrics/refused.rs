//! Connections that are closed without being served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::failure::Failure;

/// Counts connections that are closed without being served, by the word for why. There are few words.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<BTreeMap<&'static str, u64>>);

impl Refused {
    /// One more.
    pub(crate) fn count(&self, why: Failure) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(why.code()).or_default() += 1;
    }

    /// Writes the metric; reasons that there were none of are left out.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if counts.is_empty() {
            return Ok(());
        }
        let help = "Connections closed without being served, by the word for why";
        let mut family = encoder.encode_descriptor("mesh_connections_refused", help, None, MetricType::Counter)?;
        for (reason, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
