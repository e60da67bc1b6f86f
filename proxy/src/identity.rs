//! The proxy's own identity: asked of the CA at the start, and renewed for as long as the proxy runs.

use std::sync::Arc;

use runtime::metrics::Metrics;
use runtime::svid::client::{Dial, Pem};
use runtime::svid::renew::{Renewal, Status};
use runtime::svid::{self, KeyKind, Svids};
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

impl Identity {
    /// Begins to ask. A proxy with a static configuration has no CA, and no identity.
    pub fn start(settings: &Settings, mark: Option<u32>, metrics: &Metrics, background: &Tasks) -> Self {
        let (publisher, svids) = svid::channel();
        if let Role::Static(_) = settings.role {
            return Identity { svids, status: None };
        }
        let roots = match &settings.pilot.root {
            Root::Pem(pem) => Pem::Text(pem.clone()),
            Root::File(path) => Pem::File(path.clone()),
        };
        // The connection bears the proxy's mark, so that a sidecar does not intercept its own question.
        let dial: Dial = Arc::new(move |address| Box::pin(async move { dial(&address, mark).await }));
        let status = Status::default();
        let renewal = Renewal {
            authority: settings.ca.authority(roots, dial),
            account: (settings.workload.namespace.clone(), settings.workload.service_account.clone()),
            key: KeyKind::P256,
            lifetime: None,
            publisher,
            status: status.clone(),
        };
        metrics::register(metrics, svids.clone(), status.clone());
        background.spawn("identity", renewal.run(background.token().clone()));
        Identity { svids, status: Some(status) }
    }
}
