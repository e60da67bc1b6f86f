//! What the streams of one HTTP/2 connection may have waiting for its peer, all together.
//!
//! Two things are counted. What has been handed to the codec goes out as soon as the socket takes it, so streams that find
//! the budget spent wait for it in turn: it comes back whatever the windows of the streams are. What a stream holds because
//! its own turn or window has not come may last; it never stops another stream, which only reads less at a time then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Bytes that a connection's codec may hold, and bytes that streams may have read ahead.
pub(crate) const BUDGET: usize = 1024 * 1024;
/// What a stream takes in its turn when the budget is spent, and what it reads when much has been read ahead.
pub(crate) const LEAST: usize = 16 * 1024;

/// The budget of one connection. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// What may still be handed to the codec.
    unspent: Arc<Semaphore>,
    /// What streams hold that wait.
    ahead: Arc<AtomicUsize>,
}

/// A stream's place among those that wait for the budget.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Made when the stream waits for the first time.
    waiting: Option<PollSemaphore>,
    /// What it waits for; nothing if it does not wait.
    asked: u32,
}

/// Bytes that the codec has; they come back to the budget as they go out, or are thrown away.
#[derive(Debug)]
pub(crate) struct Spent {
    bytes: Bytes,
    of: Option<Arc<Semaphore>>,
}

/// What a stream holds that waits; comes back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    of: Option<Arc<AtomicUsize>>,
    bytes: usize,
}

impl Budget {
    /// All of it is left.
    pub(crate) fn new() -> Self {
        Budget { unspent: Arc::new(Semaphore::new(BUDGET)), ahead: Arc::default() }
    }

    /// Spends `most` bytes, or fewer after a wait.
    pub(crate) fn poll_spend(&self, cx: &mut Context<'_>, most: usize, turn: &mut Turn) -> Poll<usize> {
        let asked = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        if turn.asked == 0 {
            if let Ok(spent) = self.unspent.try_acquire_many(asked(most)) {
                spent.forget();
                return Poll::Ready(most);
            }
            turn.asked = asked(LEAST.min(most));
        }
        let waiting = turn.waiting.get_or_insert_with(|| PollSemaphore::new(Arc::clone(&self.unspent)));
        // It is never closed.
        let Some(permit) = ready!(waiting.poll_acquire_many(cx, turn.asked)) else { return Poll::Pending };
        turn.asked = 0;
        let spent = permit.num_permits();
        permit.forget();
        // What may be sent can have become less meanwhile.
        self.unspent.add_permits(spent.saturating_sub(most));
        Poll::Ready(spent.min(most))
    }

    /// What has been spent, as bytes for the codec.
    pub(crate) fn spent(&self, bytes: Bytes) -> Spent {
        Spent { bytes, of: Some(Arc::clone(&self.unspent)) }
    }

    /// How much a stream may read at a time.
    pub(crate) fn may_read(&self) -> usize {
        if self.ahead.load(Ordering::Relaxed) < BUDGET { usize::MAX } else { LEAST }
    }
}

impl Spent {
    /// A few bytes that are of no budget.
    pub(crate) fn free(bytes: Bytes) -> Self {
        Spent { bytes, of: None }
    }
}

impl Buf for Spent {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(of) = &self.of {
            of.add_permits(count);
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.add_permits(self.bytes.len());
        }
    }
}

impl Ahead {
    /// Counts `bytes` as held from now on, instead of what was held before.
    pub(crate) fn hold(&mut self, bytes: usize, budget: &Budget) {
        let of = self.of.get_or_insert_with(|| Arc::clone(&budget.ahead));
        of.fetch_add(bytes, Ordering::Relaxed);
        of.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }

    /// Holds nothing any more.
    pub(crate) fn let_go(&mut self) {
        if self.bytes > 0
            && let Some(of) = &self.of
        {
            of.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &Budget, most: usize, turn: &mut Turn) -> Poll<usize> {
        budget.poll_spend(&mut Context::from_waker(std::task::Waker::noop()), most, turn)
    }

    #[test]
    fn who_finds_the_budget_spent_waits_in_turn_for_what_goes_out() {
        let budget = Budget::new();
        assert_eq!(spend(&budget, BUDGET - 10, &mut Turn::default()), Poll::Ready(BUDGET - 10));
        let mut all = budget.spent(Bytes::from(vec![0; BUDGET - 10]));
        let (mut first, mut second) = (Turn::default(), Turn::default());
        assert_eq!(spend(&budget, 64 * 1024, &mut first), Poll::Pending);
        assert_eq!(spend(&budget, 20, &mut second), Poll::Pending);
        assert_eq!(spend(&budget, 5, &mut Turn::default()), Poll::Pending, "those who wait have come before");
        all.advance(LEAST);
        assert_eq!(spend(&budget, 64 * 1024, &mut first), Poll::Ready(LEAST));
        assert_eq!(spend(&budget, 20, &mut second), Poll::Pending);
        all.advance(30);
        assert_eq!(spend(&budget, 20, &mut second), Poll::Ready(20));
    }

    #[test]
    fn what_is_thrown_away_or_left_over_comes_back_and_who_waits_no_more_takes_nothing() {
        let budget = Budget::new();
        assert_eq!(spend(&budget, BUDGET, &mut Turn::default()), Poll::Ready(BUDGET));
        let mut gone = Turn::default();
        assert_eq!(spend(&budget, 100, &mut gone), Poll::Pending);
        drop(gone);
        drop(budget.spent(Bytes::from(vec![0; BUDGET])));
        assert_eq!(budget.unspent.available_permits(), BUDGET);
        drop(Spent::free(Bytes::from_static(b"few")));
        assert_eq!(budget.unspent.available_permits(), BUDGET);
    }

    #[test]
    fn where_much_waits_streams_read_little() {
        let budget = Budget::new();
        let mut ahead = Ahead::default();
        ahead.hold(BUDGET - 1, &budget);
        assert_eq!(budget.may_read(), usize::MAX);
        ahead.hold(BUDGET, &budget);
        assert_eq!(budget.may_read(), LEAST);
        ahead.let_go();
        assert_eq!(budget.may_read(), usize::MAX);
        ahead.hold(BUDGET, &budget);
        drop(ahead);
        assert_eq!(budget.may_read(), usize::MAX);
    }
}
