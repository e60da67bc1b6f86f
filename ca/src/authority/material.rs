//! What an authority is made of, as PEM: looked at as a whole before anything is signed with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::messages::Rotation;
use api::spiffe::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use runtime::svid::report::stamp;
use runtime::svid::{Bundle, BundleError, Clock, PeerVerifier, Peers, Refusal as PeerRefusal};
use runtime::tls::{self, TlsError};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Origin, Plan, Policy, hex};
use crate::csr::Csr;

/// For how long a self-made root holds.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How far back it holds.
pub(crate) const ROOT_SKEW: Duration = Duration::from_secs(86_400);

/// An authority's certificate and key with what is above it, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Certificates between it and the root; may begin with its own, and may be empty.
    pub chain: String,
    /// The roots that everybody should trust.
    pub roots: String,
    /// Where it comes from.
    pub origin: Origin,
    /// How far a rotation of the root is.
    pub rotation: Rotation,
    /// Whether it goes on.
    pub plan: Plan,
}

/// Why an authority cannot be made of it.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// One of its certificates cannot be read.
    #[error("{what} cannot be read")]
    Certificate {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: TlsError,
    },
    /// One of its certificates is malformed.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The key cannot be read.
    #[error("ca-key.pem cannot be read, or is of a kind that is not known here")]
    Key(#[source] rcgen::Error),
    /// It belongs to another certificate.
    #[error("ca-key.pem is not the key of ca-cert.pem")]
    OtherKey,
    /// The certificate may not sign.
    #[error("ca-cert.pem is not the certificate of an authority (basicConstraints CA and keyUsage keyCertSign)")]
    NoAuthority,
    /// It does not hold now.
    #[error("{what} holds from {from} to {to}, and not now")]
    NotNow {
        /// Which.
        what: &'static str,
        /// When it begins to hold.
        from: String,
        /// When it ends.
        to: String,
    },
    /// The roots cannot be used.
    #[error("root-cert.pem cannot be used")]
    Roots(#[source] BundleError),
    /// Nobody would accept what it signs.
    #[error("peers would refuse what it signs for {id}, as they see it through cert-chain.pem and root-cert.pem")]
    Refused {
        /// For whom.
        id: SpiffeId,
        /// Why.
        #[source]
        reason: PeerRefusal,
    },
    /// Making it failed.
    #[error("a root cannot be made")]
    Make(#[source] rcgen::Error),
}

impl Material {
    /// Makes a root with a P-256 key.
    ///
    /// # Errors
    ///
    /// When the cryptographic library refuses.
    pub fn make_root(policy: &Policy, now: SystemTime) -> Result<Self, MaterialError> {
        let mut serial = [0u8; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| MaterialError::Make(rcgen::Error::RingUnspecified))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, policy.domain.as_str());
        // Roots are told apart by their names, also where two meshes have the same trust domain.
        params.distinguished_name.push(DnType::CommonName, format!("mesh root {}", hex(&serial[..4])));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = (now - ROOT_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let key = KeyPair::generate().map_err(MaterialError::Make)?;
        let key_pem = key.serialize_pem();
        let root = CertifiedIssuer::self_signed(params, key).map_err(MaterialError::Make)?;
        Ok(Material {
            certificate: root.pem(),
            key: key_pem,
            chain: String::new(),
            roots: root.pem(),
            origin: Origin::SelfMade,
            rotation: Rotation::None,
            plan: Plan::Idle,
        })
    }

    /// Makes an authority of it, when everything in it fits together and peers will accept what it signs.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub fn authority(&self, policy: Policy, clock: Arc<dyn Clock>) -> Result<Authority, MaterialError> {
        let certificate = one("ca-cert.pem", &self.certificate)?;
        let key = KeyPair::from_pem(&self.key).map_err(MaterialError::Key)?;
        let seen = parse("ca-cert.pem", &certificate)?;
        if seen.public_key().raw != key.subject_public_key_info() {
            return Err(MaterialError::OtherKey);
        }
        let may_sign = seen.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
        if !seen.is_ca() || !may_sign {
            return Err(MaterialError::NoAuthority);
        }
        let roots = certificates("root-cert.pem", &self.roots)?;
        let chain =
            if self.chain.trim().is_empty() { Vec::new() } else { certificates("cert-chain.pem", &self.chain)? };
        let is_root = roots.contains(&certificate);
        let mut intermediates = if is_root { Vec::new() } else { vec![certificate.clone()] };
        for der in chain {
            if !is_root && !roots.contains(&der) && !intermediates.contains(&der) {
                intermediates.push(der);
            }
        }
        let valid = validity(&seen, &intermediates)?;
        if !is_root {
            check_roots(&roots, intermediates.last().unwrap_or(&certificate), intermediates.len(), &clock)?;
        }
        let bundle = Bundle::from_pem(&policy.domain, &policy.aliases, self.roots.as_bytes());
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(MaterialError::Make)?;
        let mut authority = Authority {
            certificate: (self.certificate.clone(), String::new()),
            policy,
            clock,
            issuer,
            valid,
            intermediates: intermediates.iter().map(|der| pem(der)).collect(),
            roots: self.roots.trim().to_owned() + "\n",
            bundle: bundle.map_err(MaterialError::Roots)?,
            origin: self.origin,
            rotation: self.rotation,
            plan: self.plan,
        };
        authority.certificate.1 = authority.try_out(&intermediates)?;
        Ok(authority)
    }
}

impl Authority {
    /// Signs a certificate for an identity that nobody has, and looks at it as a peer does: that finds a chain with a
    /// gap, a root of somebody else, name constraints that exclude us, and paths that are too long.
    /// Gives the identifier of the key that signed it.
    fn try_out(&self, intermediates: &[CertificateDer<'static>]) -> Result<String, MaterialError> {
        let now = self.now().unwrap_or(UNIX_EPOCH);
        let (from, to) = self.valid;
        if now < from || now >= to {
            let [from, to] = [from, to].map(stamp);
            return Err(MaterialError::NotNow { what: "ca-cert.pem, or one above it,", from, to });
        }
        let malformed = |reason: String| MaterialError::Malformed { what: "what it signs", reason };
        let id = SpiffeId::of_account(&self.policy.domain, "mesh-system", "try-out");
        let id = id.map_err(|error| malformed(error.to_string()))?;
        let key = runtime::svid::Key::generate(runtime::svid::KeyKind::P256).map_err(MaterialError::Make)?;
        let request = key.request(None).map_err(MaterialError::Make)?;
        let csr = Csr::from_pem(request.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        let lifetime = Some(self.policy.longest.min(Duration::from_secs(60)));
        let issued = self.issue(&id, &csr.key, lifetime).map_err(|error| malformed(error.to_string()))?;
        let mut chain = vec![one("what it signs", &issued.leaf)?];
        chain.extend_from_slice(intermediates);
        let (publisher, svids) = runtime::svid::channel_with_clock(Arc::clone(&self.clock));
        publisher.publish_bundle(self.bundle.clone());
        let verifier = PeerVerifier::new(svids, Peers::Members);
        let now = self.clock.current_time().unwrap_or_else(rustls_pki_types::UnixTime::now);
        for as_server in [true, false] {
            let verdict = verifier.verify(&chain, now, as_server);
            verdict.map_err(|reason| MaterialError::Refused { id: id.clone(), reason })?;
        }
        let leaf = chain.first().and_then(|leaf| runtime::svid::Leaf::read(leaf).ok());
        Ok(leaf.map(|leaf| leaf.issuer).unwrap_or_default())
    }
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    tls::certificates(pem.as_bytes()).map_err(|source| MaterialError::Certificate { what, source })
}

fn one(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, MaterialError> {
    let all = certificates(what, pem)?;
    let reason = format!("it holds {} certificates, not one", all.len());
    let [one] = <[_; 1]>::try_from(all).map_err(|_| MaterialError::Malformed { what, reason })?;
    Ok(one)
}

fn parse<'a>(what: &'static str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, MaterialError> {
    let read = X509Certificate::from_der(der);
    read.map(|(_, seen)| seen).map_err(|error| MaterialError::Malformed { what, reason: error.to_string() })
}

fn times(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |time: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
    let validity = certificate.validity();
    (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()))
}

/// When the issuer and all above it hold.
fn validity(
    issuer: &X509Certificate<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(SystemTime, SystemTime), MaterialError> {
    let mut valid = times(issuer);
    for der in intermediates {
        let (from, to) = times(&parse("cert-chain.pem", der)?);
        valid = (valid.0.max(from), valid.1.min(to));
    }
    Ok(valid)
}

/// Holds the root above `last` against its own words, which TLS libraries do not all do: whoever does would refuse.
fn check_roots(
    roots: &[CertificateDer<'_>],
    last: &CertificateDer<'_>,
    intermediates: usize,
    clock: &Arc<dyn Clock>,
) -> Result<(), MaterialError> {
    const WHAT: &str = "root-cert.pem";
    let now = clock.current_time().map_or(UNIX_EPOCH, |now| UNIX_EPOCH + Duration::from_secs(now.as_secs()));
    let last = parse("cert-chain.pem", last)?;
    for root in roots {
        let root = parse(WHAT, root)?;
        if root.subject().as_raw() != last.issuer().as_raw() {
            continue;
        }
        let (from, to) = times(&root);
        if now < from || now >= to {
            let [from, to] = [from, to].map(stamp);
            return Err(MaterialError::NotNow { what: WHAT, from, to });
        }
        let basic = root.basic_constraints().ok().flatten();
        let most = basic.and_then(|basic| basic.value.path_len_constraint);
        if most.is_some_and(|most| intermediates > usize::try_from(most).unwrap_or(usize::MAX)) {
            let reason = format!("it allows fewer than the {intermediates} authorities below it (pathLenConstraint)");
            return Err(MaterialError::Malformed { what: WHAT, reason });
        }
    }
    Ok(())
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("origin", &self.origin).finish_non_exhaustive()
    }
}
