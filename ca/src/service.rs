//! The gRPC services, today's and that of 2017: who asks → CSR → authority → SVID.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use runtime::svid::report::stamp;
use runtime::svid::wire::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, CsrRequest, CsrResponse, HANDLE_CSR, TRUST,
    TRUST_DOMAINS, TrustRequest, TrustResponse,
};
use runtime::token::bearer;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Extensions, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::authority::{Authority, Issued, Refusal};
use crate::caller::{Caller, CallerError, Callers, Proof};
use crate::csr::{Csr, CsrError};
use crate::holders::kept::Holders;
use crate::holders::{Holder, Record, seconds};
use crate::join::JoinError;
use crate::metrics::Metrics;
use crate::naming::Naming;

/// Largest message: a request, and a token in the message of 2017.
const LARGEST_MESSAGE: usize = 64 * 1024;
/// What a node agent calls the token of a service account in the message of 2017.
const TOKEN_CREDENTIALS: [&str; 3] = ["", "k8s", "token"];
/// Metadata by which one asks for somebody else's certificate.
const IMPERSONATION: &str = "ImpersonatedIdentity";

/// The services. Clones share everything.
#[derive(Clone)]
pub struct Issuing {
    /// Who signs.
    pub authority: Arc<ArcSwap<Authority>>,
    /// Who may ask.
    pub callers: Callers,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who holds what.
    pub holders: Holders,
    /// In which name.
    pub naming: Naming,
    /// Requests that may still be begun.
    pub permits: Arc<Semaphore>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Nobody knows who asks.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The signing request cannot be read.
    #[error("the signing request cannot be used")]
    Csr(#[from] CsrError),
    /// It asks for somebody else's certificate.
    #[error("{asked} is not the caller's identity; the caller is {caller}")]
    NotYours {
        /// Whose certificate is asked for.
        asked: String,
        /// Who asks.
        caller: String,
    },
    /// A lifetime that is none.
    #[error("a lifetime of {0} seconds is none")]
    Lifetime(i64),
    /// The authority does not sign.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl IssueError {
    fn code(&self) -> Code {
        match self {
            IssueError::Caller(error) if error.is_passing() => Code::Unavailable,
            IssueError::Caller(CallerError::TwoIdentities { .. }) | IssueError::NotYours { .. } => {
                Code::PermissionDenied
            }
            IssueError::Caller(_) => Code::Unauthenticated,
            IssueError::Csr(_) | IssueError::Lifetime(_) | IssueError::Refused(Refusal::TooLong { .. }) => {
                Code::InvalidArgument
            }
            IssueError::Refused(Refusal::IssuerNotValid { .. }) => Code::FailedPrecondition,
            IssueError::Refused(_) => Code::Internal,
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            IssueError::Caller(error) => error.code(),
            IssueError::Csr(_) => "csr",
            IssueError::NotYours { .. } => "not_yours",
            IssueError::Lifetime(_) | IssueError::Refused(Refusal::TooLong { .. }) => "lifetime",
            IssueError::Refused(_) => "authority",
        }
    }
}

/// What is asked for, whichever the wire form.
struct Asked<'a> {
    csr: &'a [u8],
    token: Option<&'a str>,
    seconds: i64,
    /// Whether the identity in the request must be the caller's, as in 2017; else what it says does not matter.
    is_strict: bool,
}

impl Issuing {
    async fn create_certificate(
        self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        if message.metadata.as_ref().is_some_and(|metadata| metadata.fields.contains_key(IMPERSONATION)) {
            self.metrics.refused("not_yours", Duration::ZERO);
            return Err(Status::permission_denied("nobody gets a certificate for somebody else here"));
        }
        let asked = Asked {
            csr: message.csr.as_bytes(),
            token: authorization(&metadata),
            seconds: message.validity_duration,
            is_strict: false,
        };
        let (issued, authority) = self.answer(&asked, &extensions).await?;
        let mut chain = vec![issued.leaf];
        chain.extend_from_slice(authority.intermediates());
        chain.push(authority.roots().to_owned());
        let mut response = Response::new(CertificateResponse { cert_chain: chain });
        let policy = authority.policy();
        let names: Vec<&str> = std::iter::once(&policy.domain).chain(&policy.aliases).map(|d| d.as_str()).collect();
        if let Ok(names) = names.join(",").parse() {
            response.metadata_mut().insert(TRUST_DOMAINS, names);
        }
        Ok(response)
    }

    async fn handle_csr(self, request: Request<CsrRequest>) -> Result<Response<CsrResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let credential = std::str::from_utf8(&message.node_agent_credential).map(str::trim).unwrap_or_default();
        if !credential.is_empty() && !TOKEN_CREDENTIALS.contains(&message.credential_type.as_str()) {
            self.metrics.refused("no_proof", Duration::ZERO);
            let text = "this kind of credential is not known here: send a service-account or join token as `k8s`";
            return Err(Status::unauthenticated(text));
        }
        let asked = Asked {
            csr: &message.csr_pem,
            token: Some(credential).filter(|token| !token.is_empty()).or_else(|| authorization(&metadata)),
            seconds: i64::from(message.requested_ttl_minutes).saturating_mul(60),
            is_strict: true,
        };
        let (issued, authority) = self.answer(&asked, &extensions).await?;
        let mut chain = issued.leaf;
        authority.intermediates().iter().for_each(|pem| chain.push_str(pem));
        Ok(Response::new(CsrResponse { is_approved: true, status: None, signed_cert_chain: chain.into_bytes() }))
    }

    /// Issues, counts and writes it down.
    async fn answer(&self, asked: &Asked<'_>, extensions: &Extensions) -> Result<(Issued, Arc<Authority>), Status> {
        let began = Instant::now();
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.refused("busy", began.elapsed());
            let text = "as many requests as MESH_CA_MAX_REQUESTS allows are under way: ask again in a moment";
            return Err(Status::resource_exhausted(text));
        };
        let authority = self.authority.load_full();
        let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let peer = info.and_then(|info| info.get_ref().remote_addr());
        let certificates = info.and_then(TlsConnectInfo::peer_certs);
        let certificates = certificates.as_ref().map(|chain| chain.as_slice());
        match self.issue(&authority, asked, certificates).await {
            Ok((caller, csr, issued)) => {
                self.write_down(&authority, &caller, &issued).await;
                tracing::info!(
                    target: "audit",
                    id = %caller.id,
                    proof = caller.proof.name(),
                    by = caller.proof.detail(),
                    serial = issued.serial,
                    not_after = stamp(issued.not_after),
                    key = csr.key.kind(),
                    asked = csr.asked.as_deref().filter(|asked| *asked != caller.id.as_str()),
                    peer = peer.map(tracing::field::display),
                    "a certificate was issued"
                );
                self.metrics.issued(caller.proof.name(), began.elapsed());
                Ok((issued, authority))
            }
            Err(error) => {
                let text = runtime::exit::chain(&error);
                let peer = peer.map(tracing::field::display);
                tracing::info!(target: "audit", reason = error.reason(), text, peer, "a request was refused");
                self.metrics.refused(error.reason(), began.elapsed());
                Err(Status::new(error.code(), text))
            }
        }
    }

    /// Writes down who holds it now, before it is handed out.
    async fn write_down(&self, authority: &Authority, caller: &Caller, issued: &Issued) {
        let holder = caller.holder(&issued.serial);
        let id = match holder {
            // Of a pod its name says enough, unless the trust domain has several.
            Holder::Pod(_) if authority.policy().aliases.is_empty() => "-".to_owned(),
            Holder::Pod(_) => caller.id.trust_domain().to_string(),
            _ => caller.id.to_string(),
        };
        let record = Record {
            issuer: authority.issuer_key().to_owned(),
            bundle: authority.bundle().version(),
            ends: seconds(issued.not_after),
            id,
        };
        self.holders.record(holder, record, caller.shown.as_deref()).await;
    }

    async fn issue(
        &self,
        authority: &Authority,
        asked: &Asked<'_>,
        certificates: Option<&[rustls_pki_types::CertificateDer<'static>]>,
    ) -> Result<(Caller, Csr, Issued), IssueError> {
        let lifetime = match asked.seconds {
            0 => None,
            seconds => Some(Duration::from_secs(u64::try_from(seconds).map_err(|_| IssueError::Lifetime(seconds))?)),
        };
        // Reading is cheaper than asking the API server, and says more to who sends garbage.
        let csr = Csr::from_pem(asked.csr)?;
        let caller = self.callers.identify(authority, asked.token, certificates).await?;
        if let Some(uri) = csr.asked.as_ref().filter(|uri| asked.is_strict && *uri != caller.id.as_str()) {
            return Err(IssueError::NotYours { asked: uri.clone(), caller: caller.id.to_string() });
        }
        let issued = authority.issue(&caller.id, &csr.key, lifetime)?;
        if let Proof::Join(good) = &caller.proof {
            // Only now, so that a CA that dies before does not use it up; and nothing is handed out if it was used.
            let used = self.callers.joins().use_up(good).await;
            used.map_err(|error: JoinError| IssueError::Caller(error.into()))?;
        }
        Ok((caller, csr, issued))
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    bearer(metadata.get("authorization")?.to_str().ok()?)
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Issuing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let issuing = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                CREATE_CERTIFICATE => {
                    let codec = ProstCodec::<CertificateResponse, CertificateRequest>::new();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_MESSAGE);
                    grpc.unary(CreateCertificate(issuing), request).await
                }
                HANDLE_CSR => {
                    let codec = ProstCodec::<CsrResponse, CsrRequest>::new();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_MESSAGE);
                    grpc.unary(HandleCsr(issuing), request).await
                }
                TRUST => {
                    let codec = ProstCodec::<TrustResponse, TrustRequest>::new();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_MESSAGE);
                    grpc.unary(Trust(issuing), request).await
                }
                path => Status::unimplemented(format!("there is no method {path} here")).into_http(),
            })
        })
    }
}

/// Today's method.
struct CreateCertificate(Issuing);

impl UnaryService<CertificateRequest> for CreateCertificate {
    type Response = CertificateResponse;
    type Future = Answer<Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        Box::pin(self.0.clone().create_certificate(request))
    }
}

/// The method of 2017.
struct HandleCsr(Issuing);

impl UnaryService<CsrRequest> for HandleCsr {
    type Response = CsrResponse;
    type Future = Answer<Result<Response<CsrResponse>, Status>>;

    fn call(&mut self, request: Request<CsrRequest>) -> Self::Future {
        Box::pin(self.0.clone().handle_csr(request))
    }
}

/// Which roots and which issuer are in force: no secret, so nobody has to prove who asks.
struct Trust(Issuing);

impl UnaryService<TrustRequest> for Trust {
    type Response = TrustResponse;
    type Future = Answer<Result<Response<TrustResponse>, Status>>;

    fn call(&mut self, _: Request<TrustRequest>) -> Self::Future {
        let authority = self.0.authority.load();
        let (bundle, issuer) = (authority.bundle().version(), authority.issuer_key().to_owned());
        let domain = self.0.naming.domain(authority.policy()).to_string();
        Box::pin(std::future::ready(Ok(Response::new(TrustResponse { bundle, issuer, domain }))))
    }
}
