//! Pilot's serving certificate, made when a mesh is installed.

use install::{PilotCertificate, Values};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::Error;

/// How long the certificate holds: as long as an installation that nobody touches. Installing again renews it.
const YEARS: i64 = 10;

/// Makes a root, and a certificate for Pilot that it vouches for. The root's key is not kept.
///
/// # Errors
/// When the cryptographic library refuses.
pub fn make(domain: &str) -> Result<PilotCertificate, Error> {
    try_make(domain).map_err(|e| Error::failed("cannot make Pilot's certificate").because(e.to_string()))
}

fn try_make(domain: &str) -> Result<PilotCertificate, rcgen::Error> {
    let root_key = KeyPair::generate()?;
    let mut root = parameters(Vec::new(), "mesh root")?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = root.self_signed(&root_key)?;
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate()?;
    let mut leaf = parameters(Values::pilot_dns_names(domain), api::names::PILOT)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer)?;
    Ok(PilotCertificate { ca: certificate.pem(), certificate: leaf.pem(), key: key.serialize_pem() })
}

fn parameters(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    let now = time::OffsetDateTime::now_utc();
    // Clocks differ, and may have been days ahead when this was made: valid from a week ago.
    parameters.not_before = now - time::Duration::days(7);
    parameters.not_after = now + time::Duration::days(365 * YEARS);
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_with_its_root() {
        let made = make("cluster.local").expect("made");
        assert!(made.ca.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(made.ca, made.certificate);
    }
}
