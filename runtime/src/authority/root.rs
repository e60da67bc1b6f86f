//! A root of a trust domain that lives in memory: for tests and benchmarks of what needs SVIDs.

use std::time::{Duration, SystemTime};

use api::spiffe::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use super::AuthorityError;
use crate::svid::{Bundle, BundleError, Key, KeyKind, Svid};

/// A root with its key.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use runtime::authority::Root;
/// use runtime::svid;
///
/// let root = Root::new("mesh root")?;
/// let id = "spiffe://cluster.local/ns/default/sa/reviews".parse()?;
/// let (publisher, svids) = svid::channel();
/// publisher.publish(root.svid(&id, SystemTime::now(), Duration::from_secs(60))?, root.bundle(&id)?);
/// assert!(svids.current().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Root {
    /// Makes one that holds from 1975 to 4096, so that tests may choose their time.
    ///
    /// # Errors
    ///
    /// When the cryptographic library refuses.
    pub fn new(name: &str) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Root { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The certificate (PEM).
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// What a good SVID consists of, to be made a bad one.
    ///
    /// # Errors
    ///
    /// When the identity cannot stand in a certificate.
    pub fn params(id: &str, from: SystemTime, lifetime: Duration) -> Result<CertificateParams, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = from.into();
        params.not_after = (from + lifetime).into();
        Ok(params)
    }

    /// Signs a certificate of any shape.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn sign(&self, params: &CertificateParams, key: &Key) -> Result<CertificateDer<'static>, AuthorityError> {
        Ok(params.signed_by(key.pair(), &self.issuer)?.der().clone())
    }

    /// Issues an SVID with a new key.
    ///
    /// # Errors
    ///
    /// When the cryptographic library refuses.
    pub fn svid(&self, id: &SpiffeId, from: SystemTime, lifetime: Duration) -> Result<Svid, AuthorityError> {
        let key = Key::generate(KeyKind::P256)?;
        let leaf = self.sign(&Root::params(id.as_str(), from, lifetime)?, &key)?;
        Ok(Svid::new(vec![leaf], key)?)
    }

    /// The bundle of the trust domain of `id`, with this root alone.
    ///
    /// # Errors
    ///
    /// Never, unless this root is broken.
    pub fn bundle(&self, id: &SpiffeId) -> Result<Bundle, BundleError> {
        Bundle::from_pem(&id.trust_domain(), &[], self.pem().as_bytes())
    }
}
