//! What the discovery service works with.

use std::sync::Arc;

use runtime::Tasks;
use runtime::svid::Svids;
use runtime::svid::renew::Status;
use runtime::token::Authenticator;
use tokio::sync::watch;

use super::proxies::Proxies;
use crate::metrics::Metrics;
use crate::snapshot::Snapshots;

/// Who Pilot is to proxies. Clones share it.
#[derive(Debug, Clone)]
pub struct OwnIdentity {
    /// The certificate and the roots in force.
    pub svids: Svids,
    /// How renewals go.
    pub status: Status,
    /// Goes up when every proxy is to renew its identity.
    pub renewals: Arc<watch::Sender<u64>>,
}

impl OwnIdentity {
    /// Has everybody renew: Pilot itself, and all proxies that are connected to it.
    pub fn renew_all(&self) {
        self.status.renew_now();
        self.renewals.send_modify(|count| *count += 1);
    }
}

/// The aggregated discovery service, delta form only. Clones share everything.
#[derive(Clone)]
pub struct Ads {
    /// Who may connect.
    pub authenticator: Authenticator,
    /// What they get.
    pub snapshots: Snapshots,
    /// Who is connected.
    pub proxies: Proxies,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who Pilot is to proxies, and when theirs are to be renewed.
    pub identity: OwnIdentity,
    /// Whom the streams' tasks belong to.
    pub tasks: Tasks,
    /// Pilot's pod, which responses name.
    pub name: Arc<str>,
}
