//! One proxy's stream: hears what it asks and acknowledges, sends what is new.

use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::ads::Ads;
use super::codec::Response;
use super::identity::{self, Identity, Shown};
use super::proxies::Proxy;
use super::state::{Heard, Push};
use crate::snapshot::View;

/// How long a proxy may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long a new pod may take to appear in what Pilot watches, before its proxy is served as nobody.
const POD_APPEARS: Duration = Duration::from_secs(2);
/// How long routes wait for a proxy to ask for the endpoints of new clusters.
const ENDPOINTS_ASKED: Duration = Duration::from_secs(1);
/// How long a stream lives, so that a token that does not hold any more is noticed; spread by the pod's name so that
/// proxies do not come back together. Coming back costs bytes only for what changed meanwhile.
const AGE: Duration = Duration::from_secs(30 * 60);

/// One proxy's stream.
pub(super) struct Stream {
    ads: Ads,
    shown: Shown,
    responses: mpsc::Sender<Result<Response, Status>>,
}

/// Why a stream ends.
enum End {
    /// The proxy is gone.
    Gone,
    /// It is told why.
    Told(Status),
}

impl Stream {
    pub(super) fn new(ads: Ads, shown: Shown, responses: mpsc::Sender<Result<Response, Status>>) -> Self {
        Stream { ads, shown, responses }
    }

    /// Serves the proxy until it leaves or has to.
    pub(super) async fn run(self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let end = match self.introduction(&mut requests).await {
            Ok((identity, first)) => self.serve(identity, &first, requests).await,
            Err(end) => end,
        };
        if let End::Told(status) = end {
            tracing::debug!(code = ?status.code(), message = status.message(), "a stream is ended");
            // There is room: at most one response per type is waiting. If the proxy is gone, nobody needs to know.
            let _ = self.responses.try_send(Err(status));
        }
    }

    /// Reads the first request and finds out who sends it.
    async fn introduction(
        &self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
    ) -> Result<(Identity, DeltaDiscoveryRequest), End> {
        let first = tokio::time::timeout(INTRODUCTION, requests.message()).await;
        let first = first.map_err(|_| told(Status::deadline_exceeded("no request came within 10 seconds")))?;
        let first = first.map_err(|_| End::Gone)?.ok_or(End::Gone)?;
        let identity =
            Identity::read(first.node.as_ref()).map_err(|error| told(Status::invalid_argument(error.to_string())))?;
        let account =
            self.ads.snapshots.current().node(&identity.pod).map(|node| node.workload.service_account.clone());
        identity.check(&self.shown, account.as_deref()).map_err(|error| {
            self.ads.metrics.refused_stream();
            tracing::warn!(%error, "a proxy is not let in");
            told(Status::permission_denied(error.to_string()))
        })?;
        Ok((identity, first))
    }

    async fn serve(
        &self,
        identity: Identity,
        first: &DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
    ) -> End {
        let connected = match self.ads.proxies.connect(identity) {
            Ok(connected) => connected,
            Err(full) => return told(Status::resource_exhausted(full.to_string())),
        };
        let proxy = connected.proxy.clone();
        let _counted = self.ads.metrics.connected();
        let id = proxy.identity.id();
        tracing::info!(proxy = id, role = proxy.identity.role(), version = proxy.identity.version, "connected");
        let end = self.exchange(&proxy, first, &mut requests).await.err().unwrap_or(End::Gone);
        tracing::info!(proxy = id, "disconnected");
        end
    }

    /// The conversation. Never returns `Ok` before the proxy has left in order.
    async fn exchange(
        &self,
        proxy: &Proxy,
        first: &DeltaDiscoveryRequest,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
    ) -> Result<(), End> {
        let mut changes = self.ads.snapshots.changes();
        self.hear(proxy, first)?;
        self.wait_for_pod(proxy, &mut changes).await;
        changes.mark_unchanged();
        let mut view = View::new(
            self.ads.snapshots.current(),
            proxy.identity.role,
            proxy.identity.tls,
            proxy.identity.pod.clone(),
        );
        let old_age = Instant::now() + age(proxy);
        let mut endpoints_asked = None;
        let mut renewals = self.ads.identity.renewals.subscribe();
        loop {
            self.send_what_is_due(proxy, &view)?;
            if !proxy.state().is_awaiting_endpoints() {
                endpoints_asked = None;
            } else if endpoints_asked.is_none() {
                endpoints_asked = Some(Instant::now() + ENDPOINTS_ASKED);
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.hear(proxy, &request)?,
                    Ok(None) | Err(_) => return Ok(()),
                },
                changed = changes.changed() => match changed {
                    Ok(()) => view.advance(self.ads.snapshots.current()),
                    Err(_) => return Err(told(Status::unavailable("Pilot ends"))),
                },
                Ok(()) = renewals.changed() => self.ask_to_renew(proxy)?,
                () = sleep_until(endpoints_asked) => proxy.state().stop_awaiting_endpoints(),
                () = proxy.superseded() => return Err(told(Status::aborted("a newer stream of this proxy has taken over"))),
                () = self.ads.tasks.token().cancelled() => return Err(told(Status::unavailable("Pilot ends; connect to another replica"))),
                () = tokio::time::sleep_until(old_age) => return Err(told(Status::unavailable("the stream is old; connect again with a fresh token"))),
            }
        }
    }

    /// Takes a request in.
    fn hear(&self, proxy: &Proxy, request: &DeltaDiscoveryRequest) -> Result<(), End> {
        if let Some(node) = &request.node {
            proxy.introduced(identity::svid(node, &self.shown), identity::traffic(node));
        }
        let heard = proxy.state().hear(request).map_err(|status| {
            tracing::warn!(proxy = proxy.identity.id(), error = status.message(), "a request is refused");
            told(status)
        })?;
        match heard {
            Heard::Ack(kind) => {
                self.ads.metrics.acknowledged(kind);
                self.ads.proxies.made_progress();
            }
            Heard::Nack(kind, count) => {
                self.ads.metrics.refused(kind, count as u64);
                self.ads.proxies.made_progress();
                let message = request.error_detail.as_ref().map_or("", |error| error.message.as_str());
                let words: String = message.chars().take(1000).collect();
                tracing::warn!(proxy = proxy.identity.id(), kind = kind.short(), count, words, "resources are refused");
            }
            Heard::UnknownType => {
                tracing::debug!(proxy = proxy.identity.id(), type_url = request.type_url, "a type that is not served");
            }
            Heard::Subscription => {}
        }
        Ok(())
    }

    /// Sends what the proxy may be sent now.
    fn send_what_is_due(&self, proxy: &Proxy, view: &View) -> Result<(), End> {
        let before = proxy.state().settled();
        loop {
            let due = proxy.state().next(view);
            let Some(push) = due else { break };
            self.ads.metrics.pushed(push.kind, &push.resources);
            let response = self.response(push);
            // A full queue cannot be: there is room for one response of each type, and no type has two on their way.
            self.responses.try_send(Ok(response)).map_err(|_| End::Gone)?;
        }
        if proxy.state().settled() != before {
            self.ads.proxies.made_progress();
        }
        Ok(())
    }

    /// Has a proxy of ours renew its identity. What it trusts then, it tells by itself.
    fn ask_to_renew(&self, proxy: &Proxy) -> Result<(), End> {
        if !proxy.has_identity() {
            return Ok(());
        }
        let renew = Response {
            type_url: api::messages::node_metadata::RENEW,
            nonce: "renew".to_owned(),
            system_version: String::new(),
            resources: Vec::new(),
            removed: Vec::new(),
            control_plane: self.ads.name.clone(),
        };
        self.responses.try_send(Ok(renew)).map_err(|_| End::Gone)
    }

    fn response(&self, push: Push) -> Response {
        Response {
            type_url: push.kind.type_url(),
            nonce: push.nonce.to_string(),
            system_version: push.serial.to_string(),
            resources: push.resources,
            removed: push.removed,
            control_plane: self.ads.name.clone(),
        }
    }

    /// A pod's proxy may be faster than the watch that tells of the pod.
    async fn wait_for_pod(&self, proxy: &Proxy, changes: &mut tokio::sync::watch::Receiver<u64>) {
        let appears = async {
            while self.ads.snapshots.current().node(&proxy.identity.pod).is_none() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(POD_APPEARS, appears).await.is_err() {
            tracing::warn!(
                proxy = proxy.identity.id(),
                "its pod is not known; it is served without labels and services"
            );
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn told(status: Status) -> End {
    End::Told(status)
}

/// From two thirds of [`AGE`] to all of it, by the proxy's name.
fn age(proxy: &Proxy) -> Duration {
    let spread = crate::hash::of(&proxy.identity.id()) % 1000;
    AGE * 2 / 3 + AGE / 3 * u32::try_from(spread).unwrap_or(0) / 1000
}
