//! How it goes with Pilot, for logs, readiness, metrics and `server_info`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ConnectError;

/// How it goes with Pilot. Clones share it.
#[derive(Debug, Clone)]
pub struct Status {
    state: Arc<Mutex<State>>,
    metrics: XdsMetrics,
}

/// Whether there is a stream, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No attempt has ended yet.
    Connecting,
    /// There is a stream.
    Connected {
        /// Since when.
        since: SystemTime,
    },
    /// There is none.
    Lost {
        /// Since when.
        since: SystemTime,
        /// Why the last attempt, or the stream, has ended.
        reason: String,
    },
}

/// Metrics of the client of Pilot.
#[derive(Debug, Clone, Default)]
pub struct XdsMetrics {
    connected: Gauge,
    failures: Counter,
    resources: Family<ResourceLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    r#type: &'static str,
    result: &'static str,
}

impl XdsMetrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mesh_xds_connected", "Whether there is a stream to Pilot", self.connected.clone());
        registry.register("mesh_xds_failures", "Failed attempts and ended streams", self.failures.clone());
        registry.register(
            "mesh_xds_resources",
            "Resources that Pilot has sent, by type and whether they were accepted or refused",
            self.resources.clone(),
        );
    }
}

impl Status {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(metrics: XdsMetrics) -> Self {
        Status { state: Arc::new(Mutex::new(State::Connecting)), metrics }
    }

    /// How it goes now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    pub(super) fn connected(&self, address: &str) {
        tracing::info!(address, "connected to Pilot");
        self.metrics.connected.set(1);
        *self.lock() = State::Connected { since: SystemTime::now() };
    }

    /// Notes the end of a stream or attempt. The same reason again is no news to a person who reads the log.
    pub(super) fn lost(&self, error: &ConnectError, is_complete: bool, retry_in: Duration) {
        let reason = runtime::exit::chain(error);
        let since = match self.state() {
            State::Lost { since, reason: before } => {
                if before != reason {
                    warn(&reason, is_complete);
                }
                since
            }
            State::Connected { .. } => {
                // Pilot ends old streams by itself; if it is away, the next attempt says so.
                tracing::info!(reason, "the stream to Pilot has ended; connecting again");
                SystemTime::now()
            }
            State::Connecting => {
                warn(&reason, is_complete);
                SystemTime::now()
            }
        };
        tracing::debug!(reason, ?retry_in, "no stream to Pilot");
        self.metrics.connected.set(0);
        self.metrics.failures.inc();
        *self.lock() = State::Lost { since, reason };
    }

    pub(super) fn updated(&self, service: &'static str, accepted: u64, refused: u64) {
        for (result, count) in [("accepted", accepted), ("refused", refused)] {
            if count > 0 {
                self.metrics.resources.get_or_create(&ResourceLabels { r#type: service, result }).inc_by(count);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn(reason: &str, is_complete: bool) {
    if is_complete {
        tracing::warn!(reason, "no stream to Pilot; serving with the configuration in hand, and trying again");
    } else {
        tracing::warn!(reason, "no configuration from Pilot yet; not ready, and trying again");
    }
}
