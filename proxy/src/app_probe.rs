//! The application's own probes, made by the proxy in the node's place.
//!
//! Injection turns probes by HTTP, HTTPS, TCP and gRPC (and lifecycle hooks by HTTP) into requests to the metrics port, and
//! tells the proxy the originals. The proxy asks the application at the pod's address, which the interception leaves alone, and
//! answers with what the application has answered: its status, or 503 or 504 with the reason. Only what it was told at
//! start can be asked for; a request chooses one of these by its path and nothing else.

mod grpc;
mod http;
mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ::http::{HeaderMap, StatusCode, Uri, header};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use runtime::Tasks;
use runtime::probe_tls::any_certificate;
use tokio_rustls::TlsConnector;

use crate::connect::Connector;
pub(crate) use grpc::fuzz_answer;
pub use settings::{AppProbe, AppProbes, HttpProbe, What};

/// Makes the probes.
pub(crate) struct Prober {
    probes: Vec<Watched>,
    /// The pod's address.
    address: IpAddr,
    connector: Connector,
    tls: TlsConnector,
    /// Where the parts of an HTTP/2 connection run.
    tasks: Tasks,
}

/// A probe and how it went the last time.
struct Watched {
    path: String,
    probe: AppProbe,
    last: AtomicU8,
}

const UNKNOWN: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;

/// Why a probe has failed, other than by the application's own status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeFailure {
    /// Nobody can be reached there.
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        /// The application's address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not speak TLS.
    #[error("{address} does not speak TLS: {source}")]
    Tls {
        /// The application's address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not speak HTTP.
    #[error("{address} does not answer in HTTP: {source}")]
    NotHttp {
        /// The application's address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The probe cannot be put into a request.
    #[error("the probe makes no request: {0}")]
    NoRequest(#[from] ::http::Error),
    /// gRPC's own status is not OK.
    #[error("the health service of {address} answers with gRPC status {status}{message}")]
    Grpc {
        /// The application's address.
        address: SocketAddr,
        /// The status.
        status: String,
        /// What it says, with what separates it.
        message: String,
    },
    /// The service is there and does not serve.
    #[error("the health service of {address} says that `{service}` is {word}")]
    NotServing {
        /// The application's address.
        address: SocketAddr,
        /// The service that was asked for.
        service: String,
        /// `NOT_SERVING`, `UNKNOWN`, ….
        word: &'static str,
    },
}

/// What a probe has found.
pub(crate) struct Found {
    status: StatusCode,
    body: Vec<u8>,
}

impl Prober {
    /// Makes `probes` at `address`, from sockets with this mark.
    ///
    /// # Errors
    ///
    /// When the crypto library supports no TLS version, which it does.
    pub(crate) fn new(
        probes: &AppProbes,
        address: Option<IpAddr>,
        mark: Option<u32>,
        tasks: Tasks,
    ) -> Result<Self, rustls::Error> {
        let watched = |(path, probe): (&String, &AppProbe)| Watched {
            path: path.clone(),
            probe: probe.clone(),
            last: AtomicU8::new(UNKNOWN),
        };
        Ok(Prober {
            probes: probes.all().map(watched).collect(),
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            connector: Connector { mark },
            tls: any_certificate()?,
            tasks,
        })
    }

    /// The routes of all probes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/app-health/{container}/{probe}", get(answer))
            .route("/app-lifecycle/{container}/{hook}", get(answer))
            .with_state(Arc::new(self))
    }

    async fn probe(&self, probe: &AppProbe, asked: &HeaderMap) -> Result<Found, ProbeFailure> {
        let at = |port: u16| SocketAddr::new(self.address, port);
        match &probe.what {
            What::Tcp { port } => {
                self.dial(at(*port)).await?;
                Ok(Found { status: StatusCode::OK, body: Vec::new() })
            }
            What::Http(http) => http::probe(self, at(http.port), http, asked).await,
            What::Grpc { port, service } => grpc::probe(self, at(*port), service).await,
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<tokio::net::TcpStream, ProbeFailure> {
        self.connector.dial(address).await.map_err(|source| ProbeFailure::Unreachable { address, source })
    }
}

async fn answer(State(prober): State<Arc<Prober>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(watched) = prober.probes.iter().find(|watched| watched.path == uri.path()) else {
        let known: Vec<&str> = prober.probes.iter().map(|watched| watched.path.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return (StatusCode::NOT_FOUND, format!("there is no such probe; known here: {known}\n")).into_response();
    };
    let limit = watched.probe.timeout;
    let found = match tokio::time::timeout(limit, prober.probe(&watched.probe, &headers)).await {
        Ok(Ok(found)) => found,
        Ok(Err(failure)) => {
            Found { status: StatusCode::SERVICE_UNAVAILABLE, body: format!("{failure}\n").into_bytes() }
        }
        Err(_) => {
            let text = format!("the application does not answer within {limit:?}\n");
            Found { status: StatusCode::GATEWAY_TIMEOUT, body: text.into_bytes() }
        }
    };
    watched.note(&found);
    let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (found.status, text, found.body).into_response()
}

impl Watched {
    /// Logs when a probe begins to fail, and when it succeeds again.
    fn note(&self, found: &Found) {
        let is_good = found.status.is_success() || found.status.is_redirection();
        let now = if is_good { GOOD } else { BAD };
        let before = self.last.swap(now, Ordering::Relaxed);
        let (probe, status) = (self.path.as_str(), found.status.as_u16());
        match (before, now) {
            (UNKNOWN | GOOD, BAD) => {
                let said = String::from_utf8_lossy(&found.body);
                tracing::info!(probe, status, reason = said.trim_end(), "a probe of the application fails");
            }
            (BAD, GOOD) => tracing::info!(probe, status, "a probe of the application succeeds again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
