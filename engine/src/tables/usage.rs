//! What is open to a cluster at one time, and how much of it there may be.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Waiting;

/// Bounds on what is open to a cluster at one time; Envoy's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries.
    pub retries: RetryLimit,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 1024, pending: 1024, requests: 1024, retries: RetryLimit::AtMost(3) }
    }
}

/// How many retries there may be at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryLimit {
    /// So many.
    AtMost(u32),
    /// A share of the requests that are active.
    Share {
        /// The share, in hundredths of a percent.
        per_myriad: u32,
        /// So many there may always be.
        at_least: u32,
    },
}

impl RetryLimit {
    /// The bound while so many requests are active.
    #[must_use]
    pub fn bound(self, active: u32) -> u32 {
        match self {
            RetryLimit::AtMost(bound) => bound,
            RetryLimit::Share { per_myriad, at_least } => {
                let share = u64::from(active) * u64::from(per_myriad) / 10_000;
                u32::try_from(share).unwrap_or(u32::MAX).max(at_least)
            }
        }
    }
}

/// Counters of one cluster. The engine makes and reads them; the data path writes them. They survive updates.
#[derive(Debug, Default)]
pub struct Usage {
    /// Connections that are open or being made.
    pub connections: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: AtomicU32,
    /// Those of them that wait until there may be another connection.
    pub waiting: Waiting,
    /// Connections so far that were made.
    pub connected: AtomicU64,
    /// Connections so far that could not be made.
    pub connects_failed: AtomicU64,
    /// Opaque connections so far that there were too many of at one time.
    pub connections_refused: AtomicU64,
    /// Requests so far that there were too many of waiting.
    pub pending_refused: AtomicU64,
    /// Requests so far that there were too many of at one time.
    pub requests_refused: AtomicU64,
    /// Requests that are active.
    pub requests: AtomicU32,
    /// Retries that are active.
    pub retries: AtomicU32,
    /// Retries so far.
    pub retried: AtomicU64,
    /// Retries so far that there were too many of at one time.
    pub retries_refused: AtomicU64,
    /// Requests so far that had been tried as often as their route allows when they failed.
    pub retries_exhausted: AtomicU64,
}

/// Takes one of what `bound` limits; `false` if there is none left.
#[must_use]
pub fn take_one(counter: &AtomicU32, bound: u32) -> bool {
    let before = counter.fetch_add(1, Ordering::Relaxed);
    if before >= bound {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
    before < bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_of_retries_grows_with_the_requests_but_is_never_less_than_its_floor() {
        let share = RetryLimit::Share { per_myriad: 2000, at_least: 3 };
        for (active, bound) in [(0, 3), (15, 3), (20, 4), (1000, 200), (u32::MAX, u32::MAX / 5)] {
            assert_eq!(share.bound(active), bound, "{active} active");
        }
        assert_eq!(RetryLimit::AtMost(7).bound(1000), 7);
    }

    #[test]
    fn no_more_are_taken_than_there_may_be() {
        let counter = AtomicU32::new(0);
        let taken = (0..5).filter(|_| take_one(&counter, 3)).count();
        assert_eq!((taken, counter.load(Ordering::Relaxed)), (3, 3));
    }
}
