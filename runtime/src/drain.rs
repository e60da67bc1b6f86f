//! Leaving in order: stop accepting, finish what runs, and cut what is left at the deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// The state of leaving, shared by all who accept or serve. Clones are handles on the same state.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// What the token says, to be read for every request: a token takes a lock for that.
    is_draining: Arc<AtomicBool>,
    draining: CancellationToken,
    cut: CancellationToken,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Everything that ran has finished.
    Finished,
    /// The deadline has passed; these tasks were cut.
    Cut(Vec<(&'static str, usize)>),
}

impl Drain {
    /// Nothing drains yet.
    #[must_use]
    pub fn new() -> Self {
        Drain::default()
    }

    /// Whether new work is refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Begins to drain. Does nothing the second time.
    pub fn start(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.draining.cancel();
    }

    /// Waits until the drain begins: stop accepting, say so to peers, close what is idle.
    pub async fn started(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until the deadline has passed: drop what still runs.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// The token behind [`Drain::started`], for APIs that want one to wait for; [`Drain::start`] is what cancels it.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.draining
    }

    /// Drains, waits for `tasks` for at most `grace`, and then cuts what is left.
    ///
    /// Tasks that serve must end by themselves when idle after [`Drain::started`], and at once after [`Drain::cut`].
    pub async fn run(&self, tasks: &Tasks, grace: Duration) -> Drained {
        self.start();
        if tokio::time::timeout(grace, tasks.join()).await.is_ok() {
            self.cut.cancel();
            return Drained::Finished;
        }
        let left = tasks.running();
        self.cut.cancel();
        // Cut tasks end as soon as they are polled; one that does not is not waited for.
        let _ = tasks.stop(CUT_GRACE).await;
        Drained::Cut(left)
    }
}

const CUT_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_finishes_in_time_is_waited_for() {
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let seen = drain.clone();
        tasks.spawn("request", async move {
            seen.started().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        assert_eq!(drain.run(&tasks, Duration::from_secs(5)).await, Drained::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_cut_at_the_deadline() {
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let seen = drain.clone();
        tasks.spawn("request", async move { seen.cut().await });
        let begun = tokio::time::Instant::now();
        assert_eq!(drain.run(&tasks, Duration::from_secs(5)).await, Drained::Cut(vec![("request", 1)]));
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }
}
