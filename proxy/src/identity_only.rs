//! The pod's identity alone: asked of the CA, renewed, and handed out on the socket, beside a data plane of another make.
//!
//! No Pilot tells it when to renew before the time, so it asks the CA for that. A stock Envoy as a sidecar has its certificates so. It carries no traffic; metrics and readiness are where a sidecar has them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use runtime::Tasks;
use runtime::metrics::Metrics;
use runtime::svid::Svids;
use runtime::svid::follow::Following;

use crate::daemon::{DaemonError, hand_out};
use crate::identity::{Identity, authority};
use crate::interception;
use crate::settings::Settings;
use crate::sockets::{BindError, bind};

/// How long streams may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// Runs until `leave` names a reason to go.
///
/// # Errors
///
/// When there is no socket to hand identities out on, a port is taken.
pub async fn run(settings: Settings, leave: impl Future<Output = &'static str>) -> Result<(), DaemonError> {
    // A machine outside has nothing that would intercept its questions, and nobody there is root for our sake.
    let mark = interception::mark().unwrap_or_else(|why| {
        tracing::debug!(%why, "questions to the CA are as anybody's");
        None
    });
    let background = Tasks::new();
    let metrics = Metrics::new("proxy");
    let identity = Identity::start(&settings, mark, &metrics, &background)?;
    if settings.workload_api.path.is_none() {
        return Err(DaemonError::NoSocket);
    }
    hand_out(&settings, &identity, &metrics, &background)?;
    if let Some(status) = &identity.status {
        let following = Following {
            authority: authority(&settings, mark),
            svids: identity.svids.clone(),
            status: status.clone(),
            every: settings.ca.check,
        };
        background.spawn("trust", following.run(background.token().clone()));
    }
    for (what, port, router) in [
        ("metrics", settings.ports.metrics, metrics.router()),
        ("readiness", settings.ports.readiness, readiness(identity.svids.clone())),
    ] {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = bind(address).map_err(|source: BindError| DaemonError::Port { what, source })?;
        let limits = runtime::admin::Limits::default();
        background.spawn(what, runtime::admin::serve(listener, router, limits, background.token().clone()));
    }
    tracing::info!(version = runtime::version::long(), "identities are handed out here; traffic is somebody else's");
    tokio::select! {
        reason = leave => tracing::info!(reason, "ending"),
        () = background.token().cancelled() => {}
    }
    if let Err(left) = background.stop(GRACE).await {
        tracing::debug!(?left, "not waited for");
    }
    background.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Ready once there is a certificate to hand out.
fn readiness(svids: Svids) -> Router {
    Router::new().route(
        "/healthz/ready",
        get(async move || match svids.current() {
            Some(_) => (StatusCode::OK, "ready\n").into_response(),
            None => (StatusCode::SERVICE_UNAVAILABLE, "not ready: there is no valid certificate\n").into_response(),
        }),
    )
}
