//! How often peers have met a limit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::codec::Malformed;
use crate::failure::Failure;
use crate::tls::reason::NoTls;

/// A limit that a peer can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Bytes of a request's head.
    HeadBytes,
    /// Fields of a request's head.
    Headers,
    /// Time of a request's head.
    SlowHead,
    /// Time without a byte of a request's body.
    SlowBody,
    /// Time in which a client takes nothing of its response.
    SlowReader,
    /// Time without a request, or without a byte.
    Idle,
    /// Bytes of a response's head, or its fields.
    ResponseHead,
    /// Connections in all.
    Connections,
    /// Connections of one source.
    ConnectionsOfSource,
    /// Time of a caller's TLS handshake.
    SlowHandshake,
    /// Streams of HTTP/2 at once.
    Streams,
    /// Time without a byte on a WebSocket or tunnel.
    IdleUpgrade,
    /// Time without a byte on an opaque connection.
    IdleTcp,
}

const WORDS: [&str; 13] = [
    "head_bytes",
    "headers",
    "slow_head",
    "slow_body",
    "slow_reader",
    "idle",
    "response_head",
    "connections",
    "connections_per_source",
    "slow_handshake",
    "streams",
    "upgrade_idle",
    "tcp_idle",
];

/// Counts how often each limit was met.
#[derive(Debug, Default)]
pub(crate) struct Limits([AtomicU64; WORDS.len()]);

impl Limits {
    /// A limit was met.
    pub(crate) fn hit(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A limit was met so many times.
    pub(crate) fn hit_often(&self, limit: Limit, times: u64) {
        if times > 0 {
            self.0[limit as usize].fetch_add(times, Ordering::Relaxed);
        }
    }

    /// Something has failed: if for a limit, that was met.
    pub(crate) fn failed(&self, failure: Failure) {
        let limit = match failure {
            Failure::BadRequest(Malformed::HeadTooLarge) => Limit::HeadBytes,
            Failure::BadRequest(Malformed::TooManyFields) => Limit::Headers,
            Failure::UpstreamProtocol(Malformed::HeadTooLarge | Malformed::TooManyFields) => Limit::ResponseHead,
            Failure::SlowRequest => Limit::SlowHead,
            Failure::DownstreamTls(NoTls::Slow) => Limit::SlowHandshake,
            Failure::SlowBody => Limit::SlowBody,
            Failure::SlowReader => Limit::SlowReader,
            _ => return,
        };
        self.hit(limit);
    }

    /// Writes the metrics, with the number of connections that are open.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>, open: usize) -> Result<(), fmt::Error> {
        let help = "How often peers have met a limit (docs/limits.md)";
        let mut family = encoder.encode_descriptor("mesh_limit_hits", help, None, MetricType::Counter)?;
        for (word, count) in WORDS.iter().zip(&self.0) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("limit", *word)])?)?;
        }
        let help = "Connections from peers that are open";
        let gauge = encoder.encode_descriptor("mesh_downstream_connections", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)).encode(gauge)
    }
}
