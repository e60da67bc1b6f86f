//! An identity that stands in files.

use std::io;
use std::path::PathBuf;

use runtime::svid::{Bundle, Key, Svid};
use runtime::tls::certificates;

/// An identity in PEM files, for a proxy that no CA serves: in tests and measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and what is between it and the root.
    pub certificate: PathBuf,
    /// Its key (PKCS#8).
    pub key: PathBuf,
    /// The roots that are trusted.
    pub roots: PathBuf,
}

/// Why an identity cannot be taken from files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("the certificate {path} cannot be used")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Files {
    /// What they hold.
    pub(crate) fn load(&self) -> Result<(Svid, Bundle), FilesError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| FilesError::Read { path: path.clone(), source })
        };
        let (certificate, key, roots) = (read(&self.certificate)?, read(&self.key)?, read(&self.roots)?);
        let make = || {
            let svid = Svid::new(certificates(certificate.as_bytes())?, Key::from_pem(&key)?)?;
            let bundle = Bundle::from_pem(&svid.id.trust_domain(), &[], roots.as_bytes())?;
            Ok((svid, bundle))
        };
        make().map_err(|source| FilesError::Certificate { path: self.certificate.clone(), source })
    }
}
