//! Trust bundles: which roots vouch for which trust domains.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::spiffe::{SpiffeId, TrustDomain};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use crate::tls::{self, TlsError};

/// Roots by trust domain: ours under all its names, and those of others with whom we are federated. A certificate of a domain must chain to one of that domain's own roots.
#[derive(Clone)]
pub struct Bundle {
    /// Our domain, and its other names.
    own: Vec<TrustDomain>,
    domains: BTreeMap<TrustDomain, Arc<Roots>>,
}

struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

/// Why roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// They are not certificates, or none.
    #[error("the roots of {domain} cannot be used")]
    Roots {
        /// Whose they are.
        domain: TrustDomain,
        /// Why not.
        #[source]
        source: TlsError,
    },
}

impl Bundle {
    /// The roots (PEM, at least one) of our `domain` and of its `aliases`: other names for the same, as when it is renamed.
    ///
    /// # Errors
    ///
    /// When the PEM is damaged, holds nothing, or a certificate in it cannot be a root.
    pub fn from_pem(domain: &TrustDomain, aliases: &[TrustDomain], pem: &[u8]) -> Result<Self, BundleError> {
        let roots = Roots::read(domain, pem)?;
        let own: Vec<TrustDomain> = std::iter::once(domain).chain(aliases).cloned().collect();
        let domains = own.iter().map(|name| (name.clone(), Arc::clone(&roots))).collect();
        Ok(Bundle { own, domains })
    }

    /// Adds the roots of a domain with which ours is federated.
    ///
    /// # Errors
    ///
    /// As [`Bundle::from_pem`].
    pub fn federate(&mut self, domain: &TrustDomain, pem: &[u8]) -> Result<(), BundleError> {
        if !self.own.contains(domain) {
            self.domains.insert(domain.clone(), Roots::read(domain, pem)?);
        }
        Ok(())
    }

    /// Whether an identity is of our own trust domain, under any of its names.
    #[must_use]
    pub fn is_own(&self, id: &SpiffeId) -> bool {
        self.own.iter().any(|domain| id.is_member_of(domain))
    }

    /// Whether two identities are the same workload: equal, or equal but for the name of our trust domain.
    #[must_use]
    pub fn is_same(&self, one: &SpiffeId, other: &SpiffeId) -> bool {
        one == other || (one.path() == other.path() && self.is_own(one) && self.is_own(other))
    }

    /// The roots of our own trust domain.
    #[must_use]
    pub fn own_roots(&self) -> &[CertificateDer<'static>] {
        self.own.first().map_or(&[], |domain| self.roots(domain))
    }

    /// The trust domains that are known.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// The roots of a domain; none when it is not known.
    #[must_use]
    pub fn roots(&self, domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.domains.get(domain).map_or(&[], |roots| &roots.certificates)
    }

    /// The anchors of the domain that `id` belongs to.
    pub(super) fn anchors(&self, id: &SpiffeId) -> Option<&RootCertStore> {
        self.domains.iter().find(|(domain, _)| id.is_member_of(domain)).map(|(_, roots)| &roots.store)
    }

    /// A short hash of everything in it: equal where the bundle is, so that who lags can be told.
    #[must_use]
    pub fn version(&self) -> String {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for (domain, roots) in &self.domains {
            hash.update(domain.as_str().as_bytes());
            let mut prints: Vec<_> = roots.certificates.iter().map(|root| fingerprint(root)).collect();
            prints.sort_unstable();
            prints.iter().for_each(|print| hash.update(print.as_bytes()));
        }
        hash.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Roots {
    fn read(domain: &TrustDomain, pem: &[u8]) -> Result<Arc<Self>, BundleError> {
        let wrong = |source| BundleError::Roots { domain: domain.clone(), source };
        let mut certificates = tls::certificates(pem).map_err(wrong)?;
        certificates.dedup();
        let mut store = RootCertStore::empty();
        for root in &certificates {
            store.add(root.clone()).map_err(|source| wrong(TlsError::Root(source)))?;
        }
        Ok(Arc::new(Roots { certificates, store }))
    }
}

/// SHA-256 of a certificate in hexadecimal.
#[must_use]
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.domains.iter().map(|(name, roots)| (name, roots.certificates.len()))).finish()
    }
}
