//! The port for operators and the CLI: metrics and readiness for everybody, the rest for the control plane's own
//! service accounts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::messages::{AuthorityStatus, CertificateFacts};
use api::names::{CA_TOKEN_AUDIENCE, SYSTEM_NAMESPACE};
use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{StatusCode, header};
use kube::Client;
use runtime::token::{Authenticator, Refusal};
use tokio::sync::{Notify, watch};

use crate::authority::{Authority, Plan, Policy};
use crate::metrics::Metrics;
use crate::naming::Naming;
use crate::rotation::Waiting;
use crate::store::{Step, Store};

/// What the debug port shows.
#[derive(Clone)]
pub struct Debug {
    authenticator: Authenticator,
    authority: Arc<ArcSwap<Authority>>,
    metrics: Arc<Metrics>,
    rotating: Arc<Rotating>,
    name: Arc<str>,
}

/// What a rotation of the root needs.
pub struct Rotating {
    /// Where the key is kept.
    pub store: Store,
    /// What certificates may be.
    pub policy: Policy,
    /// Has the CA look at what is kept.
    pub look: Arc<Notify>,
    /// How often it has looked.
    pub seen: watch::Receiver<u64>,
    /// Who has not acknowledged.
    pub waiting: watch::Receiver<Waiting>,
    /// In which name is issued.
    pub naming: Naming,
}

impl Debug {
    /// Shows this authority; `name` is the CA's pod.
    #[must_use]
    pub fn new(
        client: Client,
        authority: Arc<ArcSwap<Authority>>,
        metrics: Arc<Metrics>,
        rotating: Rotating,
        name: &str,
    ) -> Self {
        let authenticator = Authenticator::new(client, [CA_TOKEN_AUDIENCE]);
        Debug { authenticator, authority, metrics, rotating: Arc::new(rotating), name: name.into() }
    }
}

/// The port's routes; `metrics` is the daemon's own.
pub fn router(debug: Debug, metrics: Router) -> Router {
    let guarded = Router::new()
        .route("/v1/authority", get(authority))
        .route("/v1/rotation", post(rotate))
        .layer(middleware::from_fn_with_state(debug.clone(), authenticated));
    // It does not listen before it has a key to sign with.
    let open = Router::new().route("/readyz", get(async || "ready\n"));
    guarded.merge(open).with_state(debug).merge(metrics)
}

/// Begins a rotation of the root, or goes on with one, and answers once that is in force here. The rest the CAs do by
/// themselves, each stage once everybody has acknowledged the one before.
async fn rotate(State(debug): State<Debug>) -> Response {
    let rotating = &debug.rotating;
    let now = debug.authority.load().now().unwrap_or_else(SystemTime::now);
    if let Err(error) = rotating.store.rotate(Step::Begin, &rotating.policy, now, "").await {
        let status = if error.is_passing() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CONFLICT };
        return (status, format!("{}\n", runtime::exit::chain(&error))).into_response();
    }
    let mut seen = rotating.seen.clone();
    seen.mark_unchanged();
    rotating.look.notify_one();
    // The look that was under way may have begun before the change.
    for _ in 0..2 {
        let looked = tokio::time::timeout(Duration::from_secs(5), seen.changed()).await;
        if looked.is_err() || debug.authority.load().plan() == Plan::Rotating {
            break;
        }
        rotating.look.notify_one();
    }
    authority(State(debug)).await.into_response()
}

async fn authority(State(debug): State<Debug>) -> Json<AuthorityStatus> {
    let authority = debug.authority.load();
    let policy = authority.policy();
    let waiting = debug.rotating.waiting.borrow().clone();
    let issued = ["token", "svid", "join"].map(|proof| (proof.to_owned(), debug.metrics.count_issued(proof)));
    Json(AuthorityStatus {
        ca: debug.name.to_string(),
        version: runtime::version::VERSION.to_owned(),
        origin: authority.origin().name().to_owned(),
        trust_domain: policy.domain.to_string(),
        issuing: debug.rotating.naming.domain(policy).to_string(),
        aliases: policy.aliases.iter().map(ToString::to_string).collect(),
        lifetime_seconds: policy.lifetime.as_secs(),
        longest_lifetime_seconds: policy.longest.as_secs(),
        issuer: facts(authority.certificate()).into_iter().next().unwrap_or_default(),
        issuer_key: authority.issuer_key().to_owned(),
        rotation: authority.rotation(),
        is_rotating: authority.plan() != Plan::Idle,
        waiting: waiting.count.try_into().unwrap_or(u64::MAX),
        waiting_for: waiting.names,
        roots: facts(authority.roots()),
        bundle: authority.bundle().version(),
        issued: issued.into(),
    })
}

/// What people want to know of certificates.
fn facts(pem: &str) -> Vec<CertificateFacts> {
    let certificates = runtime::tls::certificates(pem.as_bytes()).unwrap_or_default();
    certificates.iter().map(runtime::svid::report::facts).collect()
}

/// Lets service accounts of the control plane's namespace through.
async fn authenticated(State(debug): State<Debug>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match debug.authenticator.check(authorization).await {
        Ok(caller) if caller.namespace == SYSTEM_NAMESPACE => next.run(request).await,
        Ok(caller) => {
            let (namespace, name) = (caller.namespace, caller.service_account);
            let text = format!(
                "service account {namespace}/{name} may not look in here; only those of {SYSTEM_NAMESPACE} may\n"
            );
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Err(refusal @ Refusal::Unavailable { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")).into_response()
        }
        Err(refusal) => (StatusCode::UNAUTHORIZED, format!("{refusal}\n")).into_response(),
    }
}
