//! The messages between who asks for a certificate and the CA: `istio.v1.auth.IstioCertificateService`, and
//! `istio.v1.auth.IstioCAService` of 2017.

use std::collections::HashMap;

/// Path of today's method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Path of the method of 2017.
pub const HANDLE_CSR: &str = "/istio.v1.auth.IstioCAService/HandleCSR";
/// Path of our own method by which a holder of a certificate learns that it is to renew before its time.
pub const TRUST: &str = "/meshctl.ca.v1.Trust/Current";
/// Response metadata that names our trust domain and then its other names, between commas.
pub const TRUST_DOMAINS: &str = "x-mesh-trust-domains";
/// What a join token begins with, by which it is told from a service account's.
pub const JOIN_TOKEN: &str = "mesh-join-";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// For how long the certificate should hold, in seconds; 0 leaves it to the CA.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// What else is asked for.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Metadata>,
}

/// A `google.protobuf.Struct` of which only the keys matter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// Each value as it was encoded.
    #[prost(map = "string, bytes", tag = "1")]
    pub fields: HashMap<String, Vec<u8>>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, then intermediates, then the roots as the last element.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Asks what is in force at the CA.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrustRequest {}

/// What is in force at the CA.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TrustResponse {
    /// Version of the roots.
    #[prost(string, tag = "1")]
    pub bundle: String,
    /// The key that signs, in hexadecimal.
    #[prost(string, tag = "2")]
    pub issuer: String,
    /// The name of the trust domain in which certificates are issued; empty from a CA that does not say.
    #[prost(string, tag = "3")]
    pub domain: String,
}

/// `CsrRequest` of 2017.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CsrRequest {
    /// The certificate signing request, PEM.
    #[prost(bytes = "vec", tag = "1")]
    pub csr_pem: Vec<u8>,
    /// By which the caller proves itself, unless its TLS certificate does.
    #[prost(bytes = "vec", tag = "2")]
    pub node_agent_credential: Vec<u8>,
    /// What kind of credential it is.
    #[prost(string, tag = "3")]
    pub credential_type: String,
    /// For how long the certificate should hold; 0 leaves it to the CA.
    #[prost(int32, tag = "4")]
    pub requested_ttl_minutes: i32,
}

/// `CsrResponse` of 2017.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CsrResponse {
    /// Whether there is a certificate.
    #[prost(bool, tag = "1")]
    pub is_approved: bool,
    /// If not, why.
    #[prost(message, optional, tag = "2")]
    pub status: Option<RpcStatus>,
    /// PEM: the leaf, then intermediates.
    #[prost(bytes = "vec", tag = "3")]
    pub signed_cert_chain: Vec<u8>,
}

/// `google.rpc.Status` without details.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}
