//! Asks every Pilot which roots proxies have acknowledged, showing the CA's own SVID.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::messages::Proxies;
use api::names::{CA, PILOT, SYSTEM_NAMESPACE};
use api::spiffe::{InvalidId, SpiffeId};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use runtime::certificate::Certificate;
use runtime::svid::client::connect_tls;
use runtime::svid::{Key, KeyKind, Svid, Svids, channel_with_clock};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::authority::{Authority, Refusal};
use crate::csr::{Csr, CsrError};
use crate::naming::Naming;

/// How long a Pilot may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer: a kilobyte and a half for each of very many proxies.
const LARGEST: usize = 256 << 20;
/// For how long the CA's own certificate holds, which is made for each question.
const LIFETIME: Duration = Duration::from_secs(60);

/// Why a Pilot gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It has no address yet.
    #[error("it has no address yet")]
    NoAddress,
    /// The CA cannot prove who it is.
    #[error("the CA cannot make a certificate for itself: {0}")]
    Own(String),
    /// It cannot be reached, or does not prove who it is.
    #[error("it cannot be reached")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("it breaks off")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("it does not answer within {ANSWER:?}")]
    Slow,
    /// It refuses.
    #[error("it answers {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// In its words.
        text: String,
    },
    /// The answer is something else.
    #[error("its answer cannot be read: {0}")]
    Nonsense(String),
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The API server does not say where they are.
    #[error("the pods of {app} cannot be listed")]
    List {
        /// Whose.
        app: &'static str,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is none, so nobody knows what proxies have.
    #[error("none is running, and only it knows what proxies have")]
    None,
}

/// The Pilots of this mesh.
#[derive(Clone)]
pub struct Pilots {
    /// The cluster.
    pub client: Client,
    /// With the root that vouches for Pilot too.
    pub certificate: Certificate,
    /// Their debug port.
    pub port: u16,
    /// In which name the CA shows itself: one that they know.
    pub naming: Naming,
}

impl Pilots {
    /// What every Pilot tells, by its pod.
    ///
    /// # Errors
    ///
    /// When it cannot be found out which there are, or there is none.
    pub async fn all(&self, authority: &Authority) -> Result<Vec<(String, Result<Proxies, AskError>)>, FindError> {
        self.ask(authority, Method::GET, "/v1/proxies").await
    }

    /// Has every Pilot, and every proxy that is connected to it, renew its identity.
    pub async fn ask_to_renew(&self, authority: &Authority) {
        // Who cannot be asked lags, and is told of as such.
        let _ = self.ask(authority, Method::POST, "/v1/renew").await;
    }

    /// Pods of a daemon of the control plane, running or not.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub async fn pods(&self, app: &'static str) -> Result<Vec<Pod>, FindError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let found = pods.list(&ListParams::default().labels(&format!("app={app}"))).await;
        let found = found.map_err(|error| FindError::List { app, source: Box::new(error) })?;
        Ok(found.items)
    }

    async fn ask(
        &self,
        authority: &Authority,
        method: Method,
        path: &'static str,
    ) -> Result<Vec<(String, Result<Proxies, AskError>)>, FindError> {
        let mut pods = self.pods(PILOT).await?;
        pods.retain(runs);
        if pods.is_empty() {
            return Err(FindError::None);
        }
        let own = own_svid(authority, &self.naming);
        let asked = pods.into_iter().map(|pod| {
            let (own, method) = (&own, method.clone());
            async move {
                let name = pod.metadata.name.unwrap_or_default();
                let address = pod.status.and_then(|status| status.pod_ip);
                let answer = match own {
                    Ok(own) => in_time(self.one(own, address.as_deref(), method, path)).await,
                    Err(error) => Err(AskError::Own(runtime::exit::chain(error))),
                };
                (name, answer)
            }
        });
        Ok(futures_util::future::join_all(asked).await)
    }

    async fn one(&self, own: &Svids, ip: Option<&str>, method: Method, path: &str) -> Result<Proxies, AskError> {
        let ip: std::net::IpAddr = ip.and_then(|ip| ip.parse().ok()).ok_or(AskError::NoAddress)?;
        let broken = |error: runtime::tls::TlsError| AskError::Own(runtime::exit::chain(&error));
        let roots = runtime::tls::roots(self.certificate.root_pem().as_bytes()).map_err(broken)?;
        let config = own.named_client_config(roots, &[b"http/1.1"]).map_err(broken)?;
        let server = ServerName::try_from(format!("{PILOT}.{SYSTEM_NAMESPACE}.svc"));
        let server = server.map_err(|error| AskError::Nonsense(error.to_string()))?;
        let stream = connect_tls(TcpStream::connect((ip, self.port)), Arc::clone(&config), server).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream.map_err(AskError::Connect)?)).await?;
        let request = Request::builder().method(method).uri(path).header(header::HOST, PILOT);
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| AskError::Nonsense(error.to_string()))?;
        let answering = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| AskError::Nonsense(error.to_string()))?.to_bytes();
            if status != StatusCode::OK {
                let text = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
                return Err(AskError::Refused { status, text });
            }
            serde_json::from_slice(&body).map_err(|error| AskError::Nonsense(error.to_string()))
        };
        // The connection is driven here, and ends with the answer.
        tokio::select! {
            answer = answering => answer,
            Err(error) = connection => Err(error.into()),
        }
    }
}

/// Whether a pod runs; whether all is well in it, it is asked itself.
pub(super) fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

async fn in_time(asking: impl Future<Output = Result<Proxies, AskError>>) -> Result<Proxies, AskError> {
    tokio::time::timeout(ANSWER, asking).await.map_err(|_| AskError::Slow)?
}

/// Why the CA has no certificate for itself.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Its identity is none.
    #[error("its identity cannot be written")]
    Id(#[from] InvalidId),
    /// No key, or no request.
    #[error("no key can be made")]
    Key(#[from] rcgen::Error),
    /// Its own request cannot be read.
    #[error("its own request cannot be read")]
    Csr(#[from] CsrError),
    /// It may not sign now.
    #[error("it cannot sign")]
    Refused(#[from] Refusal),
    /// What it signed is none of its own.
    #[error("what it has signed cannot be used")]
    Svid(#[from] runtime::svid::SvidError),
    /// What it signed cannot be read.
    #[error("what it has signed cannot be read")]
    Tls(#[from] runtime::tls::TlsError),
}

/// The CA as others know it: `…/ns/mesh-system/sa/mesh-ca`, for a minute.
///
/// # Errors
///
/// When it cannot sign.
pub fn own_svid(authority: &Authority, naming: &Naming) -> Result<Svids, OwnError> {
    let id = SpiffeId::of_account(naming.domain(authority.policy()), SYSTEM_NAMESPACE, CA)?;
    let key = Key::generate(KeyKind::P256)?;
    let csr = Csr::from_pem(key.request(None)?.as_bytes())?;
    let issued = authority.issue(&id, &csr.key, Some(LIFETIME.min(authority.policy().longest)))?;
    let mut chain = runtime::tls::certificates(issued.leaf.as_bytes())?;
    for pem in authority.intermediates() {
        chain.extend(runtime::tls::certificates(pem.as_bytes())?);
    }
    let (publisher, svids) = channel_with_clock(Arc::clone(authority.clock()));
    publisher.publish(Svid::new(chain, key)?, authority.bundle().clone());
    Ok(svids)
}

impl std::fmt::Debug for Pilots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pilots").field("port", &self.port).finish_non_exhaustive()
    }
}
