//! Gets the first certificate, and renews it at half its life for as long as the process runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::spiffe::SpiffeId;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Authority, RequestError};
use super::wire::CertificateRequest;
use super::{Bundle, BundleError, Key, KeyKind, PeerVerifier, Peers, Publisher, Svid, SvidError, channel_with_clock};

/// Wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// For so long after the start it is in order that there is no certificate yet: the CA may be starting too.
const LATE: Duration = Duration::from_secs(10);
/// The wall clock is looked at so often, as it may jump and timers do not notice.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Share of a certificate's life after which it is renewed, and by how much that varies, so that a mesh that started
/// together does not renew together.
const RENEW_AFTER: (f64, f64) = (0.5, 0.1);

/// What keeps a process's certificate fresh.
pub struct Renewal {
    /// Whom to ask.
    pub authority: Authority,
    /// Namespace and service account that we are.
    pub account: (String, String),
    /// Which kind of key to make.
    pub key: KeyKind,
    /// For how long certificates should hold; the CA decides if it is `None`.
    pub lifetime: Option<Duration>,
    /// Where they go.
    pub publisher: Publisher,
    /// How it goes.
    pub status: Status,
}

/// Why a renewal has failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// No key.
    #[error("no key can be made")]
    Key(#[from] rcgen::Error),
    /// No answer, or a refusal.
    #[error("there is no new certificate")]
    Request(#[from] RequestError),
    /// The answer's certificate cannot be ours.
    #[error("the new certificate cannot be used")]
    Svid(#[from] SvidError),
    /// The answer's roots cannot be used.
    #[error("the new roots cannot be used")]
    Bundle(#[from] BundleError),
}

/// How renewals go. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Status {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: watch::Sender<Progress>,
    now: Notify,
}

/// How renewals have gone so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Certificates received.
    pub renewals: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
}

impl Status {
    /// How it has gone so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.seen.borrow().clone()
    }

    /// Waits until the first attempt has succeeded or failed.
    pub async fn first_outcome(&self) {
        let mut seen = self.shared.seen.subscribe();
        // The sender lives as long as this does.
        let _ = seen.wait_for(|progress| progress.renewals > 0 || progress.failures > 0).await;
    }

    /// Has the certificate renewed now, whatever its age.
    pub fn renew_now(&self) {
        self.shared.now.notify_one();
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.shared.seen.send_modify(change);
    }
}

impl Renewal {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let began = Instant::now();
        let mut failures = 0u32;
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.attempt() => outcome,
            };
            let now = self.publisher.svids().now();
            let wait = match outcome {
                Ok(svid_left) => {
                    failures = 0;
                    share(svid_left, rand::random())
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let wait = back_off(failures, rand::random());
                    self.report(&error, wait, began.elapsed());
                    wait
                }
            };
            let due = now + wait;
            self.status.update(|progress| progress.next = Some(due));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.status.shared.now.notified() => {}
                () = self.until(due, wait, failures > 0) => {}
            }
        }
    }

    /// One request, published when it succeeds. Gives how long the certificate holds.
    async fn attempt(&self) -> Result<Duration, RenewalError> {
        let svids = self.publisher.svids();
        let key = Key::generate(self.key)?;
        let asked = svids.id();
        let request = CertificateRequest {
            csr: key.request(asked.as_ref())?,
            validity_duration: self.lifetime.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            metadata: None,
        };
        let answer = self.authority.request(&svids, request).await?;
        let svid = Svid::new(answer.chain, key)?;
        self.check_identity(&svid.id)?;
        let domain = svid.id.trust_domain();
        let aliases: Vec<_> = answer.domains.into_iter().filter(|alias| *alias != domain).collect();
        let bundle = Bundle::from_pem(&domain, &aliases, answer.roots.as_bytes())?;
        let left = self.check(&svid, &bundle)?;
        tracing::info!(id = %svid.id, serial = svid.serial, left = ?left, "a new certificate is in force");
        self.publisher.publish(svid, bundle);
        self.status.update(|progress| {
            progress.renewals += 1;
            progress.error = None;
        });
        Ok(left)
    }

    fn check_identity(&self, got: &SpiffeId) -> Result<(), SvidError> {
        let (namespace, account) = (self.account.0.as_str(), self.account.1.as_str());
        if got.account() == Some((namespace, account)) {
            return Ok(());
        }
        let expected = SpiffeId::of_account(&got.trust_domain(), namespace, account).unwrap_or_else(|_| got.clone());
        Err(SvidError::NotOurs { expected, got: got.clone() })
    }

    /// Holds the certificate against the roots that came with it, by our own clock, as every peer will.
    fn check(&self, svid: &Svid, bundle: &Bundle) -> Result<Duration, SvidError> {
        let clock = self.publisher.svids().clock();
        let (publisher, svids) = channel_with_clock(Arc::clone(&clock));
        publisher.publish_bundle(bundle.clone());
        let now = clock.current_time().unwrap_or_else(rustls_pki_types::UnixTime::now);
        let verifier = PeerVerifier::new(svids, Peers::Members);
        for as_server in [true, false] {
            verifier.verify(&svid.chain, now, as_server).map_err(SvidError::Unverified)?;
        }
        Ok(svid.left(super::system_time(now)))
    }

    /// Waits for `wait`, or until it is `due` by the wall clock, or until the certificate has expired by it.
    async fn until(&self, due: SystemTime, wait: Duration, is_failing: bool) {
        let deadline = Instant::now() + wait;
        let svids = self.publisher.svids();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let has_expired = !is_failing && svids.latest().is_some() && svids.current().is_none();
            if left.is_zero() || svids.now() >= due || has_expired {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    fn report(&self, error: &RenewalError, wait: Duration, running: Duration) {
        let reason = crate::exit::chain(error);
        let svids = self.publisher.svids();
        let left = svids.current().map(|svid| svid.left(svids.now()));
        match left {
            None if svids.latest().is_none() && running < LATE => {
                tracing::info!(reason, again_in = ?wait, "there is no certificate yet");
            }
            Some(left) => tracing::warn!(reason, ?left, again_in = ?wait, "the certificate cannot be renewed now"),
            None => tracing::error!(reason, again_in = ?wait, "there is no valid certificate, and none can be had now"),
        }
        self.status.update(|progress| {
            progress.failures += 1;
            progress.error = Some(reason);
        });
    }
}

/// How long to wait before a certificate that holds for `left` is renewed; `random` varies it.
fn share(left: Duration, random: f64) -> Duration {
    let (middle, spread) = RENEW_AFTER;
    left.mul_f64(middle + spread * (random - 0.5))
}

/// How long to wait after so many failures in a row.
fn back_off(failures: u32, random: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX));
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_around_the_middle_of_its_life() {
        let day = Duration::from_secs(86_400);
        for (random, hours) in [(0.0, 10.8), (0.5, 12.0), (1.0, 13.2)] {
            let wait = share(day, random).as_secs_f64() / 3600.0;
            assert!((wait - hours).abs() < 0.01, "{random} gives {wait} h");
        }
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_limit() {
        assert_eq!(back_off(1, 1.0), FIRST_WAIT);
        assert_eq!(back_off(2, 1.0), FIRST_WAIT * 2);
        assert_eq!(back_off(40, 1.0), LONGEST_WAIT);
        assert_eq!(back_off(40, 0.0), LONGEST_WAIT / 2);
    }
}
