//! The admin port: what the proxy has, what it does, and the few things that an operator may change.

mod dump;
pub mod request;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use runtime::logging::{self, Logging};
use runtime::metrics::Metrics;
use runtime::{Drain, Tasks, version};
use serde_json::{Value, json};

use crate::access_log::{AccessLog, Encoding, Format};
use crate::data::DataPath;
use crate::identity::Identity;
use crate::readiness::Readiness;
use crate::settings::{Role, Workload};
use crate::snapshot::Snapshots;
use crate::sockets::SocketsState;
use crate::xds;

/// Everything that the admin port shows or changes.
pub struct Admin {
    /// What is in force.
    pub snapshots: Snapshots,
    /// Who the proxy is to others.
    pub identity: Identity,
    /// What is served.
    pub sockets: SocketsState,
    /// The data path.
    pub path: Arc<DataPath>,
    /// Where connections run.
    pub connections: Tasks,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The process's log, when it is ours.
    pub logging: Option<Logging>,
    /// Whether traffic may come.
    pub readiness: Readiness,
    /// The way out.
    pub drain: Drain,
    /// What the proxy is for.
    pub role: Role,
    /// Whose it is.
    pub workload: Workload,
    /// When it started.
    pub started: SystemTime,
}

/// The admin port's routes, with those by which the proxy is asked to leave, for loopback only.
pub fn router(admin: &Arc<Admin>, quit: Router) -> Router {
    let ready = admin.readiness.clone();
    let router = Router::new()
        .route("/", get(help))
        .route("/config_dump", get(config_dump))
        .route("/clusters", get(clusters))
        .route("/listeners", get(listeners))
        .route("/certs", get(certs))
        .route("/clear_text_callers", get(clear_text_callers))
        .route("/stats", get(stats))
        .route("/server_info", get(server_info))
        .route("/drain", post(drain))
        .route("/access_log", get(access_log).post(set_access_log))
        .with_state(Arc::clone(admin))
        .merge(logging::router(admin.logging.clone()))
        .merge(ready.router("/ready"))
        .merge(quit);
    runtime::admin::loopback_only(router)
}

const HELP: &str = "\
GET  /config_dump      all resources in force, and those that were refused
GET  /clusters         clusters with the state of their endpoints
GET  /listeners        listeners and the addresses that they have bound
GET  /certs            the certificate and the roots in force, and how renewals go
GET  /clear_text_callers  who has connected in clear text, to which port and how often
GET  /stats            metrics, as on the metrics port
GET  /server_info      version, role, configuration and connection to Pilot
GET  /ready            200 when traffic may come, else 503 and the reason
GET  /logging          the log filter
POST /logging?level=L  changes it: info, debug, or by target as info,mesh_proxy=debug; ?reset=true takes it back
GET  /access_log       the format of the access log's lines
POST /access_log?encoding=text|json&format=F  changes it until the proxy ends; without a format, the encoding's default
POST /drain            stops accepting connections; what runs goes on
POST /quit             as SIGTERM: drains, then the process ends
";

async fn help() -> &'static str {
    HELP
}

async fn config_dump(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(dump::config(&admin.snapshots))
}

async fn clusters(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(dump::clusters(&admin.snapshots.tables().load(), admin.path.now()))
}

async fn listeners(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(dump::listeners(&admin.snapshots.tables().load(), &admin.sockets.served()))
}

async fn certs(State(admin): State<Arc<Admin>>) -> Json<runtime::svid::report::Report> {
    Json(runtime::svid::report::Report::of(&admin.identity.svids, admin.identity.status.as_ref()))
}

async fn clear_text_callers(State(admin): State<Arc<Admin>>) -> Json<api::messages::ClearTextCallers> {
    let metrics = admin.path.metrics();
    Json(metrics.clear_text.callers(&metrics.peers))
}

async fn stats(State(admin): State<Arc<Admin>>) -> String {
    admin.metrics.prometheus()
}

async fn server_info(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let ready = admin.readiness.check();
    let uptime = admin.started.elapsed().unwrap_or_default().as_secs();
    let tasks: HashMap<_, _> = admin.connections.running().into_iter().collect();
    Json(json!({
        "version": version::VERSION,
        "revision": version::revision(),
        "role": admin.role.word(),
        "node": {
            "id": admin.workload.node_id(&admin.role),
            "pod": admin.workload.pod,
            "namespace": admin.workload.namespace,
            "serviceAccount": admin.workload.service_account,
            "owner": admin.workload.owner,
        },
        "state": if admin.drain.is_draining() { "draining" } else if ready.is_ok() { "ready" } else { "not ready" },
        "reason": ready.err(),
        "uptimeSeconds": uptime,
        "configVersion": dump::version(&admin.snapshots),
        "resources": dump::counts(&admin.snapshots),
        "waitingFor": admin.snapshots.missing(),
        "pilot": admin.readiness.pilot.as_ref().map(|(address, status)| pilot(address, &status.state())),
        "tasks": tasks,
        "idleUpstreamConnections": admin.path.idle_upstreams(),
        "logFilter": admin.logging.as_ref().map(Logging::filter),
    }))
}

fn pilot(address: &str, state: &xds::State) -> Value {
    match state {
        xds::State::Connecting => json!({"address": address, "state": "connecting"}),
        xds::State::Connected { since } => {
            json!({"address": address, "state": "connected", "since": timestamp(*since)})
        }
        xds::State::Lost { since, reason } => {
            json!({"address": address, "state": "disconnected", "since": timestamp(*since), "reason": reason})
        }
    }
}

fn timestamp(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default()
}

async fn drain(State(admin): State<Arc<Admin>>) -> &'static str {
    tracing::info!("draining, as the admin port was asked to");
    admin.drain.start();
    "draining: no connection is accepted any more, what runs goes on\n"
}

async fn access_log(State(admin): State<Arc<Admin>>) -> Response {
    match admin.path.access_log() {
        Some(log) => format!("{}\n", log.format().to_string().trim_end()).into_response(),
        None => no_access_log(),
    }
}

async fn set_access_log(State(admin): State<Arc<Admin>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let Some(log) = admin.path.access_log() else { return no_access_log() };
    match changed_format(log, &query) {
        Ok(format) => {
            tracing::info!(%format, "the format of the access log has been changed");
            log.set_format(format);
            "changed\n".into_response()
        }
        Err(text) => (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response(),
    }
}

/// The format that is asked for; what is not said stays, but a format belongs to its encoding.
fn changed_format(log: &AccessLog, query: &HashMap<String, String>) -> Result<Format, String> {
    if query.is_empty() || query.keys().any(|key| key != "encoding" && key != "format") {
        return Err("say `encoding=text` or `encoding=json`, `format=FORMAT`, or both".to_owned());
    }
    let encoding = match query.get("encoding") {
        None => log.format().encoding(),
        Some(word) => word.parse::<Encoding>().map_err(|hint| format!("encoding={word}: {hint}"))?,
    };
    Format::new(encoding, query.get("format").map(String::as_str)).map_err(|error| runtime::exit::chain(&error))
}

fn no_access_log() -> Response {
    (StatusCode::NOT_FOUND, "requests are not logged: MESH_ACCESS_LOG is off\n").into_response()
}
