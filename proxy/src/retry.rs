//! Whether a request is tried again, within its route's policy and its cluster's budget.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::tables::{Cluster, Retry, Usage, take_one};
use tokio::time::Instant;

use crate::upstream::dice;
use crate::way::Target;

/// Request bodies up to this size are kept, so that they can be sent again.
pub(crate) const MAX_REPLAY: usize = 64 * 1024;

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No connection could be made, or the endpoint refused the request unseen.
    Connect,
    /// It was sent and not answered.
    Reset,
    /// It was answered with this status.
    Status(u16),
}

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Tries<'t> {
    policy: Option<&'t Retry>,
    cluster: &'t Cluster,
    is_idempotent: bool,
    /// Retries so far.
    made: u32,
    active: Option<ActiveRetry>,
    tried: Vec<SocketAddr>,
    /// Whether the request failed though its policy would have it tried again.
    pub(crate) is_exceeded: bool,
}

impl<'t> Tries<'t> {
    /// The tries of a request to a cluster under a policy.
    #[must_use]
    pub(crate) fn new(policy: Option<&'t Retry>, cluster: &'t Cluster, is_idempotent: bool) -> Self {
        Tries { policy, cluster, is_idempotent, made: 0, active: None, tried: Vec::new(), is_exceeded: false }
    }

    /// Whether the policy has requests sent again that an endpoint may have seen.
    #[must_use]
    pub(crate) fn has_policy(&self) -> bool {
        self.policy.is_some()
    }

    /// Whether the policy counts connections that cannot be made as tries.
    #[must_use]
    pub(crate) fn counts_connects(&self) -> bool {
        self.policy.is_some_and(|policy| policy.on.connect_failure())
    }

    /// The endpoints that another try leaves out while there are others.
    #[must_use]
    pub(crate) fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }

    /// Takes down that an endpoint takes nothing now: whatever the policy, another one may do better.
    pub(crate) fn avoid(&mut self, target: &Target) {
        self.tried.push(target.way.address);
    }

    /// Takes down that an endpoint is tried.
    pub(crate) fn tries(&mut self, target: &Target) {
        if self.policy.is_some_and(|policy| policy.avoids_tried) {
            self.tried.push(target.way.address);
        }
    }

    /// Whether the request is tried again after this, which is then counted.
    pub(crate) fn again(&mut self, lost: Lost) -> bool {
        let Some(policy) = self.policy else { return false };
        let is_wanted = match lost {
            Lost::Connect => policy.on.connect_failure(),
            Lost::Reset => policy.on.reset(self.is_idempotent),
            Lost::Status(status) => policy.on.status(status, self.is_idempotent),
        };
        if !is_wanted {
            return false;
        }
        let usage = &self.cluster.usage;
        self.active = None;
        let refused = if self.made >= policy.attempts {
            &usage.retries_exhausted
        } else {
            self.active = ActiveRetry::begin(self.cluster);
            match self.active {
                Some(_) => {
                    self.made += 1;
                    usage.retried.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                None => &usage.retries_refused,
            }
        };
        refused.fetch_add(1, Ordering::Relaxed);
        self.is_exceeded = true;
        false
    }

    /// Says that the request will not be tried again, though it may go on for long.
    pub(crate) fn settle(&mut self) {
        self.active = None;
    }

    /// How long to wait before the try that [`Tries::again`] allowed.
    #[must_use]
    pub(crate) fn back_off(&self) -> Duration {
        self.policy.map_or(Duration::ZERO, |policy| policy.back_off(self.made.saturating_sub(1), dice()))
    }
}

/// Counts a retry at its cluster while it lives.
#[derive(Debug)]
struct ActiveRetry(Arc<Usage>);

impl ActiveRetry {
    /// One more, if the cluster's budget allows it.
    fn begin(cluster: &Cluster) -> Option<Self> {
        let usage = &cluster.usage;
        let bound = cluster.spec.limits.retries.bound(usage.requests.load(Ordering::Relaxed));
        take_one(&usage.retries, bound).then(|| ActiveRetry(Arc::clone(usage)))
    }
}

impl Drop for ActiveRetry {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a request and each of its tries may take, from the end of the request.
#[derive(Debug)]
pub(crate) struct Clock {
    total: Option<Duration>,
    per_try: Option<Duration>,
    ends: Option<Instant>,
}

impl Clock {
    /// A clock that does not run yet.
    #[must_use]
    pub(crate) fn new(total: Option<Duration>, retry: Option<&Retry>) -> Self {
        Clock { total, per_try: retry.and_then(|retry| retry.per_try_timeout), ends: None }
    }

    /// Runs from now on, if it does not yet.
    pub(crate) fn start(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = self.total.and_then(|total| now.checked_add(total));
        }
    }

    /// How long the answer to a try may take whose request has been sent now.
    pub(crate) fn sent(&mut self, now: Instant) -> Option<Duration> {
        self.start(now);
        let left = self.left(now);
        match (left, self.per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }

    /// What is left of the request's time; `None` is for ever.
    #[must_use]
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(now))
    }

    /// Whether the try's time has passed rather than the request's, when one of them has.
    #[must_use]
    pub(crate) fn is_try_over(&self, now: Instant) -> bool {
        self.per_try.is_some() && self.left(now) != Some(Duration::ZERO)
    }
}
