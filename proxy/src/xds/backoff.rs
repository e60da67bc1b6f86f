//! How long to wait before the next attempt to reach Pilot.

use std::time::Duration;

/// Waits that double from fast to slow, each shortened by up to half at random, so that proxies that lost the same
/// Pilot do not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);
/// The longest wait of a proxy that has no configuration yet: an application waits for it.
const LONGEST_WITHOUT: Duration = Duration::from_secs(1);

impl Backoff {
    /// Forgets past failures: Pilot has answered.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure; `dice` is from 0 to 1.
    pub(super) fn next(&mut self, is_configured: bool, dice: f64) -> Duration {
        let longest = if is_configured { LONGEST } else { LONGEST_WITHOUT };
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(true, 0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.next(true, 1.0), Duration::from_millis(25));
    }

    #[test]
    fn a_proxy_without_configuration_is_never_long_in_coming() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(false, 0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    }
}
