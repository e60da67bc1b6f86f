//! How TLS handshakes went.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustls::HandshakeKind;

use crate::tls::reason::{NoTls, WORDS};

/// Which side the proxy was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It was called.
    Server,
    /// It called.
    Client,
}

/// Counts handshakes by side and result.
#[derive(Debug, Default)]
pub(crate) struct Handshakes([Results; 2]);

#[derive(Debug, Default)]
struct Results {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: [AtomicU64; WORDS.len()],
}

impl Handshakes {
    /// One more.
    pub(crate) fn count(&self, side: Side, result: Result<HandshakeKind, NoTls>) {
        let results = &self.0[side as usize];
        let counter = match result {
            Ok(HandshakeKind::Resumed) => Some(&results.resumed),
            Ok(_) => Some(&results.full),
            Err(why) => {
                let at = WORDS.iter().position(|word| *word == why.code());
                at.and_then(|at| results.failed.get(at))
            }
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes the metric. Of reasons for failures only those that have occurred are written.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "TLS handshakes between proxies of the mesh, by the proxy's side and their result: full, resumed, or \
                    the word for why they failed (docs/life-of-a-request.md)";
        let mut family = encoder.encode_descriptor("mesh_tls_handshakes", help, None, MetricType::Counter)?;
        for (side, results) in ["server", "client"].into_iter().zip(&self.0) {
            let done = [("full", &results.full), ("resumed", &results.resumed)].into_iter();
            let failed = WORDS.into_iter().zip(&results.failed);
            let failed = failed.filter(|(_, count)| count.load(Ordering::Relaxed) > 0);
            for (result, count) in done.chain(failed) {
                let count = ConstCounter::new(count.load(Ordering::Relaxed));
                count.encode(family.encode_family(&[("side", side), ("result", result)])?)?;
            }
        }
        Ok(())
    }
}
