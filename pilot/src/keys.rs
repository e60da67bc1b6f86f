//! Keys of token issuers that policies name by URI: fetched here, so that no proxy has to, and sent to proxies as they are.
//!
//! The last good key set of a URI stays in force when the next fetch fails; before the first one there is none, and no
//! key is no access. Who writes policies makes Pilot fetch, so where that may lead is narrow: see [`target`].

mod fetch;
pub mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use runtime::CancellationToken;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use self::fetch::{FetchError, Fetcher};
use crate::source::Change;

/// How long a key set is used before it is fetched again.
const REFRESH: Duration = Duration::from_secs(300);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Most URIs that are followed; policies with more are as without keys.
const MOST: usize = 1000;

/// How the key sets stand, for people and metrics.
#[derive(Debug, Clone, Default)]
pub struct KeySets(Arc<Mutex<BTreeMap<String, State>>>);

/// How one key set stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Number of usable keys that are in force.
    pub keys: usize,
    /// When they were fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched: Option<String>,
    /// Why the last fetch failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Fetches that failed since the last good one.
    pub failures: u32,
}

impl KeySets {
    /// All of them by URI.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, State>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Collector for KeySets {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all = self.all();
        let with_keys = all.values().filter(|state| state.keys > 0).count();
        let failing = all.values().filter(|state| state.error.is_some()).count();
        for (name, help, count) in [
            ("mesh_pilot_key_sets", "Key sets of issuers that policies name", all.len()),
            ("mesh_pilot_key_sets_in_force", "Key sets of issuers that have a good key", with_keys),
            ("mesh_pilot_key_sets_failing", "Key sets of issuers whose last fetch failed", failing),
        ] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Fetches what is wanted, again and again.
pub struct Follower {
    /// Fetches.
    pub fetcher: Fetcher,
    /// URIs that policies name.
    pub wanted: watch::Receiver<BTreeSet<String>>,
    /// Where key sets go.
    pub changes: mpsc::Sender<Change>,
    /// How they stand.
    pub state: KeySets,
}

impl Follower {
    /// Follows until cancelled, or until nobody wants anything any more.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let _ = cancelled.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let wanted: BTreeSet<String> = self.wanted.borrow_and_update().iter().take(MOST).cloned().collect();
            due.retain(|uri, _| wanted.contains(uri));
            self.state.with(|all| all.retain(|uri, _| wanted.contains(uri)));
            for uri in wanted {
                due.entry(uri).or_insert_with(Instant::now);
            }
            let now = Instant::now();
            let ready: Vec<String> = due.iter().filter(|(_, at)| **at <= now).map(|(uri, _)| uri.clone()).collect();
            // Together, so that one slow issuer does not keep the others waiting.
            let fetched = futures_util::future::join_all(ready.iter().map(|uri| self.fetcher.fetch(uri))).await;
            for (uri, result) in ready.into_iter().zip(fetched) {
                let pause = self.note(&uri, &result);
                let change = Change::KeySet(uri.clone(), result.map_err(|error| runtime::exit::chain(&error)));
                if self.changes.send(change).await.is_err() {
                    return;
                }
                due.insert(uri, Instant::now() + pause);
            }
            let next = due.values().min().copied();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep => {}
            }
        }
    }

    /// Takes down how a fetch went; says how long to wait for the next.
    fn note(&self, uri: &str, result: &Result<Arc<str>, FetchError>) -> Duration {
        self.state.with(|all| {
            let state = all.entry(uri.to_owned()).or_default();
            match result {
                Ok(text) => {
                    let keys = engine::token::KeySet::parse(text.as_bytes()).map_or(0, |set| set.len());
                    let fetched = Some(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                    *state = State { keys, fetched, error: None, failures: 0 };
                    REFRESH
                }
                Err(error) => {
                    let error = runtime::exit::chain(error);
                    if state.failures == 0 {
                        tracing::warn!(uri, error, kept = state.keys, "the keys of an issuer cannot be fetched");
                    }
                    state.failures = state.failures.saturating_add(1);
                    state.error = Some(error);
                    (PAUSE.0 * 2u32.saturating_pow(state.failures.min(6) - 1)).min(PAUSE.1)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
