//! The proxy's own identity: asked of the CA at the start, and renewed for as long as the proxy runs. A proxy with a static
//! configuration may have one in files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use runtime::metrics::Metrics;
use runtime::svid::client::{Authority, Dial, Pem};
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{self, Bundle, Key, KeyKind, Svid, Svids};
use runtime::tls::certificates;
use runtime::{Tasks, svid::metrics};

use crate::connect::dial;
use crate::settings::{Role, Root, Settings};

/// What the proxy is to others. Clones are handles on the same.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate and the roots in force.
    pub svids: Svids,
    /// How renewals go; `None` when nothing renews, as without a CA.
    pub status: Option<Status>,
}

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
    fn load(&self) -> Result<(Svid, Bundle), FilesError> {
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

impl Identity {
    /// Begins to ask. A proxy with a static configuration has no CA, and no identity unless it is in files.
    ///
    /// # Errors
    ///
    /// When the files cannot be used.
    pub fn start(
        settings: &Settings,
        mark: Option<u32>,
        metrics: &Metrics,
        background: &Tasks,
    ) -> Result<Self, FilesError> {
        let (publisher, svids) = svid::channel();
        if let Role::Static(_) = settings.role {
            if let Some(files) = &settings.identity {
                let (svid, bundle) = files.load()?;
                publisher.publish(svid, bundle);
            }
            return Ok(Identity { svids, status: None });
        }
        let status = Status::default();
        let renewal = Renewal {
            authority: authority(settings, mark),
            account: (settings.workload.namespace.clone(), settings.workload.service_account.clone()),
            key: KeyKind::P256,
            lifetime: None,
            publisher,
            status: status.clone(),
        };
        metrics::register(metrics, svids.clone(), status.clone());
        background.spawn("identity", renewal.run(background.token().clone()));
        Ok(Identity { svids, status: Some(status) })
    }
}

/// How the CA is reached. The connection bears the proxy's mark, so that a sidecar does not intercept its own question.
pub fn authority(settings: &Settings, mark: Option<u32>) -> Authority {
    let roots = match &settings.pilot.root {
        Root::Pem(pem) => Pem::Text(pem.clone()),
        Root::File(path) => Pem::File(path.clone()),
    };
    let dial: Dial = Arc::new(move |address| Box::pin(async move { dial(&address, mark).await }));
    settings.ca.authority(roots, dial)
}
