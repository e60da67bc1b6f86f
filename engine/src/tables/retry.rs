//! Compiled retry policies: which failures are tried again, how often, and after how long.

use std::time::Duration;

/// When a request is tried again.
#[derive(Debug, PartialEq)]
pub struct Retry {
    /// Which failures.
    pub on: RetryOn,
    /// How often at most, the first try not counted.
    pub attempts: u32,
    /// How long each try may take, from the end of the request; `None` is as long as the request may.
    pub per_try_timeout: Option<Duration>,
    /// The first back-off, which doubles with every try.
    pub base: Duration,
    /// The longest back-off.
    pub max: Duration,
    /// Whether endpoints that were tried are left out while there are others.
    pub avoids_tried: bool,
}

/// Which failures are tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// Every status from 500 to 599, and no answer at all. Asks for retries of every method.
    pub server_errors: bool,
    /// 502, 503 and 504, and no answer at all.
    pub gateway_errors: bool,
    /// No answer at all: the connection was closed or reset, or the try took too long.
    pub resets: bool,
    /// No connection could be made.
    pub connect_failures: bool,
    /// 409.
    pub conflicts: bool,
    /// These statuses, sorted.
    pub statuses: Box<[u16]>,
}

impl Retry {
    /// How long to wait before the `nth` retry, counted from 0: a random share of a bound that doubles each time.
    ///
    /// `random` is uniformly distributed over all its values.
    #[must_use]
    pub fn back_off(&self, nth: u32, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1u32.checked_shl(nth).unwrap_or(u32::MAX)).min(self.max);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(random) * u128::from(nanos)) >> 64) as u64)
    }
}

impl RetryOn {
    /// Whether a response with this status is tried again.
    ///
    /// A request that is not idempotent may have been processed by whoever answers with an error, so only
    /// [`RetryOn::server_errors`] tries it again.
    #[must_use]
    pub fn status(&self, status: u16, is_idempotent: bool) -> bool {
        let is_wanted = match status {
            500..=599 if self.server_errors => return true,
            502..=504 if self.gateway_errors => true,
            409 if self.conflicts => true,
            _ => self.statuses.binary_search(&status).is_ok(),
        };
        is_wanted && is_idempotent
    }

    /// Whether a request that was sent and not answered is tried again; whether it was processed nobody knows.
    #[must_use]
    pub fn reset(&self, is_idempotent: bool) -> bool {
        self.server_errors || (is_idempotent && (self.gateway_errors || self.resets))
    }

    /// Whether a request for which no connection could be made is tried again; nothing has been sent.
    #[must_use]
    pub fn connect_failure(&self) -> bool {
        self.server_errors || self.gateway_errors || self.connect_failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_depends_on_the_words_of_the_policy_and_on_the_method() {
        let server_errors = RetryOn { server_errors: true, ..RetryOn::default() };
        let gateway_errors = RetryOn { gateway_errors: true, ..RetryOn::default() };
        let resets = RetryOn { resets: true, ..RetryOn::default() };
        let connects = RetryOn { connect_failures: true, ..RetryOn::default() };
        let listed = RetryOn { statuses: [404, 500].into(), conflicts: true, ..RetryOn::default() };
        for (on, status, idempotent, other) in [
            (&server_errors, 500, true, true),
            (&server_errors, 599, true, true),
            (&server_errors, 499, false, false),
            (&server_errors, 200, false, false),
            (&gateway_errors, 500, false, false),
            (&gateway_errors, 503, true, false),
            (&resets, 503, false, false),
            (&listed, 404, true, false),
            (&listed, 409, true, false),
            (&listed, 501, false, false),
        ] {
            assert_eq!((on.status(status, true), on.status(status, false)), (idempotent, other), "{on:?} {status}");
        }
        for (on, idempotent, other, connect) in [
            (&server_errors, true, true, true),
            (&gateway_errors, true, false, true),
            (&resets, true, false, false),
            (&connects, false, false, true),
            (&listed, false, false, false),
        ] {
            assert_eq!((on.reset(true), on.reset(false), on.connect_failure()), (idempotent, other, connect), "{on:?}");
        }
    }

    #[test]
    fn the_back_off_doubles_within_its_bound_and_is_drawn_at_random() {
        let retry = Retry {
            on: RetryOn::default(),
            attempts: 9,
            per_try_timeout: None,
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
            avoids_tried: true,
        };
        for (nth, bound) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (31, 250), (32, 250), (u32::MAX, 250)] {
            assert_eq!(retry.back_off(nth, 0), Duration::ZERO);
            let longest = retry.back_off(nth, u64::MAX);
            let bound = Duration::from_millis(bound);
            assert!(longest < bound && longest > bound - Duration::from_millis(1), "{nth}: {longest:?}");
            assert_eq!(retry.back_off(nth, 1 << 63), bound / 2);
        }
    }
}
