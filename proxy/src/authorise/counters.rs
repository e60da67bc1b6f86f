//! How often rules and providers have refused, or would have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Kinds of refusals that are counted apart. Names come from configuration, never from the network, but configuration
/// changes over the life of a proxy.
const MOST: usize = 1000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Denied,
    WouldDeny,
    TokenRefused,
}

type Counts = BTreeMap<(Kind, String, &'static str), u64>;

/// How often rules and providers have refused, or would have. Nothing is counted of what is let in.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

impl Counters {
    /// Rules have refused.
    pub(super) fn denied(&self, rules: &str) {
        self.count(Kind::Denied, rules, "");
    }

    /// Rules on trial would have refused.
    pub(super) fn would_deny(&self, rules: &str) {
        self.count(Kind::WouldDeny, rules, "");
    }

    /// A token was no good, or missing.
    pub(super) fn token_refused(&self, provider: &str, reason: &'static str) {
        self.count(Kind::TokenRefused, provider, reason);
    }

    fn count(&self, kind: Kind, name: &str, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if counts.len() < MOST { name } else { "overflow" };
        *counts.entry((kind, name.to_owned(), reason)).or_default() += 1;
    }
}

/// The counters as a collector.
#[derive(Debug)]
pub struct Collected(pub Arc<Counters>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |kind| counts.iter().filter(move |((of, ..), _)| *of == kind);
        let families = [
            (Kind::Denied, "mesh_policy_denied", "Requests and connections that no role allows"),
            (
                Kind::WouldDeny,
                "mesh_policy_dry_run_denied",
                "Requests and connections that rules on trial would refuse",
            ),
        ];
        for (kind, name, help) in families {
            if of(kind).next().is_none() {
                continue;
            }
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((_, rules, _), count) in of(kind) {
                ConstCounter::new(*count).encode(metric.encode_family(&[("rules", rules.as_str())])?)?;
            }
        }
        if of(Kind::TokenRefused).next().is_some() {
            let help = "Requests whose token was missing or no good";
            let mut metric = encoder.encode_descriptor("mesh_tokens_refused", help, None, MetricType::Counter)?;
            for ((_, provider, reason), count) in of(Kind::TokenRefused) {
                let labels = [("provider", provider.as_str()), ("reason", *reason)];
                ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
