//! Idle upstream connections, kept per endpoint and thread for the next request.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::conn::{Conn, Counted};
use crate::way::Way;

/// Applications commonly close a connection that has been idle for five seconds or more; the proxy is first.
const IDLE: Duration = Duration::from_secs(4);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Idle connections kept per endpoint and shard.
const KEPT: usize = 256;
/// After so long the kernel is asked whether a connection still lives; before, the runtime knows.
const FRESH: Duration = Duration::from_millis(50);
pub(crate) const SHARDS: usize = 16;

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

/// Each thread has a shard of its own, so that no other waits for its lock (until there are more threads than shards).
pub(crate) fn shard() -> usize {
    SHARD.with(|shard| {
        shard.get().unwrap_or_else(|| {
            let mine = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(mine));
            mine
        })
    })
}

struct Idle {
    conn: Conn,
    since: Instant,
}

type Shard = HashMap<Way, Vec<Idle>, FixedState>;

/// Idle upstream connections.
#[derive(Default)]
pub(crate) struct Pool {
    shards: [Mutex<Shard>; SHARDS],
    filled: Notify,
}

impl Pool {
    /// Takes the connection to an endpoint that was used last, if one still lives.
    ///
    /// With `surely` the kernel is asked, too: for requests that cannot be sent a second time.
    pub(crate) fn take(&self, way: &Way, surely: bool) -> Option<Conn> {
        take(self.shards.get(shard())?, way, surely)
    }

    /// Takes a connection to an endpoint that any thread has kept: for when there may be no more of them.
    pub(crate) fn take_anywhere(&self, way: &Way) -> Option<Conn> {
        self.shards.iter().find_map(|shard| take(shard, way, true))
    }

    /// Keeps a connection whose last exchange is complete. One with bytes left in it is dropped.
    pub(crate) fn give(&self, way: &Way, mut conn: Conn) {
        if !conn.rx.is_empty() || !conn.is_flushed() {
            return;
        }
        conn.park();
        let Some(shard) = self.shards.get(shard()) else { return };
        let mut shard = lock(shard);
        let is_first = shard.is_empty();
        let kept = match shard.get_mut(way) {
            Some(kept) => kept,
            None => shard.entry(way.clone()).or_default(),
        };
        if kept.len() < KEPT {
            kept.push(Idle { conn, since: Instant::now() });
        }
        let freed = kept.last().and_then(|idle| idle.conn.counted.as_ref()).map(Counted::freed);
        drop((shard, freed));
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Closes all of them.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let closed = std::mem::take(&mut *lock(shard));
            drop(closed);
        }
    }

    /// Number of idle connections.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).values().map(Vec::len).sum::<usize>()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes connections that have been idle for too long or were closed by the other side; never ends.
    ///
    /// Sleeps without waking as long as the pool is empty.
    pub(crate) async fn sweep(&self) {
        loop {
            if self.is_empty() {
                self.filled.notified().await;
            }
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            for shard in &self.shards {
                lock(shard).retain(|_, kept| {
                    kept.retain_mut(|idle| now.duration_since(idle.since) < IDLE && idle.conn.is_live(false));
                    !kept.is_empty()
                });
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.len())
    }
}

fn take(shard: &Mutex<Shard>, way: &Way, surely: bool) -> Option<Conn> {
    loop {
        // A connection that is not taken is closed after the lock has been given back.
        let mut idle = lock(shard).get_mut(way)?.pop()?;
        let age = idle.since.elapsed();
        if age < IDLE && idle.conn.is_live(surely || age > FRESH) {
            return Some(idle.conn);
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
