//! Watches.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::{ApiError, ApiResult, Event, Reason, Store};

/// Reads the changes of some resources, or of all, from a version on.
pub struct Watch {
    store: Arc<Store>,
    /// Empty for all.
    resources: Vec<Arc<str>>,
    read_up_to: u64,
    ready: VecDeque<Event>,
    latest: watch::Receiver<u64>,
}

/// Number of changes that are taken out of the history at once.
const BATCH: usize = 64;

impl Watch {
    pub(super) fn start(store: &Arc<Store>, resources: &[&str], from: u64) -> ApiResult<Self> {
        let state = store.lock();
        if from < state.history_begins {
            return Err(expired(from, state.history_begins));
        }
        if from > state.version {
            // The caller knows another store, or this one before it was made anew.
            return Err(expired(from, state.version));
        }
        drop(state);
        let latest = store.latest.subscribe();
        Ok(Self {
            store: store.clone(),
            resources: resources.iter().map(|it| (*it).into()).collect(),
            read_up_to: from,
            ready: VecDeque::new(),
            latest,
        })
    }

    /// The next change. Cancelling it loses nothing.
    ///
    /// # Errors
    /// `Expired` when this watch was so slow that changes it has not read have been forgotten.
    pub async fn next(&mut self) -> ApiResult<Event> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            if self.latest.changed().await.is_err() {
                return Err(ApiError::new(Reason::ServiceUnavailable, "the store is closing"));
            }
        }
    }

    /// The next change if there is one already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> ApiResult<Option<Event>> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(Some(event));
        }
        self.latest.mark_unchanged();
        let state = self.store.lock();
        if self.read_up_to < state.history_begins {
            return Err(expired(self.read_up_to, state.history_begins));
        }
        let unread = state.history.partition_point(|event| event.version <= self.read_up_to);
        for event in state.history.range(unread..) {
            self.read_up_to = event.version;
            if self.resources.is_empty() || self.resources.contains(&event.resource) {
                self.ready.push_back(event.clone());
                if self.ready.len() == BATCH {
                    break;
                }
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The version up to which everything has been handed out: what a bookmark says.
    pub fn version(&self) -> u64 {
        self.ready.front().map_or(self.read_up_to, |next| next.version - 1)
    }
}

fn expired(asked: u64, begins: u64) -> ApiError {
    ApiError::new(
        Reason::Expired,
        format!("too old or unknown resource version: {asked} ({begins}); list again and watch from there"),
    )
}
