//! One timer per connection, which is moved as seldom as possible.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A deadline that may be set for every request: the timer behind it is touched only when it would ring too late.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the deadline to `after` from `now`; `None` sets none.
    pub(crate) fn set(&mut self, now: Instant, after: Option<Duration>) {
        self.at = after.and_then(|after| now.checked_add(after));
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rings(deadline: &mut Deadline) -> Duration {
        let begun = Instant::now();
        std::future::poll_fn(|cx| deadline.poll(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_rings_at_its_last_place() {
        let mut deadline = Deadline::default();
        deadline.set(Instant::now(), Some(Duration::from_secs(1)));
        assert!(futures_util::poll!(std::future::poll_fn(|cx| deadline.poll(cx))).is_pending());
        deadline.set(Instant::now(), Some(Duration::from_secs(5)));
        assert_eq!(rings(&mut deadline).await.as_secs(), 5);
        deadline.set(Instant::now(), Some(Duration::from_secs(2)));
        assert_eq!(rings(&mut deadline).await.as_secs(), 2);
    }
}
