//! Certificates made at installation: a self-signed root that signs one serving certificate and is then forgotten.

mod root;

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::OffsetDateTime;

pub use self::root::Root;

/// A serving certificate with the root that signed it.
#[derive(Clone)]
pub struct ServingCertificate {
    /// The root, which clients trust.
    pub ca_pem: String,
    /// The chain that the server presents.
    pub cert_pem: String,
    /// The server's private key (PKCS#8).
    pub key_pem: String,
}

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It would be for nobody.
    #[error("a serving certificate needs at least one DNS name or address")]
    NoNames,
    /// A name is not a DNS name or address, or the like.
    #[error("the certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// The result is no SVID.
    #[error("what was made is no SVID")]
    Svid(#[from] crate::svid::SvidError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The validity leads out of the calendar.
    #[error("a validity of {0:?} is too long")]
    TooLong(Duration),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        AuthorityError::Make(error)
    }
}

/// How far back a certificate is valid, for machines whose clocks are behind.
const SKEW: time::Duration = time::Duration::minutes(10);

/// Makes a root and a serving certificate for `names` (DNS names or IP addresses), both P-256 and valid from now on for
/// `validity`. The root's key is dropped: it signs nothing else.
///
/// # Errors
///
/// When there is no name, a name is malformed, or the validity is beyond the calendar.
pub fn serving_certificate(names: &[&str], validity: Duration) -> Result<ServingCertificate, AuthorityError> {
    let first = names.first().ok_or(AuthorityError::NoNames)?;
    let mut root = params(&[], "mesh root", validity)?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;

    let mut leaf = params(names, first, validity)?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &root)?;
    Ok(ServingCertificate { ca_pem: root.pem(), cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn params(names: &[&str], common_name: &str, validity: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "mesh");
    // A common name has room for 64 characters; what counts is the list of alternative names.
    subject.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    let too_long = || AuthorityError::TooLong(validity);
    params.not_before = now - SKEW;
    params.not_after =
        time::Duration::try_from(validity).ok().and_then(|validity| now.checked_add(validity)).ok_or_else(too_long)?;
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // Positive, and of constant length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_for_nobody_is_refused() {
        assert!(matches!(serving_certificate(&[], Duration::from_secs(1)), Err(AuthorityError::NoNames)));
    }

    #[test]
    fn a_validity_beyond_the_calendar_is_refused() {
        let made = serving_certificate(&["x"], Duration::from_secs(u64::MAX / 4));
        assert!(matches!(made, Err(AuthorityError::TooLong(_))));
    }
}
