//! Steps of the wall clock: what counts time by it (tokens) has to be looked at again.

use std::time::Duration;

use tokio::time::Instant;

/// How often the clocks are compared.
const LOOK: Duration = Duration::from_secs(1);
/// The least difference that is a step, and not a clock that is being brought right slowly.
const STEP: Duration = Duration::from_secs(10);

/// Waits until the wall clock, as `wall` reads it, is set forward or back while it is waited.
pub(super) async fn stepped(wall: impl Fn() -> jiff::Timestamp) -> jiff::SignedDuration {
    let (mut then, mut at) = (wall(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let (now, elapsed) = (wall(), at.elapsed());
        let step = now.duration_since(then) - jiff::SignedDuration::try_from(elapsed).unwrap_or_default();
        if step.unsigned_abs() >= STEP {
            return step;
        }
        (then, at) = (now, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_in_either_direction_is_noticed_and_a_slow_clock_is_not() {
        for step in [90_000_i64, -90_000] {
            let (begun, offset) = (Instant::now(), AtomicI64::new(0));
            let wall = || {
                // It is late by a tenth of a second in each second, which is no step.
                let seconds = begun.elapsed().as_secs_f64() * 0.9;
                let offset = jiff::SignedDuration::from_secs(offset.load(Ordering::Relaxed));
                jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs_f64(1e9 + seconds) + offset
            };
            let watching = stepped(wall);
            tokio::pin!(watching);
            assert!(tokio::time::timeout(Duration::from_secs(600), &mut watching).await.is_err(), "there is no step");
            offset.store(step, Ordering::Relaxed);
            let noticed = tokio::time::timeout(LOOK * 2, &mut watching).await.expect("it is noticed at once");
            assert_eq!(noticed.as_secs().signum(), step.signum());
            assert!(noticed.as_secs().abs() > 89_000, "{noticed:?}");
        }
    }
}
