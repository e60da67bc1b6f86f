//! Keys and certificates of the local API: made on the first start, kept in `pki/`, renewed before they expire.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// Why the keys or certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is not a usable key or certificate: {why}; move the directory it is in away to get a new one", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Making a key or certificate failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused what was made.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// All keys and certificates.
pub struct Pki {
    /// The certificate of the local authority, PEM.
    pub ca: String,
    /// The administrator's certificate, PEM.
    pub admin: String,
    /// The administrator's key, PEM.
    pub admin_key: String,
    /// The key that signs service-account tokens, PEM (PKCS #8).
    pub token_key: String,
    /// Its public half, PEM.
    pub token_public: String,
    server: String,
    server_key: String,
}

/// Names and addresses under which the API is reached.
const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
const ADDRESSES: &[IpAddr] = &[
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
];

const DAY: i64 = 86_400;
const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate is valid from that long before it is made: a clock that is set back must not shut everybody out.
const SKEW_DAYS: i64 = 7;
/// A certificate that has less than this to live is made anew at the next start.
const RENEW_DAYS: i64 = 60;

impl Pki {
    /// Reads the directory, and makes what is missing or about to expire.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| io(directory, e))?;
        let dir = Directory(directory);
        let (ca, ca_key) = dir.authority()?;
        let issuer = |why: rcgen::Error| PkiError::Unusable { path: directory.join("ca.crt"), why: why.to_string() };
        let issuer = Issuer::from_ca_cert_pem(&ca, dir.key("ca.key", &ca_key)?).map_err(issuer)?;
        let (server, server_key) = dir.leaf("apiserver", &issuer, server_params)?;
        let (admin, admin_key) = dir.leaf("admin", &issuer, admin_params)?;
        let token_key = dir.read_or_make("sa.key", || Ok(KeyPair::generate()?.serialize_pem()))?;
        let token_public = dir.key("sa.key", &token_key)?.public_key_pem();
        Ok(Self { ca, admin, admin_key, token_key, token_public, server, server_key })
    }

    /// TLS of the server: HTTP/2 and 1.1; client certificates of the local authority are welcome, not demanded.
    ///
    /// # Errors
    /// When the certificates on disk do not fit together.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca) {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.server), key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificates in a PEM text; what is none is left out.
pub(crate) fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// Who a client certificate speaks for: the common name, and its organisations as groups.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Option<(String, Vec<String>)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = parsed.subject().iter_organization().filter_map(|it| it.as_str().ok()).map(str::to_owned).collect();
    Some((name, groups))
}

struct Directory<'a>(&'a Path);

impl Directory<'_> {
    fn authority(&self) -> Result<(String, String), PkiError> {
        let key = self.read_or_make("ca.key", || Ok(KeyPair::generate()?.serialize_pem()))?;
        let certificate = self.read_or_make("ca.crt", || {
            let mut params = params("meshctl-local", CA_DAYS);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages =
                vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
            Ok(params.self_signed(&self.key("ca.key", &key)?)?.pem())
        })?;
        Ok((certificate, key))
    }

    fn leaf(
        &self,
        name: &str,
        issuer: &Issuer<'_, KeyPair>,
        params: fn() -> CertificateParams,
    ) -> Result<(String, String), PkiError> {
        let (certificate_file, key_file) = (format!("{name}.crt"), format!("{name}.key"));
        let key = self.read_or_make(&key_file, || Ok(KeyPair::generate()?.serialize_pem()))?;
        if let Some(certificate) = self.read(&certificate_file)?
            && lives_on(&certificate)
        {
            return Ok((certificate, key));
        }
        let made = params().signed_by(&self.key(&key_file, &key)?, issuer)?.pem();
        self.write(&certificate_file, &made)?;
        Ok((made, key))
    }

    fn key(&self, file: &str, pem: &str) -> Result<KeyPair, PkiError> {
        KeyPair::from_pem(pem).map_err(|why| PkiError::Unusable { path: self.0.join(file), why: why.to_string() })
    }

    fn read_or_make(&self, file: &str, make: impl FnOnce() -> Result<String, PkiError>) -> Result<String, PkiError> {
        if let Some(found) = self.read(file)? {
            return Ok(found);
        }
        let made = make()?;
        self.write(file, &made)?;
        Ok(made)
    }

    fn read(&self, file: &str) -> Result<Option<String>, PkiError> {
        let path = self.0.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&path, error)),
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), PkiError> {
        let path = self.0.join(file);
        write_private(&path, text.as_bytes()).map_err(|error| io(&path, error))
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

fn io(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::Io { path: path.to_owned(), source }
}

fn params(common_name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = time::OffsetDateTime::now_utc();
    // The clock of a machine may have been days ahead when this was made.
    params.not_before = now - time::Duration::days(SKEW_DAYS);
    params.not_after = now + time::Duration::days(days);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn server_params() -> CertificateParams {
    let mut params = params("kube-apiserver", LEAF_DAYS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let names = NAMES.iter().map(|name| SanType::DnsName((*name).try_into().expect("the names above are ASCII")));
    params.subject_alt_names = names.chain(ADDRESSES.iter().map(|address| SanType::IpAddress(*address))).collect();
    params
}

fn admin_params() -> CertificateParams {
    let mut params = params("admin", LEAF_DAYS);
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn lives_on(pem: &str) -> bool {
    let certificates = certificates(pem);
    let parsed = certificates.first().and_then(|it| x509_parser::parse_x509_certificate(it).ok());
    let renew_at = time::OffsetDateTime::now_utc().unix_timestamp() + RENEW_DAYS * DAY;
    parsed.is_some_and(|(_, it)| it.validity().not_after.timestamp() > renew_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_valid_over_restarts_and_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pki");
        let first = Pki::open(&path).expect("made");
        let second = Pki::open(&path).expect("read");
        assert_eq!((&first.ca, &first.admin, &first.token_key), (&second.ca, &second.admin, &second.token_key));
        first.server_config().expect("usable");
        let mode = std::fs::metadata(path.join("admin.key")).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (name, groups) = subject(&certificates(&first.admin)[0]).expect("a subject");
        assert_eq!((name.as_str(), groups), ("admin", vec!["system:masters".to_owned()]));
    }

    #[test]
    fn a_broken_key_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.key"), "nonsense").expect("written");
        let error = Pki::open(directory.path()).err().expect("refused").to_string();
        assert!(error.contains("ca.key") && error.contains("move the directory"), "{error}");
    }
}
