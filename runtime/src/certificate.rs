//! A daemon's serving certificate, read from files and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::tls::TlsError;

/// How often the files are looked at. Kubernetes takes up to a minute to bring a changed Secret into a pod.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TlsError,
    },
    /// Certificate and key do not fit, or the key's kind is not known.
    #[error("the key in {} cannot be used with its certificate", directory.display())]
    Mismatch {
        /// Where both are.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The certificate in force. Clones share it.
#[derive(Debug, Clone)]
pub struct Certificate {
    directory: PathBuf,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current {
    key: ArcSwap<CertifiedKey>,
    /// What the files held, to see a change.
    files: ArcSwap<Files>,
}

#[derive(Debug, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    root: Vec<u8>,
}

impl Certificate {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` in `directory`.
    ///
    /// # Errors
    ///
    /// When one is missing or cannot be used.
    pub fn load(directory: &Path) -> Result<Self, CertificateError> {
        let files = Files::read(directory)?;
        let key = files.certified_key(directory)?;
        let current = Current { key: ArcSwap::from_pointee(key), files: ArcSwap::from_pointee(files) };
        Ok(Certificate { directory: directory.to_owned(), current: Arc::new(current) })
    }

    /// The root (PEM) that vouches for the certificate.
    #[must_use]
    pub fn root_pem(&self) -> String {
        String::from_utf8_lossy(&self.current.files.load().root).into_owned()
    }

    /// A server's configuration that presents whatever certificate is in force.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, CertificateError> {
        self.verifying_server_config(Arc::new(NoClientAuth), alpn)
    }

    /// The same, with `verifier` looking at clients' certificates. Sessions are not resumed, so it sees every handshake.
    ///
    /// # Errors
    ///
    /// When the build lacks what it needs.
    pub fn verifying_server_config(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Setup)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.current.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Follows the files until cancelled. A change that cannot be used leaves the old certificate in force.
    pub async fn follow(self, cancelled: CancellationToken) {
        while cancelled.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match self.reload() {
                Ok(true) => tracing::info!(directory = %self.directory.display(), "the certificate has been replaced"),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    error = crate::exit::chain(&error),
                    "the changed certificate cannot be used; the old one stays in force"
                ),
            }
        }
    }

    /// Reads the files again; whether they have changed.
    fn reload(&self) -> Result<bool, CertificateError> {
        let files = Files::read(&self.directory)?;
        if files == **self.current.files.load() {
            return Ok(false);
        }
        self.current.key.store(Arc::new(files.certified_key(&self.directory)?));
        self.current.files.store(Arc::new(files));
        Ok(true)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

impl Files {
    fn read(directory: &Path) -> Result<Self, CertificateError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|source| CertificateError::Unreadable { path, source })
        };
        Ok(Files { certificate: read("tls.crt")?, key: read("tls.key")?, root: read("ca.crt")? })
    }

    fn certified_key(&self, directory: &Path) -> Result<CertifiedKey, CertificateError> {
        let unusable = |name: &str| {
            let path = directory.join(name);
            move |source| CertificateError::Unusable { path, source }
        };
        let chain = crate::tls::certificates(&self.certificate).map_err(unusable("tls.crt"))?;
        let key = crate::tls::private_key(&self.key).map_err(unusable("tls.key"))?;
        crate::tls::roots(&self.root).map_err(unusable("ca.crt"))?;
        CertifiedKey::from_der(chain, key, &crate::tls::provider())
            .map_err(|source| CertificateError::Mismatch { directory: directory.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path) -> String {
        let made = crate::authority::serving_certificate(&["mesh-pilot.mesh-system.svc"], Duration::from_secs(3600));
        let made = made.expect("a certificate");
        for (file, text) in [("tls.crt", &made.cert_pem), ("tls.key", &made.key_pem), ("ca.crt", &made.ca_pem)] {
            std::fs::write(directory.join(file), text).expect("written");
        }
        made.ca_pem
    }

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path());
        let certificate = Certificate::load(directory.path()).expect("it is good");
        assert!(!certificate.reload().expect("nothing has changed"));
        let root = write(directory.path());
        let before = certificate.current.key.load_full();
        assert!(certificate.reload().expect("it is good"));
        assert_eq!(certificate.root_pem(), root);
        let now = certificate.current.key.load_full();
        assert_ne!(before.cert, now.cert);
        std::fs::write(directory.path().join("tls.crt"), "half a cert").expect("written");
        let error = certificate.reload().expect_err("it is broken");
        assert!(error.to_string().ends_with("tls.crt cannot be used"), "{error}");
        assert_eq!(certificate.current.key.load().cert, now.cert, "the old one stays in force");
    }
}
