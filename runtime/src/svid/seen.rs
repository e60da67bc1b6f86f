//! Chains that have been verified a moment ago: connections between the same workloads verify a certificate once, not once
//! each. That a peer has the certificate's key is still proved in every handshake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, UnixTime};

use super::Bundle;
use super::peer::Peer;

/// For so long it is not verified again. The leaf's own end counts at once, and so does every change of the roots; this is
/// how late the end of an issuer may be noticed, which no leaf outlives.
const FRESH: Duration = Duration::from_secs(60);
/// Chains that are kept; then all are forgotten.
const MOST: usize = 1024;

/// Chains that are known to be good under one bundle.
#[derive(Default)]
pub(super) struct Seen(Mutex<Known>);

#[derive(Default)]
struct Known {
    bundle: Option<Arc<Bundle>>,
    chains: HashMap<Box<[u8]>, (Peer, UnixTime)>,
}

/// A chain in the use that was made of it.
pub(super) fn key(as_server: bool, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Box<[u8]> {
    let mut key = vec![u8::from(as_server)];
    for der in std::iter::once(leaf).chain(intermediates) {
        key.extend_from_slice(&der.len().to_le_bytes());
        key.extend_from_slice(der);
    }
    key.into()
}

impl Seen {
    /// Whose chain it is, if it was good under this bundle a moment ago and has not expired since.
    pub(super) fn find(&self, bundle: &Arc<Bundle>, key: &[u8], now: UnixTime) -> Option<Peer> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.bundle.as_ref().is_some_and(|known| Arc::ptr_eq(known, bundle)) {
            return None;
        }
        let (peer, at) = known.chains.get(key)?;
        let is_fresh = (at.as_secs()..at.as_secs() + FRESH.as_secs()).contains(&now.as_secs());
        let holds = peer.not_after > UNIX_EPOCH + Duration::from_secs(now.as_secs());
        (is_fresh && holds).then(|| peer.clone())
    }

    /// A chain has been verified.
    pub(super) fn put(&self, bundle: &Arc<Bundle>, key: Box<[u8]>, peer: &Peer, now: UnixTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = known.bundle.as_ref().is_some_and(|known| Arc::ptr_eq(known, bundle));
        if !is_same || known.chains.len() >= MOST {
            known.chains.clear();
            known.bundle = Some(Arc::clone(bundle));
        }
        known.chains.insert(key, (peer.clone(), now));
    }
}
