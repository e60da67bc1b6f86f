//! The port for operators and the CLI: metrics and readiness for everybody, the rest for the control plane's own
//! service accounts. The CA, which asks who has acknowledged a rotation of the root, shows its SVID instead of a token.

mod applied;
mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::messages::{self, ProxyResources};
use api::names::{CA, SYSTEM_NAMESPACE};
use api::spiffe::SpiffeId;
use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::{StatusCode, header};
use runtime::logging::{self, Logging};

use crate::keys::KeySets;
use crate::snapshot::Snapshots;
use crate::xds::{OwnIdentity, Proxies};
use runtime::token::{Authenticator, Refusal};

/// What the debug port shows.
#[derive(Clone)]
pub struct Debug {
    /// Who may see it.
    pub authenticator: Authenticator,
    /// What all proxies should have.
    pub snapshots: Snapshots,
    /// Who Pilot is to proxies.
    pub identity: OwnIdentity,
    /// Who is connected.
    pub proxies: Proxies,
    /// Keys of issuers.
    pub keys: KeySets,
    /// Pilot's pod.
    pub name: Arc<str>,
    /// The process's log, when it is ours.
    pub logging: Option<Logging>,
}

/// Whose SVID a connection was made with, as a request's extension; the handshake has verified it.
#[derive(Debug, Clone)]
pub struct Shown(pub Option<SpiffeId>);

impl Shown {
    /// Whether it is the CA's. No other identity opens anything here: that takes a token.
    fn is_ca(&self) -> bool {
        self.0.as_ref().and_then(SpiffeId::account) == Some((SYSTEM_NAMESPACE, CA))
    }
}

/// The port's routes; `metrics` is the daemon's own.
pub fn router(debug: Debug, metrics: Router) -> Router {
    let for_the_ca = Router::new()
        .route("/v1/proxies", get(proxies))
        .route("/v1/renew", post(renew))
        .layer(middleware::from_fn_with_state(debug.clone(), authenticated_or_ca));
    let guarded = Router::new()
        .route("/v1/resources", get(resources))
        .route("/v1/applied", get(applied::applied))
        .route("/v1/snapshot", get(snapshot))
        .merge(logging::router(debug.logging.clone()))
        .route("/v1/keys", get(keys))
        .layer(middleware::from_fn_with_state(debug.clone(), authenticated));
    let open = Router::new().route("/readyz", get(ready));
    guarded.merge(for_the_ca).merge(open).with_state(debug).merge(metrics)
}

async fn ready(State(debug): State<Debug>) -> Response {
    if debug.snapshots.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the state of the cluster is being read\n").into_response()
}

async fn proxies(State(debug): State<Debug>) -> Json<messages::Proxies> {
    Json(messages::Proxies {
        pilot: debug.name.to_string(),
        version: runtime::version::VERSION.to_owned(),
        svid: runtime::svid::report::status(&debug.identity.svids),
        trust_domains: debug.snapshots.current().model.mesh.trust_domains().map(str::to_owned).collect(),
        proxies: debug.proxies.all().iter().map(|proxy| proxy.status()).collect(),
    })
}

/// Has Pilot and every proxy renew their identities.
async fn renew(State(debug): State<Debug>) -> Json<messages::Proxies> {
    debug.identity.renew_all();
    proxies(State(debug)).await
}

/// What one proxy was sent, and what it has of it.
async fn resources(State(debug): State<Debug>, Query(OneProxy { proxy }): Query<OneProxy>) -> Json<ProxyResources> {
    let found = debug.proxies.all().into_iter().find(|one| one.identity.id() == proxy);
    Json(match found {
        Some(one) => ProxyResources { connected: true, resources: one.state().resources() },
        None => ProxyResources::default(),
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OneProxy {
    /// `pod.namespace`.
    proxy: String,
}

async fn keys(State(debug): State<Debug>, Query(_): Query<Nothing>) -> Json<BTreeMap<String, crate::keys::State>> {
    Json(debug.keys.all())
}

async fn snapshot(State(debug): State<Debug>, Query(_): Query<Nothing>) -> Json<summary::Summary> {
    Json(summary::Summary::of(&debug.snapshots.current()))
}

/// No parameters: a misspelt one is an error, not silence.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Lets the CA through by its SVID, and everybody else by a token.
async fn authenticated_or_ca(
    state: State<Debug>,
    shown: Option<Extension<Shown>>,
    request: Request,
    next: Next,
) -> Response {
    match shown {
        Some(Extension(shown)) if shown.is_ca() => next.run(request).await,
        _ => authenticated(state, request, next).await,
    }
}

/// Lets service accounts of the control plane's namespace through.
async fn authenticated(State(debug): State<Debug>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match debug.authenticator.check(authorization).await {
        Ok(caller) if caller.namespace == SYSTEM_NAMESPACE => next.run(request).await,
        Ok(caller) => {
            let text = format!(
                "service account {}/{} may not look in here; only those of {} may\n",
                caller.namespace, caller.service_account, SYSTEM_NAMESPACE
            );
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Err(refusal @ Refusal::Unavailable { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")).into_response()
        }
        Err(refusal) => (StatusCode::UNAUTHORIZED, format!("{refusal}\n")).into_response(),
    }
}
