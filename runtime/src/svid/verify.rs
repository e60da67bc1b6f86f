//! Whether a peer's certificate is an SVID that may be spoken to, and if not, why not, in one word.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::spiffe::{InvalidId, SpiffeId};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Bundle;
use super::peer::Peer;
use super::seen::{self, Seen};

/// Longest chain that is looked at: a leaf and what an intermediate or two may need.
const MOST_INTERMEDIATES: usize = 8;
/// Largest certificate that is looked at.
const LARGEST: usize = 16 * 1024;

/// Whom we speak to.
#[derive(Debug, Clone)]
pub enum Peers {
    /// Everybody of our own trust domain, under any of its names.
    Members,
    /// Those too that belong to a trust domain with which ours is federated.
    Federated,
    /// These and nobody else. None, if it is empty.
    These(Arc<[SpiffeId]>),
}

impl Peers {
    /// These and nobody else.
    #[must_use]
    pub fn these(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        Peers::These(ids.into_iter().collect())
    }
}

/// Why a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing yet to verify it with.
    #[error("this process has no trust bundle yet")]
    NoBundle,
    /// It cannot be read, or is unreasonably large.
    #[error("the certificate cannot be read: {reason}")]
    Unreadable {
        /// Why not.
        reason: String,
    },
    /// A name in it has a NUL byte, which other software takes for its end.
    #[error("a name in the certificate holds a NUL byte")]
    NulInName,
    /// It names no URI.
    #[error("the certificate names no SPIFFE ID")]
    NoUri,
    /// It names several.
    #[error("the certificate names {count} URIs; an SVID names one")]
    SeveralUris {
        /// How many.
        count: usize,
    },
    /// Its URI is no SPIFFE ID of a workload.
    #[error("the URI in the certificate is no SPIFFE ID of a workload: {reason}")]
    NotSpiffe {
        /// Why not.
        reason: String,
    },
    /// It may sign others, which a workload's certificate may not.
    #[error("the certificate is one of an authority, not of a workload")]
    Authority,
    /// It belongs to a trust domain that we do not know or accept.
    #[error("{id} is of another trust domain")]
    TrustDomain {
        /// Whose certificate it is.
        id: SpiffeId,
    },
    /// It is not one of those that are expected.
    #[error("{id} is not one of the identities expected here")]
    NotExpected {
        /// Whose certificate it is.
        id: SpiffeId,
    },
    /// It has expired.
    #[error("the certificate has expired {ago:?} ago")]
    Expired {
        /// When.
        ago: Duration,
    },
    /// It does not hold yet.
    #[error("the certificate does not hold before {ahead:?} from now")]
    NotYetValid {
        /// When it does.
        ahead: Duration,
    },
    /// No root that we know vouches for it.
    #[error("no known root vouches for the certificate")]
    UnknownRoot,
    /// It is not for this use: a client's as a server's, or the other way round.
    #[error("the certificate is not for {}", if *.as_server { "servers" } else { "clients" })]
    WrongPurpose {
        /// What it was used for.
        as_server: bool,
    },
    /// An issuer in the chain may not sign this.
    #[error("an issuer in the chain may not sign this certificate: {reason}")]
    Issuer {
        /// Why not.
        reason: String,
    },
}

impl Refusal {
    /// One word for logs and metrics. There are no others than these.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::NoBundle => "no_bundle",
            Refusal::Unreadable { .. } => "unreadable",
            Refusal::NulInName => "nul_in_name",
            Refusal::NoUri => "no_uri",
            Refusal::SeveralUris { .. } => "several_uris",
            Refusal::NotSpiffe { .. } => "not_spiffe",
            Refusal::Authority => "authority",
            Refusal::TrustDomain { .. } => "trust_domain",
            Refusal::NotExpected { .. } => "not_expected",
            Refusal::Expired { .. } => "expired",
            Refusal::NotYetValid { .. } => "not_yet_valid",
            Refusal::UnknownRoot => "unknown_root",
            Refusal::WrongPurpose { .. } => "wrong_purpose",
            Refusal::Issuer { .. } => "issuer",
        }
    }

    /// The refusal behind an error of a handshake, if it failed because of one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Refusal> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Refusal::of_tls(inner)
    }

    /// The same, from the TLS library's own error.
    #[must_use]
    pub fn of_tls(error: &rustls::Error) -> Option<&Refusal> {
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(other))) = error else {
            return None;
        };
        let other: &(dyn Error + 'static) = other.as_ref();
        other.downcast_ref()
    }

    pub(super) fn into_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// What a leaf says; nothing of it is proved by reading it.
pub struct Leaf {
    /// Whose it is.
    pub peer: Peer,
    /// When it begins to hold.
    pub not_before: SystemTime,
    /// Identifier of the key that signed it, in hexadecimal; empty when it does not say.
    pub issuer: String,
}

impl Leaf {
    /// Reads a leaf by SPIFFE's rules: one URI, which is the identity of a workload; not an authority's certificate.
    ///
    /// # Errors
    ///
    /// Which rule it breaks.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Refusal> {
        let unreadable = |reason: &str| Refusal::Unreadable { reason: reason.to_owned() };
        if der.len() > LARGEST {
            return Err(unreadable("it is larger than 16 KiB"));
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(unreadable("bytes follow it"));
        }
        let id = spiffe_id(&certificate)?;
        not_an_authority(&certificate)?;
        let at = |time: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
        let validity = certificate.validity();
        let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let not_after = at(validity.not_after.timestamp());
        let issuer = issuer_key(&certificate);
        Ok(Leaf { peer: Peer { id, not_after, serial }, not_before: at(validity.not_before.timestamp()), issuer })
    }
}

/// The authority's key identifier.
fn issuer_key(certificate: &X509Certificate<'_>) -> String {
    let found = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    });
    found.map(|key| key.0.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refusal> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| Refusal::Unreadable { reason: error.to_string() })?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = Vec::new();
    for name in names {
        let text = match name {
            GeneralName::URI(uri) => {
                uris.push(*uri);
                uri.as_bytes()
            }
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => name.as_bytes(),
            GeneralName::OtherName(_, bytes) | GeneralName::Invalid(_, bytes) => bytes,
            _ => &[],
        };
        // Binary names have NULs by right; those that are text have none.
        if text.contains(&0) {
            return Err(Refusal::NulInName);
        }
        if matches!(name, GeneralName::Invalid(..)) {
            return Err(Refusal::Unreadable { reason: "a name in it is malformed".to_owned() });
        }
    }
    let uri = match uris.as_slice() {
        [] => return Err(Refusal::NoUri),
        [uri] => *uri,
        several => return Err(Refusal::SeveralUris { count: several.len() }),
    };
    let id: SpiffeId = uri.parse().map_err(|error: InvalidId| Refusal::NotSpiffe { reason: error.to_string() })?;
    if id.path().is_empty() {
        return Err(Refusal::NotSpiffe { reason: format!("{id} is a trust domain as a whole") });
    }
    Ok(id)
}

fn not_an_authority(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    let unreadable = |error: x509_parser::error::X509Error| Refusal::Unreadable { reason: error.to_string() };
    let is_ca = certificate.basic_constraints().map_err(unreadable)?.is_some_and(|basic| basic.value.ca);
    let usage = certificate.key_usage().map_err(unreadable)?;
    let may_sign = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if is_ca || may_sign { Err(Refusal::Authority) } else { Ok(()) }
}

/// The peer of a connection whose handshake is done. What it says was verified then.
#[must_use]
pub fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    Leaf::read(certificates?.first()?).ok().map(|leaf| leaf.peer)
}

/// What a peer's chain is held against.
pub(super) struct Check<'a> {
    pub(super) bundle: &'a Arc<Bundle>,
    /// Chains that need not be verified again.
    pub(super) seen: &'a Seen,
    pub(super) peers: &'a Peers,
    pub(super) algorithms: &'a WebPkiSupportedAlgorithms,
    pub(super) now: UnixTime,
    /// What the peer is.
    pub(super) as_server: bool,
}

impl Check<'_> {
    /// Verifies a chain against the roots of the leaf's own trust domain.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Peer, Refusal> {
        let key = seen::key(self.as_server, end_entity, intermediates);
        let known = self.seen.find(self.bundle, &key, self.now);
        let is_known = known.is_some();
        let peer = known.map_or_else(|| Leaf::read(end_entity).map(|leaf| leaf.peer), Ok)?;
        let id = &peer.id;
        let is_wanted = self.bundle.is_own(id) || !matches!(self.peers, Peers::Members);
        let anchors = self.bundle.anchors(id).filter(|_| is_wanted);
        let anchors = anchors.ok_or_else(|| Refusal::TrustDomain { id: id.clone() })?;
        if intermediates.len() > MOST_INTERMEDIATES || intermediates.iter().any(|der| der.len() > LARGEST) {
            return Err(Refusal::Unreadable { reason: "its chain is too long".to_owned() });
        }
        if !is_known {
            self.verify_path(end_entity, intermediates, anchors).map_err(|error| of_path(&error, self.as_server))?;
            self.seen.put(self.bundle, key, &peer, self.now);
        }
        match self.peers {
            Peers::These(ids) if !ids.iter().any(|expected| self.bundle.is_same(expected, id)) => {
                Err(Refusal::NotExpected { id: id.clone() })
            }
            _ => Ok(peer),
        }
    }

    fn verify_path(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        anchors: &RootCertStore,
    ) -> Result<(), webpki::Error> {
        let usage = if self.as_server { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
        let certificate = EndEntityCert::try_from(end_entity)?;
        let (algorithms, roots) = (self.algorithms.all, &anchors.roots);
        certificate.verify_for_usage(algorithms, roots, intermediates, self.now, usage, None, None).map(drop)
    }
}

fn of_path(error: &webpki::Error, as_server: bool) -> Refusal {
    use webpki::Error as E;
    let between = |from: &UnixTime, to: &UnixTime| Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()));
    match error {
        E::CertExpired { time, not_after } => Refusal::Expired { ago: between(not_after, time) },
        E::CertNotValidYet { time, not_before } => Refusal::NotYetValid { ahead: between(time, not_before) },
        // A signature that is wrong is one by another authority of the same name, as far as anybody can tell.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refusal::UnknownRoot,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Refusal::WrongPurpose { as_server },
        E::CaUsedAsEndEntity => Refusal::Authority,
        E::NameConstraintViolation | E::PathLenConstraintViolated | E::EndEntityUsedAsCa => {
            Refusal::Issuer { reason: error.to_string() }
        }
        other => Refusal::Unreadable { reason: other.to_string() },
    }
}
