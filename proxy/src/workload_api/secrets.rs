//! Envoy's secret discovery service: the certificate as `default`, the roots of our trust domain as `ROOTCA`, in PEM.
//!
//! Streams by the state of the world and by delta differ in what they remember; both give a secret when it is asked for
//! and there, and again whenever it has changed.

mod conversation;
mod delta;
mod world;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;
use runtime::svid::{Bundle, Svid};
use tonic::{Request, Response, Status, Streaming};

use self::conversation::{Conversation as _, converse};
use self::delta::Delta;
use self::world::World;
use super::following::{Answers, Following, Given};
use super::service::Shared;
use super::wire::X509SvidRequest;

/// Name of the certificate with its key.
pub const CERTIFICATE: &str = "default";
/// Name of the roots.
pub const ROOTS: &str = "ROOTCA";

const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// What audit and metrics call it.
const API: &str = "sds";
/// Most names on one stream, and the longest.
const NAMES: (usize, usize) = (64, 256);

/// The service.
pub(super) struct Secrets(pub(super) Arc<Shared>);

impl Secrets {
    fn following<T>(&self, request: &Request<T>) -> Result<Following, Status> {
        self.0.following(request.extensions(), API)
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type StreamSecretsStream = Answers<DiscoveryResponse>;
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let following = self.following(&request)?;
        Ok(Response::new(converse(request.into_inner(), following, World::default())))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let following = self.following(&request)?;
        Ok(Response::new(converse(request.into_inner(), following, Delta::default())))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let following = self.following(&request)?;
        let request = request.into_inner();
        check(&request.type_url, &request.resource_names)?;
        let mut given = Vec::new();
        for name in &request.resource_names {
            if !is_known(name) {
                return Err(Status::not_found(unknown(name)));
            }
            given.push(secret(name, &following).ok_or_else(|| {
                Status::unavailable(format!("there is no {name} yet: the certificate authority has not answered"))
            })?);
        }
        given.iter().for_each(|secret| following.record(secret.key_of.as_deref()));
        Ok(Response::new(DiscoveryResponse {
            version_info: versions(&given),
            resources: given.into_iter().map(|secret| secret.answer).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: "1".to_owned(),
            ..DiscoveryResponse::default()
        }))
    }
}

/// A secret by its name, if it is there: never a certificate that has expired.
fn secret(name: &str, following: &Following) -> Option<Given<Any>> {
    let (version, kind, key_of) = match name {
        CERTIFICATE => {
            let (svid, _) = following.svid()?;
            (svid.serial.clone(), Type::TlsCertificate(certificate(&svid)), Some(svid))
        }
        ROOTS => {
            let bundle = following.bundle()?;
            (bundle.version(), Type::ValidationContext(validation(&bundle)), None)
        }
        _ => return None,
    };
    let secret = Secret { name: name.to_owned(), r#type: Some(kind) };
    let answer = Any { type_url: TYPE_URL.to_owned(), value: secret.encode_to_vec() };
    Some(Given { version, answer, key_of })
}

fn certificate(svid: &Svid) -> TlsCertificate {
    let chain: String = svid.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
    TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(pem("PRIVATE KEY", svid.key().pkcs8().secret_pkcs8_der()))),
        ..TlsCertificate::default()
    }
}

/// The roots of our own trust domain alone: a list of roots does not say which domain each may vouch for, so those of
/// others could vouch for ours.
fn validation(bundle: &Bundle) -> CertificateValidationContext {
    let roots: String = bundle.own_roots().iter().map(|root| pem("CERTIFICATE", root)).collect();
    CertificateValidationContext { trusted_ca: Some(inline(roots)), ..CertificateValidationContext::default() }
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineString(text)), ..DataSource::default() }
}

fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn is_known(name: &str) -> bool {
    [CERTIFICATE, ROOTS].contains(&name)
}

fn unknown(name: &str) -> String {
    format!("there is no secret {name:?} here: there are {CERTIFICATE} and {ROOTS}")
}

fn versions(given: &[Given<Any>]) -> String {
    given.iter().map(|secret| secret.version.as_str()).collect::<Vec<_>>().join(" ")
}

/// Refuses what is no question for secrets.
fn check(type_url: &str, names: &[String]) -> Result<(), Status> {
    if !type_url.is_empty() && type_url != TYPE_URL {
        return Err(Status::invalid_argument(format!("{type_url:?} is not what is given here: {TYPE_URL}")));
    }
    let (most, longest) = NAMES;
    if names.len() > most || names.iter().any(|name| name.len() > longest) {
        let text = format!("at most {most} names of {longest} bytes may be asked for on one stream");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

/// For the fuzzer: the first byte says which kind of request the rest is; it is asked twice of one stream.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            if let Ok(request) = DiscoveryRequest::decode(body) {
                let mut stream = World::default();
                let _ = (stream.asked(request.clone()), stream.asked(request));
            }
        }
        1 => {
            if let Ok(request) = DeltaDiscoveryRequest::decode(body) {
                let mut stream = Delta::default();
                let _ = (stream.asked(request.clone()), stream.asked(request));
            }
        }
        _ => drop(X509SvidRequest::decode(body)),
    }
}
