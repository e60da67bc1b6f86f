//! The serving certificates of the control plane, made when a mesh is installed.

use install::{Certificates, ServingCertificate, Values};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::Error;

/// How long they hold: as long as an installation that nobody touches. Installing again renews it.
const YEARS: i64 = 10;

/// Makes a root, and certificates for Pilot and the CA that it vouches for. The root's key is not kept.
///
/// # Errors
/// When the cryptographic library refuses.
pub fn make(domain: &str) -> Result<Certificates, Error> {
    try_make(domain).map_err(|e| Error::failed("cannot make certificates for the control plane").because(e.to_string()))
}

fn try_make(domain: &str) -> Result<Certificates, rcgen::Error> {
    let root_key = KeyPair::generate()?;
    let mut root = parameters(Vec::new(), "mesh root")?;
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = root.self_signed(&root_key)?;
    let issuer = Issuer::new(root, root_key);
    let [pilot, ca] = [api::names::PILOT, api::names::CA].map(|name| serving(&issuer, name, domain));
    Ok(Certificates { roots: certificate.pem(), pilot: pilot?, ca: ca? })
}

fn serving(issuer: &Issuer<'_, KeyPair>, name: &str, domain: &str) -> Result<ServingCertificate, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut leaf = parameters(Values::dns_names(name, domain), name)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, issuer)?;
    Ok(ServingCertificate { certificate: leaf.pem(), key: key.serialize_pem() })
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
    fn certificates_are_made_with_their_root() {
        let made = make("cluster.local").expect("made");
        assert!(made.roots.starts_with("-----BEGIN CERTIFICATE-----"));
        for serving in [&made.pilot, &made.ca] {
            assert!(serving.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
            assert!(serving.key.starts_with("-----BEGIN PRIVATE KEY-----"));
            assert_ne!(made.roots, serving.certificate);
        }
        assert_ne!(made.pilot, made.ca);
    }
}
