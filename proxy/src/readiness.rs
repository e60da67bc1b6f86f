//! Whether traffic may be sent to the proxy, and if not, why.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use runtime::Drain;

use crate::identity::Identity;
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
    /// What the proxy is to others.
    pub identity: Identity,
    /// Whether the proxy leaves.
    pub drain: Drain,
}

impl Readiness {
    /// Whether configuration has been received, all listeners are up, and there is a first certificate if the configuration
    /// wants TLS: without one the proxy refuses every other proxy. Losing Pilot or the CA afterwards changes nothing.
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
        if self.identity.svids.latest().is_none() && self.wants_tls() {
            return Err(self.why_nobody());
        }
        Ok(())
    }

    /// Whether the proxy ends TLS of others, or begins it to any endpoint.
    fn wants_tls(&self) -> bool {
        let tables = self.snapshots.tables().load();
        let mut chains = tables.listeners().flat_map(|listener| listener.all_chains());
        let mut sockets = tables.clusters().flat_map(|cluster| &cluster.spec.sockets);
        chains.any(|chain| chain.tls.is_some()) || sockets.any(|socket| socket.tls.is_some())
    }

    fn why_nobody(&self) -> String {
        let Some(status) = &self.identity.status else {
            return "the configuration wants TLS, and there is no certificate: no CA and no files are configured"
                .to_owned();
        };
        match status.progress().error {
            Some(error) => format!("no certificate from the CA yet: {error}"),
            None => "waiting for the first certificate from the CA".to_owned(),
        }
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
