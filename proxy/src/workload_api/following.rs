//! Follows the identity in force for one stream.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use prometheus_client::metrics::gauge::Gauge;
use runtime::CancellationToken;
use runtime::svid::{Bundle, Svid, Svids};
use tokio::sync::watch;
use tonic::Status;

use super::WorkloadMetrics;
use super::socket::Peer;

/// What a stream gives.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An answer with what tells it from the next.
pub(super) struct Given<T> {
    pub(super) version: String,
    pub(super) answer: T,
    /// Whose key is in it.
    pub(super) key_of: Option<Arc<Svid>>,
}

/// What a stream follows, and for whom.
pub(super) struct Following {
    svids: Svids,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
    peer: Peer,
    api: &'static str,
    metrics: WorkloadMetrics,
    _open: Open,
}

/// A stream counts while it is open.
struct Open(Gauge);

impl Following {
    pub(super) fn new(
        svids: &Svids,
        stop: &CancellationToken,
        (peer, api): (Peer, &'static str),
        metrics: &WorkloadMetrics,
    ) -> Self {
        metrics.streams.inc();
        Following {
            svids: svids.clone(),
            changes: svids.changes(),
            stop: stop.clone(),
            peer,
            api,
            metrics: metrics.clone(),
            _open: Open(metrics.streams.clone()),
        }
    }

    /// The certificate in force, with the roots; never one that has expired.
    pub(super) fn svid(&self) -> Option<(Arc<Svid>, Arc<Bundle>)> {
        Some((self.svids.current()?, self.svids.bundle()?))
    }

    /// The roots in force.
    pub(super) fn bundle(&self) -> Option<Arc<Bundle>> {
        self.svids.bundle()
    }

    /// Whatever is in force now has been seen: [`Following::changed`] waits for what comes after.
    pub(super) fn seen(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Waits until something else may be in force.
    ///
    /// # Errors
    ///
    /// When the proxy ends.
    pub(super) async fn changed(&mut self) -> Result<(), Status> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Status::unavailable("the proxy is ending")),
            Ok(()) = self.changes.changed() => Ok(()),
        }
    }

    /// Writes down that a key leaves the process, if one does.
    pub(super) fn record(&self, svid: Option<&Svid>) {
        let Some(svid) = svid else { return };
        self.metrics.handed_out(self.api);
        let Peer { user, group, process } = self.peer;
        tracing::info!(
            target: "audit", id = %svid.id, serial = svid.serial, api = self.api, user, group, process,
            "the private key was handed out"
        );
    }

    /// Writes down that the client does not take what it was given.
    pub(super) fn record_refusal(&self, reason: &str) {
        self.metrics.refused("secret");
        tracing::warn!(api = self.api, user = self.peer.user, reason, "a secret was not taken");
    }

    /// Gives what `answer` makes of what is in force, once it can, and again whenever its version changes.
    pub(super) fn push<T, F>(self, answer: F) -> Answers<T>
    where
        T: Send + 'static,
        F: Fn(&Following) -> Option<Given<T>> + Send + 'static,
    {
        let start = (self, answer, None);
        Box::pin(stream::unfold(Some(start), |state| async move {
            let (mut following, answer, sent): (Following, F, Option<String>) = state?;
            loop {
                following.seen();
                if let Some(given) = answer(&following)
                    && sent.as_ref() != Some(&given.version)
                {
                    following.record(given.key_of.as_deref());
                    return Some((Ok(given.answer), Some((following, answer, Some(given.version)))));
                }
                if let Err(status) = following.changed().await {
                    return Some((Err(status), None));
                }
            }
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
