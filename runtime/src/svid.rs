//! The process's own identity: an X.509 SVID (SPIFFE), the roots that vouch for others', and TLS made of both.
//!
//! [`Svids`] is what everybody reads; its one writer is the [`Publisher`], which [`renew`] drives. A TLS configuration
//! is made once and stays: whenever a handshake begins it takes the certificate and the roots then in force, so that a
//! renewal drops no connection, and it never presents a certificate that has expired.
//!
//! ```no_run
//! # use runtime::svid::{Peers, Svids, peer};
//! # fn f(svids: &Svids, accepted: &rustls::ServerConnection) -> Result<(), Box<dyn std::error::Error>> {
//! // Accepting: whoever has an SVID of one of our trust domains.
//! let server = svids.server_config(Peers::Members, &[b"h2"])?;
//! // Calling: only who may run this service. One configuration per set of identities, kept for as long as the set is.
//! let ratings = "spiffe://cluster.local/ns/default/sa/bookinfo-ratings".parse()?;
//! let client = svids.client_config(Peers::these([ratings]), &[b"h2"])?;
//! // Who it is, once the handshake is done.
//! let caller = peer(accepted.peer_certificates()).ok_or("no certificate")?;
//! println!("{}", caller.id);
//! # Ok(()) }
//! ```
//!
//! Why a peer was refused: [`Refusal::of`] finds it in the error of a handshake, [`Refusal::code`] is its one word.

mod bundle;
pub mod client;
pub mod follow;
pub mod join;
mod key;
pub mod metrics;
mod peer;
pub mod renew;
pub mod report;
mod seen;
mod tls;
mod verify;
pub mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::spiffe::SpiffeId;
use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

pub use self::bundle::{Bundle, BundleError};
pub use self::key::{Key, KeyKind};
pub use self::peer::Peer;
pub use self::tls::PeerVerifier;
pub use self::verify::{Leaf, Peers, Refusal, peer};
pub use rustls::time_provider::TimeProvider as Clock;

/// A certificate with its key and who it says that we are.
pub struct Svid {
    /// Who it says that we are.
    pub id: SpiffeId,
    /// Certificates that are presented, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it begins to hold.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// The leaf's serial number, in hexadecimal.
    pub serial: String,
    /// Identifier of the key that signed it, in hexadecimal.
    pub issuer: String,
    /// When this process got it; `not_before` lies further back, for clocks that are behind.
    pub since: SystemTime,
    key: Key,
    certified: Arc<CertifiedKey>,
}

/// Why a certificate cannot be this process's SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The chain is empty.
    #[error("there is no certificate in the answer")]
    Empty,
    /// The leaf is no SVID.
    #[error("the certificate is no SVID")]
    Leaf(#[source] Refusal),
    /// It was made for another key.
    #[error("the certificate does not belong to the key")]
    Key(#[source] rustls::Error),
    /// It does not hold now.
    #[error("the certificate cannot be verified with the roots that came with it")]
    Unverified(#[source] Refusal),
    /// It is somebody else's.
    #[error("the certificate is of {got}, but this is {expected}")]
    NotOurs {
        /// Who we are.
        expected: SpiffeId,
        /// Whose it is.
        got: SpiffeId,
    },
}

impl Svid {
    /// Joins a certificate chain (leaf first) with the key that it was made for.
    ///
    /// # Errors
    ///
    /// When the leaf is no SVID, or is not of that key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Key) -> Result<Self, SvidError> {
        let first = chain.first().ok_or(SvidError::Empty)?;
        let leaf = Leaf::read(first).map_err(SvidError::Leaf)?;
        let certified = CertifiedKey::new(chain.clone(), key.signer().map_err(SvidError::Key)?);
        certified.keys_match().map_err(SvidError::Key)?;
        Ok(Svid {
            id: leaf.peer.id,
            not_before: leaf.not_before,
            not_after: leaf.peer.not_after,
            serial: leaf.peer.serial,
            issuer: leaf.issuer,
            since: SystemTime::now(),
            chain,
            key,
            certified: Arc::new(certified),
        })
    }

    /// The whole time for which it holds.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// What is left of it at `now`; zero when it has expired.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Its key, for who serves it on (SDS, Workload API). Never write it anywhere.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id.as_str()).field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// What is in force. Clones are handles on the same.
#[derive(Clone)]
pub struct Svids {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
}

struct Shared {
    svid: ArcSwapOption<Svid>,
    bundle: ArcSwapOption<Bundle>,
    clock: Arc<dyn TimeProvider>,
    seen: seen::Seen,
}

/// The one writer of what [`Svids`] read.
pub struct Publisher {
    shared: Arc<Shared>,
    changes: watch::Sender<u64>,
}

/// Makes an identity that nobody has vouched for yet, with the system's clock.
#[must_use]
pub fn channel() -> (Publisher, Svids) {
    channel_with_clock(Arc::new(DefaultTimeProvider))
}

/// The same with a clock of its own, for tests.
#[must_use]
pub fn channel_with_clock(clock: Arc<dyn Clock>) -> (Publisher, Svids) {
    let seen = seen::Seen::default();
    let shared = Arc::new(Shared { svid: ArcSwapOption::empty(), bundle: ArcSwapOption::empty(), clock, seen });
    let (sender, receiver) = watch::channel(0);
    (Publisher { shared: Arc::clone(&shared), changes: sender }, Svids { shared, changes: receiver })
}

impl Publisher {
    /// Puts a certificate and the roots that came with it in force, for handshakes that begin from now on.
    pub fn publish(&self, svid: Svid, bundle: Bundle) {
        // Roots first: a peer that has renewed before us must be known when we present the new certificate.
        self.shared.bundle.store(Some(Arc::new(bundle)));
        self.shared.svid.store(Some(Arc::new(svid)));
        self.changes.send_modify(|version| *version += 1);
    }

    /// Puts other roots in force.
    pub fn publish_bundle(&self, bundle: Bundle) {
        self.shared.bundle.store(Some(Arc::new(bundle)));
        self.changes.send_modify(|version| *version += 1);
    }

    /// A reader of what this publishes.
    #[must_use]
    pub fn svids(&self) -> Svids {
        Svids { shared: Arc::clone(&self.shared), changes: self.changes.subscribe() }
    }
}

impl Svids {
    /// The certificate in force: `None` before the first one, and once it has expired.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Svid>> {
        let now = self.now();
        self.latest().filter(|svid| svid.not_after > now)
    }

    /// The certificate that came last, even if it has expired since: to show, never to present.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Svid>> {
        self.shared.svid.load_full()
    }

    /// The roots in force.
    #[must_use]
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        self.shared.bundle.load_full()
    }

    /// Our identity, once somebody has vouched for it.
    #[must_use]
    pub fn id(&self) -> Option<SpiffeId> {
        self.latest().map(|svid| svid.id.clone())
    }

    /// Changes whenever a certificate or roots come in force.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Waits until a certificate is in force that has not expired.
    pub async fn ready(&self) -> Arc<Svid> {
        let mut changes = self.changes.clone();
        loop {
            changes.borrow_and_update();
            if let Some(svid) = self.current() {
                return svid;
            }
            if changes.changed().await.is_err() {
                // Nobody publishes any more, so this never comes.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The time by the clock that certificates are held against.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        system_time(self.shared.clock.current_time().unwrap_or_else(UnixTime::now))
    }

    fn seen(&self) -> &seen::Seen {
        &self.shared.seen
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }
}

impl fmt::Debug for Svids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svids").field("svid", &self.latest()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests;
