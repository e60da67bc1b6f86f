//! The proxy's own identity: asked of the CA at the start, and renewed for as long as the proxy runs. A proxy with a static
//! configuration may have one in files.

use std::sync::Arc;

use runtime::metrics::Metrics;
use runtime::svid::client::{Authority, Dial, Pem};
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{self, KeyKind, Svids};
use runtime::{Tasks, svid::metrics};

use crate::connect::dial;
use crate::identity_files::FilesError;
use crate::settings::{Role, Root, Settings};

/// What the proxy is to others. Clones are handles on the same.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate and the roots in force.
    pub svids: Svids,
    /// How renewals go; `None` when nothing renews, as without a CA.
    pub status: Option<Status>,
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
