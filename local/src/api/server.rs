//! The API as a whole, and its server: TLS, HTTP/1.1 and HTTP/2, one task per connection.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::pki::{self, Pki, PkiError};
use super::tokens::{Tokens, User};
use super::{PodStreams, Store, handler};

/// The local API: its objects, its keys, and what it asks the node.
pub struct Api {
    pub(super) store: Arc<Store>,
    pub(super) tokens: Tokens,
    pub(super) pki: Pki,
    pub(super) streams: Arc<dyn PodStreams>,
    pub(super) stop: CancellationToken,
}

/// What the API needs to know.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The directory for keys and certificates (`pki/` of the state directory).
    pub pki: PathBuf,
}

/// Why the API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its keys and certificates.
    #[error("cannot prepare the keys of the local API")]
    Pki(#[from] PkiError),
    /// Its token key.
    #[error("the key that signs service-account tokens is not usable")]
    Tokens(#[from] jsonwebtoken::errors::Error),
}

/// Connections that are served at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// A peer that has not finished its TLS handshake or its request's head by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);

impl Api {
    /// Prepares the API: reads or makes its keys.
    ///
    /// # Errors
    /// When keys or certificates cannot be used.
    pub fn open(store: Arc<Store>, config: &ApiConfig, streams: Arc<dyn PodStreams>) -> Result<Arc<Self>, StartError> {
        let pki = Pki::open(&config.pki)?;
        let tokens = Tokens::new(&pki)?;
        Ok(Arc::new(Self { store, tokens, pki, streams, stop: CancellationToken::new() }))
    }

    /// The objects.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Issues service-account tokens, for the volumes of pods.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Keys and certificates, for the kubeconfig and for `kube-root-ca.crt`.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }
}

/// Serves the API on all listeners until the tasks are told to stop.
///
/// # Errors
/// When TLS cannot be set up or a listener cannot be used.
pub fn serve(api: &Arc<Api>, listeners: Vec<TcpListener>, tasks: &Tasks) -> Result<(), StartError> {
    let acceptor = TlsAcceptor::from(api.pki.server_config()?);
    for listener in listeners {
        let (api, acceptor, tasks_of_listener) = (api.clone(), acceptor.clone(), tasks.clone());
        let token = tasks.token().clone();
        tasks.spawn("api-accept", async move {
            token.run_until_cancelled(accept(api, listener, acceptor, tasks_of_listener)).await;
        });
    }
    let (token, stop) = (tasks.token().clone(), api.stop.clone());
    tasks.spawn("api-stop", async move {
        token.cancelled().await;
        stop.cancel();
    });
    Ok(())
}

async fn accept(api: Arc<Api>, listener: TcpListener, acceptor: TlsAcceptor, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the local API could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (api, acceptor, token) = (api.clone(), acceptor.clone(), tasks.token().clone());
        tasks.spawn("api-connection", async move {
            token.run_until_cancelled(connection(api, stream, acceptor)).await;
            drop(place);
        });
    }
}

async fn connection(api: Arc<Api>, stream: TcpStream, acceptor: TlsAcceptor) {
    let local: Option<IpAddr> = stream.local_addr().ok().map(|it| it.ip());
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, ?local, "a connection could not be set up");
    }
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake with the local API failed");
            return;
        }
        Err(_) => return,
    };
    let peer = peer(&stream);
    let service = service_fn(move |request| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(Box::pin(handler::handle(api, peer, request)).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}

/// Whom the client certificate speaks for, if there is one.
fn peer(stream: &tokio_rustls::server::TlsStream<TcpStream>) -> Option<User> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (name, mut groups) = pki::subject(certificate)?;
    groups.push("system:authenticated".into());
    Some(User { name, groups, ..User::default() })
}
