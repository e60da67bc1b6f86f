//! TLS from PEM bytes, with one crypto provider, and a listener whose handshakes are bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use futures_util::Stream;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::counted::Counted;

/// Why PEM bytes cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM is damaged.
    #[error("the {what} cannot be read as PEM")]
    Pem {
        /// `certificate chain`, `private key` or `root certificates`.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// There is none in it.
    #[error("the PEM holds no {0}")]
    Empty(&'static str),
    /// A root certificate cannot be used as one.
    #[error("a root certificate cannot be used")]
    Root(#[source] rustls::Error),
    /// Certificate and key do not fit, or the like.
    #[error("the certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
    /// The verifier of client certificates cannot be made.
    #[error("the roots for client certificates cannot be used")]
    ClientRoots(#[source] rustls::server::VerifierBuilderError),
    /// The provider does not know the protocol versions, which is a fault of the build.
    #[error("the crypto provider does not offer TLS 1.2 and 1.3")]
    Versions(#[source] rustls::Error),
}

/// The one crypto provider: aws-lc-rs, with the hybrid post-quantum group first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The certificates in a PEM, at least one.
///
/// # Errors
///
/// When the PEM is damaged or holds none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WHAT: &str = "certificate chain";
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|source| TlsError::Pem { what: WHAT, source })?;
    if chain.is_empty() { Err(TlsError::Empty("certificate")) } else { Ok(chain) }
}

/// The private key in a PEM (PKCS#8, SEC1 or PKCS#1).
///
/// # Errors
///
/// When the PEM is damaged or holds none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| match source {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::Empty("private key"),
        source => TlsError::Pem { what: "private key", source },
    })
}

/// The root certificates in a PEM, at least one.
///
/// # Errors
///
/// When the PEM is damaged, holds none, or one cannot be a root.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem)? {
        store.add(root).map_err(TlsError::Root)?;
    }
    Ok(store)
}

/// How a server presents itself.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Certificate chain, leaf first.
    pub certificate_pem: &'a [u8],
    /// The leaf's private key.
    pub key_pem: &'a [u8],
}

/// A server's configuration. Clients are asked for a certificate only when `client_roots_pem` is given, and may still
/// come without one: who they are is then decided by what they show instead.
///
/// # Errors
///
/// When a PEM cannot be used.
pub fn server_config(
    identity: Identity<'_>,
    client_roots_pem: Option<&[u8]>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match client_roots_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(TlsError::ClientRoots)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(identity.certificate_pem)?;
    let mut config = builder.with_single_cert(chain, private_key(identity.key_pem)?).map_err(TlsError::Identity)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's configuration that trusts the given roots only.
///
/// # Errors
///
/// When the PEM cannot be used.
pub fn client_config(roots_pem: &[u8], alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots(roots_pem)?)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Bounds of the handshakes of a [`TlsListener`].
#[derive(Debug, Clone, Copy)]
pub struct Handshakes {
    /// How many may be under way; further connections wait in the kernel's queue.
    pub at_a_time: usize,
    /// How long one may take.
    pub timeout: Duration,
}

impl Default for Handshakes {
    fn default() -> Self {
        Handshakes { at_a_time: 256, timeout: Duration::from_secs(10) }
    }
}

/// A TCP listener that hands out connections whose TLS handshake is done, so that a slow or silent client holds up
/// nobody. Give it to [`crate::admin::serve`], or its [`TlsListener::into_stream`] to tonic.
#[derive(Debug)]
pub struct TlsListener {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    bounds: Handshakes,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    /// Puts TLS in front of `listener`.
    #[must_use]
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>, bounds: Handshakes) -> Self {
        TlsListener { listener, config, bounds, handshakes: JoinSet::new() }
    }

    /// The next connection. Safe to cancel.
    pub async fn next(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                accepted = self.listener.accept(), if self.handshakes.len() < self.bounds.at_a_time => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer),
                    Err(error) => pause_after(&error).await,
                },
            }
        }
    }

    /// The connections as a stream without end, as tonic's `serve_with_incoming` takes it.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send {
        futures_util::stream::unfold(self, |mut listener| async move {
            let (stream, _) = listener.next().await;
            Some((Ok(stream), listener))
        })
    }

    /// The same with at most so many connections at a time; those over it are closed, and `refused` is told of each.
    pub fn into_bounded_stream(
        self,
        most: usize,
        refused: impl Fn() + Send + 'static,
    ) -> impl Stream<Item = io::Result<Counted<TlsStream<TcpStream>>>> + Send {
        let permits = Arc::new(Semaphore::new(most));
        futures_util::stream::unfold((self, permits, refused), |(mut listener, permits, refused)| async move {
            loop {
                let (stream, _) = listener.next().await;
                if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                    return Some((Ok(Counted::new(stream, permit)), (listener, permits, refused)));
                }
                refused();
            }
        })
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let limit = self.bounds.timeout;
        self.handshakes.spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return Some((stream, peer)),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake has failed"),
                Err(_) => tracing::debug!(%peer, ?limit, "a TLS handshake took too long"),
            }
            None
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that broke while it waited concerns nobody; anything else (no descriptors left) needs a moment.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "cannot accept connections; trying again in a second");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests;
