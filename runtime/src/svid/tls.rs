//! TLS configurations that take the certificate and the roots in force whenever a handshake begins.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Svids;
use super::peer::Peer;
use super::verify::{Check, Peers, Refusal};
use crate::tls::{TlsError, provider};

/// Verifies peers by their SPIFFE ID, against the roots in force when the handshake happens.
///
/// As a verifier of servers it does not look at the server's name: which identities may answer is what [`Peers`] says.
pub struct PeerVerifier {
    svids: Svids,
    peers: Peers,
    /// Whether a client may come without a certificate.
    is_optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    /// Verifies that peers are these.
    #[must_use]
    pub fn new(svids: Svids, peers: Peers) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        PeerVerifier { svids, peers, is_optional: false, algorithms }
    }

    /// Lets clients in that show no certificate at all: who they are is then proved by something else. One that shows
    /// a certificate must still show a good one.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    /// Verifies a chain, leaf first, at `now`; `as_server` says what the peer is.
    ///
    /// # Errors
    ///
    /// Why the peer is refused.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime, as_server: bool) -> Result<Peer, Refusal> {
        let unreadable = || Refusal::Unreadable { reason: "there is none".to_owned() };
        let (leaf, intermediates) = chain.split_first().ok_or_else(unreadable)?;
        self.verify_leaf(leaf, intermediates, now, as_server)
    }

    fn verify_leaf(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        as_server: bool,
    ) -> Result<Peer, Refusal> {
        let bundle = self.svids.bundle().ok_or(Refusal::NoBundle)?;
        let (peers, algorithms, seen) = (&self.peers, &self.algorithms, self.svids.seen());
        let check = Check { bundle: &bundle, seen, peers, algorithms, now, as_server };
        check.verify(leaf, intermediates)
    }
}

impl Svids {
    /// A configuration for accepting TLS 1.3 from `peers`, all of whom show a certificate. Sessions are not resumed.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn server_config(&self, peers: Peers, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = Arc::new(PeerVerifier::new(self.clone(), peers));
        let mut config = ServerConfig::builder_with_details(provider(), self.clock())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.resolver());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// As [`Svids::server_config`], but sessions can be resumed by what clients are given to keep. Only this configuration
    /// takes that back, so a session is never resumed under another one. What a client has shown is not verified again in
    /// a resumed handshake: whoever accepts holds the chain against the roots and the time of then
    /// ([`PeerVerifier::verify`]), and makes a new configuration when its own certificate is another.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn resuming_server_config(&self, peers: Peers, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::clone(&*self.server_config(peers, alpn)?);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Versions)?;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    /// A configuration for calling `peers` by TLS 1.3, showing our certificate. Any server name will do; none is sent.
    /// Sessions are not resumed. Who resumes them must use one configuration per set of peers, as a resumed session
    /// is not verified again.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn client_config(&self, peers: Peers, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = Arc::new(PeerVerifier::new(self.clone(), peers));
        let mut config = ClientConfig::builder_with_details(provider(), self.clock())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(self.resolver());
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// A configuration for calling a server that is known by its name and by `roots` of its own (the control plane),
    /// showing our certificate if we have one.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn named_client_config(&self, roots: RootCertStore, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let mut config = ClientConfig::builder_with_details(provider(), self.clock())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Versions)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(self.resolver());
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Presents whatever certificate is in force, and none once it has expired. For configurations of one's own.
    #[must_use]
    pub fn resolver(&self) -> Arc<Resolver> {
        Arc::new(Resolver { svids: self.clone() })
    }
}

/// Presents the certificate in force.
#[derive(Debug)]
pub struct Resolver {
    svids: Svids,
}

impl Resolver {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.svids.current().map(|svid| Arc::clone(&svid.certified))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.svids.current().is_some()
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verify_leaf(end_entity, intermediates, now, true);
        verified.map(|_| ServerCertVerified::assertion()).map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        // Who may come without a certificate is not asked for one that cannot be verified yet.
        !self.is_optional || self.svids.bundle().is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.is_optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verify_leaf(end_entity, intermediates, now, false);
        verified.map(|_| ClientCertVerified::assertion()).map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
