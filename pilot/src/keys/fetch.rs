//! One fetch: a name is looked up once and its addresses judged, redirects are few and judged anew, and neither time nor
//! size is without a bound.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::token::{KeySet, KeySetError};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target;

/// How long a fetch may take, with all of its redirects.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Most redirects.
const MAX_REDIRECTS: usize = 3;

/// Fetches key sets.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
    /// Whether this machine and its link may be fetched from too.
    allows_local: bool,
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No address.
    #[error("`{0}` is no address of a key set")]
    Address(String),
    /// The name is not known.
    #[error("the name `{host}` cannot be looked up")]
    Name {
        /// The name.
        host: String,
        /// The resolver's words.
        #[source]
        source: std::io::Error,
    },
    /// It would lead to where Pilot fetches nothing from.
    #[error("`{host}` is {address}, from where no keys are fetched (MESH_JWKS_ALLOW_LOCAL allows it)")]
    Forbidden {
        /// The name.
        host: String,
        /// What it stands for.
        address: IpAddr,
    },
    /// Nothing answers.
    #[error("{0} cannot be reached")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The answer cannot be read.
    #[error("the answer cannot be read")]
    Http(#[source] hyper::Error),
    /// Something else than a key set was answered.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// It leads in a circle, or from TLS to plain text.
    #[error("the redirect to `{0}` is not followed")]
    Redirect(String),
    /// Too long.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// Too slow.
    #[error("the answer took longer than {TIMEOUT:?}")]
    TooSlow,
    /// No key set, or one of no use.
    #[error("the answer is of no use")]
    KeySet(#[source] KeySetError),
}

/// What became of one request.
enum Answered {
    Body(Bytes),
    Elsewhere(Uri),
}

impl Fetcher {
    /// A fetcher that trusts these roots.
    #[must_use]
    pub fn new(roots: rustls::RootCertStore, allows_local: bool) -> Self {
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Fetcher { tls: TlsConnector::from(Arc::new(config)), allows_local }
    }

    /// A fetcher that trusts what the machine trusts. Without any root, only `http` works.
    #[must_use]
    pub fn of_machine(allows_local: bool) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a root certificate of the machine cannot be read");
        }
        let (added, _) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(roots = added, "trusted for the keys of issuers");
        Fetcher::new(roots, allows_local)
    }

    /// Fetches a key set, and makes sure that it is one.
    ///
    /// # Errors
    ///
    /// It cannot be had, or is of no use.
    pub async fn fetch(&self, uri: &str) -> Result<Arc<str>, FetchError> {
        let fetching = self.follow(uri);
        let body = tokio::time::timeout(TIMEOUT, fetching).await.map_err(|_| FetchError::TooSlow)??;
        KeySet::parse(&body).map_err(FetchError::KeySet)?;
        // It has been read as JSON, so it is UTF-8.
        Ok(String::from_utf8_lossy(&body).into())
    }

    async fn follow(&self, uri: &str) -> Result<Bytes, FetchError> {
        let mut uri: Uri = uri.parse().map_err(|_| FetchError::Address(uri.to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let next = match self.ask(&uri).await? {
                Answered::Body(body) => return Ok(body),
                Answered::Elsewhere(next) => next,
            };
            let is_downgrade = uri.scheme_str() == Some("https") && next.scheme_str() != Some("https");
            if is_downgrade {
                return Err(FetchError::Redirect(next.to_string()));
            }
            uri = next;
        }
        Err(FetchError::Redirect(uri.to_string()))
    }

    async fn ask(&self, uri: &Uri) -> Result<Answered, FetchError> {
        let no_address = || FetchError::Address(uri.to_string());
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(no_address()),
        };
        let host = uri.host().ok_or_else(no_address)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.connect(&host, port).await?;
        let answer = if is_tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| no_address())?;
            let peer = stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], port)));
            let stream = self.tls.connect(name, stream).await.map_err(|error| FetchError::Connect(peer, error))?;
            exchange(uri, stream).await?
        } else {
            exchange(uri, stream).await?
        };
        read(uri, answer).await
    }

    /// Connects to an address of a name that is allowed. The name is looked up once: what was judged is what is used.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|source| FetchError::Name { host: host.to_owned(), source })?;
        let mut last = None;
        for address in found {
            if !self.allows_local && !target::is_allowed(address.ip()) {
                return Err(FetchError::Forbidden { host: host.to_owned(), address: address.ip() });
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(FetchError::Connect(address, error)),
            }
        }
        Err(last.unwrap_or_else(|| FetchError::Address(host.to_owned())))
    }
}

/// Sends one request on a connection of its own.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    uri: &Uri,
    stream: S,
) -> Result<(Response<Incoming>, tokio::task::JoinSet<()>), FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    // The driver lives as long as its answer is read.
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(async move {
        let _ = connection.await;
    });
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::Address(uri.to_string()))?;
    let answer = sender.send_request(request).await.map_err(FetchError::Http)?;
    Ok((answer, driver))
}

async fn read(
    uri: &Uri,
    (answer, _driver): (Response<Incoming>, tokio::task::JoinSet<()>),
) -> Result<Answered, FetchError> {
    let status = answer.status();
    if status.is_redirection() {
        let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        return elsewhere(uri, to).map(Answered::Elsewhere).ok_or_else(|| FetchError::Redirect(to.to_owned()));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    let mut body = answer.into_body();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(FetchError::Http)?.into_data() {
            if read.len() + data.len() > MAX_ANSWER {
                return Err(FetchError::TooLong);
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(Answered::Body(read.freeze()))
}

/// Where a redirect leads: a whole address, or a path of the same host.
fn elsewhere(from: &Uri, to: &str) -> Option<Uri> {
    let to: Uri = to.parse().ok()?;
    if to.scheme().is_some() && to.authority().is_some() {
        return Some(to);
    }
    let path = to.path_and_query().filter(|path| path.as_str().starts_with('/'))?;
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(path.clone());
    Uri::from_parts(parts).ok()
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("allows_local", &self.allows_local).finish_non_exhaustive()
    }
}
