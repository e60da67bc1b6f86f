//! Hands the pod's identity to who is in the pod: SPIFFE's Workload API and Envoy's SDS, on one Unix socket.
//!
//! Here alone does a private key leave the process. The socket lies in a volume that the pod's containers share and nobody
//! else has; the kernel says by which user each connection was made, and [`Users`] says which users may ask. Each key that
//! is handed out, and each refusal, is one line of the log with target `audit`.
//!
//! Both services push: a stream gets the certificate and the roots in force, and again whenever they change. Before there
//! is a certificate, and once the last one has expired, streams wait.

mod following;
mod secrets;
mod service;
mod socket;
mod spiffe;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::names::WORKLOAD_SOCKET;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use runtime::CancellationToken;
use runtime::settings::{Env, SettingError};
use runtime::svid::Svids;
use tonic::transport::Server;

pub use self::secrets::{CERTIFICATE, ROOTS};
pub use self::socket::{SocketError, Users};

pub(crate) use self::secrets::fuzz as fuzz_requests;
use self::service::Serving;
use self::socket::Socket;

/// Streams on one connection.
const STREAMS: u32 = 16;
/// Largest request's headers.
const HEADER_BYTES: u32 = 16 * 1024;
/// How long streams may take to end with the proxy.
const GRACE: Duration = Duration::from_millis(500);

/// Where the pod's identity is handed out, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Path of the socket; `None`: identities stay in the process.
    pub path: Option<PathBuf>,
    /// Who may ask.
    pub users: Users,
}

impl Settings {
    /// Reads `MESH_WORKLOAD_SOCKET` (a path, or `off`) and `MESH_WORKLOAD_SOCKET_USERS` (`any`, or user IDs between commas).
    ///
    /// Without the first, the socket is where injection mounts its volume, if that is there.
    ///
    /// # Errors
    ///
    /// When one makes no sense.
    pub fn read(env: &Env) -> Result<Self, SettingError> {
        let usual = || Path::new(WORKLOAD_SOCKET);
        let path = match env.text("MESH_WORKLOAD_SOCKET")?.as_deref() {
            Some("off") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => usual().parent().filter(|volume| volume.is_dir()).map(|_| usual().to_owned()),
        };
        let users = env.parse("MESH_WORKLOAD_SOCKET_USERS", "`any`, or user IDs between commas")?;
        Ok(Settings { path, users: users.unwrap_or_default() })
    }
}

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct WorkloadMetrics {
    handed_out: Family<ApiLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    streams: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl WorkloadMetrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_workload_api_keys",
            "Private keys that were handed out on the socket, by api",
            self.handed_out.clone(),
        );
        registry.register(
            "mesh_workload_api_refusals",
            "What was refused on the socket: connections over the bound, users, requests without the header, secrets \
             that the client did not take",
            self.refused.clone(),
        );
        registry.register("mesh_workload_api_streams", "Streams that are open on the socket", self.streams.clone());
    }

    fn handed_out(&self, api: &'static str) {
        self.handed_out.get_or_create(&ApiLabels { api }).inc();
    }

    fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Private keys that were handed out by this API.
    #[must_use]
    pub fn keys(&self, api: &'static str) -> u64 {
        self.handed_out.get_or_create(&ApiLabels { api }).get()
    }

    /// What was refused for this reason.
    #[must_use]
    pub fn refusals(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabels { reason }).get()
    }
}

/// The open socket, before it is served.
#[derive(Debug)]
pub struct WorkloadApi {
    socket: Socket,
    users: Users,
    svids: Svids,
    metrics: WorkloadMetrics,
}

impl WorkloadApi {
    /// Makes the socket, in place of one that a process before this has left.
    ///
    /// # Errors
    ///
    /// When it cannot be made there.
    pub fn open(path: &Path, users: Users, svids: Svids, metrics: WorkloadMetrics) -> Result<Self, SocketError> {
        let socket = Socket::open(path, &users)?;
        Ok(WorkloadApi { socket, users, svids, metrics })
    }

    /// Serves until `stop` is cancelled; then ends all streams, and takes the socket away.
    pub async fn serve(self, stop: CancellationToken) {
        let WorkloadApi { socket, users, svids, metrics } = self;
        tracing::info!(path = %socket.path().display(), "the pod's identity can be had here");
        let serving = Serving::new(svids, users, metrics.clone(), stop.clone());
        let server = Server::builder()
            .max_concurrent_streams(Some(STREAMS))
            .http2_max_header_list_size(Some(HEADER_BYTES))
            .serve_with_incoming_shutdown(serving, socket.incoming(metrics), stop.clone().cancelled_owned());
        let cut = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = server => if let Err(error) = ended {
                tracing::error!(%error, "the socket of identities is not served any more");
            },
            () = cut => {}
        }
    }
}

#[cfg(test)]
mod tests;
