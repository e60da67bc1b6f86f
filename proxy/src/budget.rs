//! What the streams of one HTTP/2 connection may have waiting for its peer, all together.
//!
//! Two things are counted. Of what has been handed to the codec all streams share a budget, and each has a little of its own
//! when that is spent: whatever holds the budget up, a window that the peer has taken back say, stops no other stream. What a
//! stream holds because its window or its own part has not come back never stops another stream either, which only reads less
//! at a time then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Bytes that a connection's codec may hold, and bytes that streams may have read ahead.
pub(crate) const BUDGET: usize = 1024 * 1024;
/// What a stream may have with the codec when the budget is spent, and what it reads when much has been read ahead.
pub(crate) const LEAST: usize = 16 * 1024;

/// The budget of one connection. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// What may still be handed to the codec.
    unspent: Arc<Semaphore>,
    /// What streams hold that wait.
    ahead: Arc<AtomicUsize>,
}

/// What a stream has for itself when the budget is spent.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Made when it is needed for the first time.
    left: Option<PollSemaphore>,
    /// What is waited for; nothing if the stream does not wait.
    asked: u32,
}

/// Leave to hand bytes to the codec.
#[derive(Debug)]
pub(crate) struct Share {
    /// How many.
    pub(crate) bytes: usize,
    of: Arc<Semaphore>,
}

/// Bytes that the codec has; what they were taken from has them back as they go out, or are thrown away.
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

    /// A share of `most` bytes; fewer, after a wait for what the stream itself has handed over, when the budget is spent.
    pub(crate) fn poll_share(&self, cx: &mut Context<'_>, most: usize, own: &mut Own) -> Poll<Share> {
        let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        if own.asked == 0 {
            if let Ok(permit) = self.unspent.try_acquire_many(count(most)) {
                permit.forget();
                return Poll::Ready(Share { bytes: most, of: Arc::clone(&self.unspent) });
            }
            // One half is filled while the other goes out.
            own.asked = count((LEAST / 2).min(most));
        }
        let left = own.left.get_or_insert_with(|| PollSemaphore::new(Arc::new(Semaphore::new(LEAST))));
        // It is never closed.
        let Some(permit) = ready!(left.poll_acquire_many(cx, own.asked)) else { return Poll::Pending };
        own.asked = 0;
        // What may be sent can have become less meanwhile.
        let bytes = permit.num_permits().min(most);
        left.clone_inner().add_permits(permit.num_permits() - bytes);
        permit.forget();
        Poll::Ready(Share { bytes, of: left.clone_inner() })
    }

    /// How much a stream may read at a time.
    pub(crate) fn may_read(&self) -> usize {
        if self.ahead.load(Ordering::Relaxed) < BUDGET { usize::MAX } else { LEAST }
    }
}

impl Share {
    /// The bytes that it is used for, as the codec has them.
    pub(crate) fn spend(self, bytes: Bytes) -> Spent {
        Spent { bytes, of: Some(self.of) }
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

    fn share(budget: &Budget, most: usize, own: &mut Own) -> Option<Share> {
        match budget.poll_share(&mut Context::from_waker(std::task::Waker::noop()), most, own) {
            Poll::Ready(share) => Some(share),
            Poll::Pending => None,
        }
    }

    fn bytes(count: usize) -> Bytes {
        Bytes::from(vec![0; count])
    }

    #[test]
    fn who_finds_the_budget_spent_goes_on_with_what_is_its_own() {
        let budget = Budget::new();
        let all = share(&budget, BUDGET, &mut Own::default()).expect("all is there").spend(bytes(BUDGET));
        let (mut first, mut second) = (Own::default(), Own::default());
        let take = |own: &mut Own| share(&budget, 64 * 1024, own).map(|share| share.bytes);
        let mut sent = share(&budget, 64 * 1024, &mut first).expect("half of its own").spend(bytes(LEAST / 2));
        let other = share(&budget, 64 * 1024, &mut first).expect("the other half");
        assert_eq!(other.bytes, LEAST / 2);
        assert_eq!(take(&mut first), None);
        assert_eq!(take(&mut second), Some(LEAST / 2), "another stream has its own");
        sent.advance(LEAST / 2 - 1);
        assert_eq!(take(&mut first), None);
        sent.advance(1);
        assert_eq!(take(&mut first), Some(LEAST / 2));
        drop(all);
        assert_eq!(take(&mut first), Some(64 * 1024), "the budget is back");
    }

    #[test]
    fn what_is_thrown_away_or_not_used_comes_back() {
        let budget = Budget::new();
        let left = || budget.unspent.available_permits();
        let mut half = share(&budget, BUDGET, &mut Own::default()).expect("all is there").spend(bytes(BUDGET));
        half.advance(BUDGET / 2);
        assert_eq!(left(), BUDGET / 2);
        drop(half);
        assert_eq!(left(), BUDGET);
        drop(Spent::free(Bytes::from_static(b"few")));
        assert_eq!(left(), BUDGET);
        let _all = share(&budget, BUDGET, &mut Own::default()).expect("all is there").spend(bytes(BUDGET));
        let mut own = Own::default();
        let (first, second) = (share(&budget, LEAST, &mut own), share(&budget, LEAST, &mut own));
        assert!(share(&budget, LEAST, &mut own).is_none(), "it waits for half");
        drop(first.map(|share| share.spend(bytes(LEAST / 2))));
        let share = share(&budget, 10, &mut own).expect("half is back, of which ten may be sent");
        assert_eq!(share.bytes, 10);
        drop((share.spend(bytes(10)), second.map(|share| share.spend(bytes(LEAST / 2)))));
        assert_eq!(own.left.map(|left| left.available_permits()), Some(LEAST));
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
