//! Asks the CA for a certificate: one connection per request, as there is one in half a day.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::names::{CA, CA_TOKEN_FILE, PROXY_DIR, SYSTEM_NAMESPACE, ca_port};
use api::spiffe::TrustDomain;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Svids;
use super::wire::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, TRUST, TRUST_DOMAINS, TrustRequest, TrustResponse,
};
use crate::settings::{Env, SettingError};
use crate::tls::{self, TlsError};

/// How long one request may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the CA is asked for other roots, unless it is said.
const CHECK: Duration = Duration::from_secs(30);
/// Largest answer: a chain and a bundle of roots.
const LARGEST_ANSWER: usize = 1 << 20;

/// A PEM, or where it is. Files are read anew each time, as they are replaced while daemons run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text itself.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
}

type Dialing = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;
/// Opens a connection to `host:port`.
pub type Dial = Arc<dyn Fn(String) -> Dialing + Send + Sync>;

/// How the CA is reached, and what proves to it who asks.
#[derive(Clone)]
pub struct Authority {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// The roots that vouch for that certificate.
    pub roots: Pem,
    /// A service account's token, or a join token. Our SVID is shown too whenever there is one.
    pub token_file: Option<PathBuf>,
    /// How to connect; a sidecar's own connections bear a mark.
    pub dial: Dial,
}

/// Connects as everybody does.
#[must_use]
pub fn plain_dial() -> Dial {
    Arc::new(|address| Box::pin(async move { TcpStream::connect(address).await }))
}

/// Where the CA is, as a daemon's environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaSettings {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// The file with the token that is shown to it.
    pub token_file: PathBuf,
    /// How often it is asked for other roots by a process that is not connected to Pilot.
    pub check: Duration,
}

impl CaSettings {
    /// Reads `MESH_CA_ADDRESS`, `MESH_CA_SERVER_NAME`, `MESH_CA_TOKEN_FILE` and `MESH_CA_CHECK_SECONDS`.
    ///
    /// # Errors
    ///
    /// When one makes no sense.
    pub fn read(env: &Env) -> Result<Self, SettingError> {
        let default = format!("{CA}.{SYSTEM_NAMESPACE}.svc:{}", ca_port::CSR);
        let address = env.text_or("MESH_CA_ADDRESS", &default)?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let server_name = env.text_or("MESH_CA_SERVER_NAME", host.trim_matches(['[', ']']))?;
        let token_file = env.text_or("MESH_CA_TOKEN_FILE", &format!("{PROXY_DIR}/{CA_TOKEN_FILE}"))?.into();
        let check = env.seconds_or("MESH_CA_CHECK_SECONDS", CHECK)?.max(Duration::from_secs(1));
        Ok(CaSettings { address, server_name, token_file, check })
    }

    /// How it is reached.
    #[must_use]
    pub fn authority(&self, roots: Pem, dial: Dial) -> Authority {
        Authority {
            address: self.address.clone(),
            server_name: self.server_name.clone(),
            roots,
            token_file: Some(self.token_file.clone()),
            dial,
        }
    }
}

/// What the CA answered.
#[derive(Debug)]
pub struct Answer {
    /// Leaf first, without the roots.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots, PEM.
    pub roots: String,
    /// Our trust domain and its other names, if the CA says so.
    pub domains: Vec<TrustDomain>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file that is needed to ask cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The token has characters that cannot be sent.
    #[error("{} holds no token", path.display())]
    NoToken {
        /// Where it is.
        path: PathBuf,
    },
    /// The roots cannot be used.
    #[error("the roots that vouch for the CA cannot be used")]
    Roots(#[source] TlsError),
    /// The address or the server's name cannot be used.
    #[error("{address} cannot be the CA's address, or {server_name} its name")]
    Address {
        /// As given.
        address: String,
        /// As given.
        server_name: String,
    },
    /// It cannot be reached, or does not prove who it is.
    #[error("cannot connect to the CA at {address}")]
    Connect {
        /// Where it should be.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// It took too long.
    #[error("the CA at {address} has not answered within {TIMEOUT:?}")]
    Slow {
        /// Where it is.
        address: String,
    },
    /// It refuses.
    #[error("the CA refuses ({code:?}): {message}")]
    Refused {
        /// The gRPC code.
        code: tonic::Code,
        /// In its words.
        message: String,
    },
    /// Its answer makes no sense.
    #[error("the CA's answer cannot be used: {reason}")]
    Nonsense {
        /// Why not.
        reason: String,
    },
}

impl Authority {
    /// Asks for a certificate. `svids` is whom we show ourselves as, if it has anything to show.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn request(&self, svids: &Svids, request: CertificateRequest) -> Result<Answer, RequestError> {
        let asking = Box::pin(self.ask(svids, request));
        let slow = || RequestError::Slow { address: self.address.clone() };
        tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| slow())?
    }

    /// Asks which roots and which issuer are in force.
    ///
    /// # Errors
    ///
    /// Why there is no answer; [`tonic::Code::Unimplemented`] of a CA of another make.
    pub async fn trust(&self, svids: &Svids) -> Result<TrustResponse, RequestError> {
        let asking = Box::pin(async {
            let mut grpc = Grpc::new(self.connect(svids).await?).max_decoding_message_size(LARGEST_ANSWER);
            grpc.ready().await.map_err(|source| RequestError::Connect { address: self.address.clone(), source })?;
            let codec = ProstCodec::<TrustRequest, TrustResponse>::new();
            let path = http::uri::PathAndQuery::from_static(TRUST);
            let answer = grpc.unary(tonic::Request::new(TrustRequest {}), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
        });
        let slow = || RequestError::Slow { address: self.address.clone() };
        tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| slow())?
    }

    async fn ask(&self, svids: &Svids, request: CertificateRequest) -> Result<Answer, RequestError> {
        let token = self.token()?;
        let mut request = tonic::Request::new(request);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let mut grpc = Grpc::new(self.connect(svids).await?).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await.map_err(|source| RequestError::Connect { address: self.address.clone(), source })?;
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::new();
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE);
        let response = grpc.unary(request, path, codec).await.map_err(|status| refused(&status))?;
        let domains = response.metadata().get(TRUST_DOMAINS).and_then(|value| value.to_str().ok());
        let domains = domains.unwrap_or_default().split(',').filter_map(|name| name.trim().parse().ok()).collect();
        answer(response.into_inner(), domains)
    }

    async fn connect(&self, svids: &Svids) -> Result<Channel, RequestError> {
        let wrong = || RequestError::Address { address: self.address.clone(), server_name: self.server_name.clone() };
        let roots = tls::roots(&self.roots()?).map_err(RequestError::Roots)?;
        let config = svids.named_client_config(roots, &[b"h2"]).map_err(RequestError::Roots)?;
        let name = ServerName::try_from(self.server_name.clone()).map_err(|_| wrong())?;
        // TLS is in the connector, so that the certificate never leaves this process's memory in another form.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(|_| wrong())?;
        let (dial, address) = (Arc::clone(&self.dial), self.address.clone());
        let connector = tower::service_fn(move |_: http::Uri| {
            let connecting = connect_tls(dial(address.clone()), Arc::clone(&config), name.clone());
            async move { connecting.await.map(TokioIo::new) }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|source| RequestError::Connect { address: self.address.clone(), source })
    }

    fn roots(&self) -> Result<Vec<u8>, RequestError> {
        match &self.roots {
            Pem::Text(text) => Ok(text.clone().into_bytes()),
            Pem::File(path) => std::fs::read(path).map_err(|source| RequestError::File { path: path.clone(), source }),
        }
    }

    fn token(&self) -> Result<Option<MetadataValue<Ascii>>, RequestError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|source| RequestError::File { path: path.clone(), source })?;
        let value = format!("Bearer {}", text.trim()).parse::<MetadataValue<Ascii>>();
        let mut value = value.map_err(|_| RequestError::NoToken { path: path.clone() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// TLS on a connection that is being opened.
///
/// # Errors
///
/// When it cannot be opened, or the handshake fails.
pub async fn connect_tls(
    dialing: impl Future<Output = io::Result<TcpStream>>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = dialing.await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn refused(status: &tonic::Status) -> RequestError {
    RequestError::Refused { code: status.code(), message: status.message().to_owned() }
}

fn answer(response: CertificateResponse, domains: Vec<TrustDomain>) -> Result<Answer, RequestError> {
    let nonsense = |reason: &str| RequestError::Nonsense { reason: reason.to_owned() };
    let mut parts = response.cert_chain;
    let roots = parts.pop().filter(|_| !parts.is_empty());
    let roots = roots.ok_or_else(|| nonsense("it has no root beside the certificate"))?;
    let mut chain = Vec::new();
    for part in &parts {
        chain.extend(tls::certificates(part.as_bytes()).map_err(|error| nonsense(&error.to_string()))?);
    }
    Ok(Answer { chain, roots, domains })
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("address", &self.address).finish_non_exhaustive()
    }
}
