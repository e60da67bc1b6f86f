//! Series by their labels, no more than so many: further kinds of traffic are counted together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;

use super::labels::Labels;

/// How many series there are, and may be, of all families together.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    limit: usize,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Room { taken: AtomicUsize::new(0), limit }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn take(&self) -> bool {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The series of one family.
#[derive(Debug, Default)]
pub(super) struct Bounded<S> {
    series: Mutex<HashMap<Labels, Arc<S>, FixedState>>,
}

/// The value of every label of the series that counts what there was no room for.
const OVERFLOW: &str = "overflow";

impl<S: Default> Bounded<S> {
    /// The series with these labels, or the one for all that there is no room for; and whether it is that one.
    pub(super) fn find(&self, mut labels: Labels, room: &Room) -> (Arc<S>, bool) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(&labels) {
            return (Arc::clone(series), false);
        }
        let is_over = !room.take();
        if is_over {
            for (_, value) in &mut labels {
                OVERFLOW.clone_into(value);
            }
        }
        (Arc::clone(all.entry(labels).or_default()), is_over)
    }

    /// All series, in the order of their labels.
    pub(super) fn sorted(&self) -> Vec<(Labels, Arc<S>)> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = all.iter().map(|(labels, series)| (labels.clone(), Arc::clone(series))).collect();
        drop(all);
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        sorted
    }
}
