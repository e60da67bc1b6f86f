//! Whether traffic may be sent to the proxy, and if not, why.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use runtime::Drain;

use crate::snapshot::Snapshots;
use crate::sockets::SocketsState;
use crate::xds::{State, Status};

/// Everything that readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    /// What is in force.
    pub snapshots: Snapshots,
    /// What is served.
    pub sockets: SocketsState,
    /// How it goes with Pilot; `None` when there is none.
    pub pilot: Option<(String, Status)>,
    /// Whether the proxy leaves.
    pub drain: Drain,
}

impl Readiness {
    /// Whether configuration has been received and all listeners are up. Losing Pilot afterwards changes nothing.
    ///
    /// # Errors
    ///
    /// What the proxy waits for, in one sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.drain.is_draining() {
            return Err("draining: the proxy is about to end".to_owned());
        }
        let Some(complete_at) = self.snapshots.in_force().complete_at else {
            return Err(self.why_incomplete());
        };
        let served = self.sockets.served();
        if let Some((name, reason)) = served.failed.first_key_value() {
            return Err(format!("listener `{name}` cannot be served: {reason}"));
        }
        if served.swaps < complete_at {
            return Err("the listeners are being opened".to_owned());
        }
        Ok(())
    }

    fn why_incomplete(&self) -> String {
        if let Some((address, status)) = &self.pilot {
            match status.state() {
                State::Connecting => return format!("connecting to Pilot at {address}"),
                State::Lost { reason, .. } => return format!("no configuration from Pilot yet: {reason}"),
                State::Connected { .. } => {}
            }
        }
        let unheard: Vec<&str> = self.snapshots.unheard().iter().map(|kind| kind.service()).collect();
        if !unheard.is_empty() {
            return format!("connected to Pilot; waiting for its first {}", unheard.join(" and "));
        }
        format!("connected to Pilot; waiting for {}", self.snapshots.missing().join(", "))
    }

    /// Answers `GET path` with 200, or 503 and the reason.
    pub fn router(self, path: &'static str) -> Router {
        Router::new().route(path, get(move || async move { self.answer() }))
    }

    pub(crate) fn answer(&self) -> impl IntoResponse + use<> {
        match self.check() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }
    }
}
