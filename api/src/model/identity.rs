//! Who workloads are to each other, and whether their connections prove it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Host, Key, Mesh, Model};

/// Whether a proxy takes part in the mesh's mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MeshTls {
    /// Not at all: it has no identity.
    #[default]
    None,
    /// With an identity that it gets by SDS, as a stock Envoy does. It offers one word of ALPN per cluster, whatever is spoken.
    Sds,
    /// With its own identity, and by what is spoken on each connection.
    Own,
}

/// Service accounts that run a service, by namespace and name.
pub type Accounts = BTreeSet<Key>;

impl Mesh {
    /// The names of the trust domain: the one in which certificates are issued, then the others that are accepted.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases).map(String::as_str)
    }
}

impl Model {
    /// The service accounts that run a service: those of all its pods, ready or not.
    #[must_use]
    pub fn accounts_of(&self, host: &Host) -> Option<&Arc<Accounts>> {
        self.accounts.get(host).filter(|accounts| !accounts.is_empty())
    }
}
