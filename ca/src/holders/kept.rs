//! Where the records are kept: in one ConfigMap, which every CA writes its own changes into.
//!
//! A certificate is handed out when its record is written, so that a CA that is killed has told of all its certificates.
//! Many that come at once are written at once. While the API server cannot be written to nobody is kept waiting: what is
//! not written yet stays in memory, is written later, and no rotation takes a step before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use api::names::{CA_HOLDERS, SYSTEM_NAMESPACE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use runtime::CancellationToken;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Damaged, Holder, Ledger, Record, seconds};

/// The ConfigMap's field.
const FIELD: &str = "holders";
/// For how long an answer waits for its record.
const WAIT: Duration = Duration::from_secs(5);
/// A write is followed by a pause of so many times its length, so that records cost little where there are very many.
const PAUSE: u32 = 10;
/// The shortest and the longest of such pauses.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// At the end it is over when for so long nobody has been issued to.
const QUIET: Duration = Duration::from_millis(300);
/// How long until a failed write is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is tried anew when another CA was faster.
const CONFLICTS: usize = 16;

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The API server cannot be asked, or does not let us.
    #[error("the ConfigMap {SYSTEM_NAMESPACE}/{CA_HOLDERS}, the record of who has certificates, cannot be {what}")]
    Api {
        /// `read` or `written`.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// It is no record.
    #[error("the ConfigMap {SYSTEM_NAMESPACE}/{CA_HOLDERS}, the record of who has certificates, is damaged")]
    Damaged(#[from] Damaged),
}

/// The records of a mesh. Clones share them.
#[derive(Clone)]
pub struct Holders {
    shared: Arc<Shared>,
}

struct Shared {
    maps: Api<ConfigMap>,
    pending: Mutex<Pending>,
    /// As it was read or written last.
    known: Mutex<Known>,
    has_changed: Notify,
    /// Number of the last change that is written.
    written: watch::Sender<u64>,
    is_failing: AtomicBool,
    /// What certificates are that were issued before there were records.
    before: Option<Record>,
    /// One write at a time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pending {
    changes: BTreeMap<Holder, Option<Record>>,
    number: u64,
}

#[derive(Default)]
struct Known {
    ledger: Ledger,
    version: Option<String>,
}

impl Holders {
    /// Those in this cluster. Where there is no record at all yet, `before` is what there may be without one.
    #[must_use]
    pub fn new(client: Client, before: Option<Record>) -> Self {
        let shared = Shared {
            maps: Api::namespaced(client, SYSTEM_NAMESPACE),
            pending: Mutex::default(),
            known: Mutex::default(),
            has_changed: Notify::new(),
            written: watch::Sender::new(0),
            is_failing: AtomicBool::new(false),
            before,
            writing: tokio::sync::Mutex::default(),
        };
        Holders { shared: Arc::new(shared) }
    }

    /// Writes down that `holder` has this, in place of what was issued with the serial number that it showed. Comes back
    /// when that is written, or cannot be for now.
    pub async fn record(&self, holder: Holder, record: Record, shown: Option<&str>) {
        let mut changes = vec![(holder, Some(record))];
        changes.extend(shown.map(|serial| (Holder::leaf(serial), None)));
        let Some(number) = self.change(changes) else { return };
        if self.shared.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let mut written = self.shared.written.subscribe();
        let waited = tokio::time::timeout(WAIT, written.wait_for(|written| *written >= number)).await;
        if waited.is_err() && !self.shared.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(limit = ?WAIT, "who has certificates cannot be written down in time; it will be, later");
        }
    }

    /// Writes down that a holder is no more.
    pub fn forget(&self, holder: Holder) {
        let _ = self.change([(holder, None)]);
    }

    /// Takes changes in, to be written; their number, unless there is nothing to write.
    fn change(&self, changes: impl IntoIterator<Item = (Holder, Option<Record>)>) -> Option<u64> {
        let is_writing = self.shared.writing.try_lock().is_err();
        let known = lock(&self.shared.known);
        let mut pending = lock(&self.shared.pending);
        let mut is_new = false;
        for (holder, record) in changes {
            let says_so = !is_writing
                && !pending.changes.contains_key(&holder)
                && match &record {
                    Some(record) => known.ledger.get(&holder) == Some(record) || known.ledger.covers(&holder, record),
                    None => known.version.is_some() && known.ledger.get(&holder).is_none(),
                };
            if !says_so {
                pending.changes.insert(holder, record);
                is_new = true;
            }
        }
        if !is_new {
            return None;
        }
        pending.number += 1;
        self.shared.has_changed.notify_one();
        Some(pending.number)
    }

    /// Writes changes as they come, until cancelled, and then those of the requests that are still answered.
    pub async fn run(self, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                () = cancelled.cancelled() => break,
                () = self.shared.has_changed.notified() => {}
            }
            let began = Instant::now();
            let pause = match self.write().await {
                Ok(()) => (began.elapsed() * PAUSE).clamp(PAUSES.0, PAUSES.1),
                Err(error) => {
                    self.failed(&error);
                    // What could not be written is still to be.
                    self.shared.has_changed.notify_one();
                    AGAIN
                }
            };
            if cancelled.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        let _ = self.write().await;
        while tokio::time::timeout(QUIET, self.shared.has_changed.notified()).await.is_ok() {
            if self.write().await.is_err() {
                return;
            }
        }
    }

    fn failed(&self, error: &LedgerError) {
        let was_failing = self.shared.is_failing.swap(true, Ordering::Relaxed);
        if !was_failing {
            tracing::warn!(error = runtime::exit::chain(error), "no root is rotated until that is mended");
        }
    }

    /// Everybody's records as they are now, with all of ours written.
    ///
    /// # Errors
    ///
    /// When they cannot be written and read.
    pub async fn all(&self, now: SystemTime) -> Result<Ledger, LedgerError> {
        // Nobody else writes until it is copied.
        let _one = self.shared.writing.lock().await;
        lock(&self.shared.known).version = None;
        self.write_alone().await?;
        let mut ledger = lock(&self.shared.known).ledger.clone();
        ledger.forget_ended(now);
        Ok(ledger)
    }

    /// Writes what is pending, on top of what other CAs have written.
    async fn write(&self) -> Result<(), LedgerError> {
        let _one = self.shared.writing.lock().await;
        self.write_alone().await
    }

    async fn write_alone(&self) -> Result<(), LedgerError> {
        let (changes, number) = {
            let mut pending = lock(&self.shared.pending);
            (std::mem::take(&mut pending.changes), pending.number)
        };
        let outcome = self.merge(&changes).await;
        if outcome.is_ok() {
            self.shared.written.send_if_modified(|written| std::mem::replace(written, number) != number);
            if self.shared.is_failing.swap(false, Ordering::Relaxed) {
                tracing::info!("who has certificates is written down again");
            }
        } else {
            let mut pending = lock(&self.shared.pending);
            for (holder, record) in changes {
                pending.changes.entry(holder).or_insert(record);
            }
        }
        outcome
    }

    async fn merge(&self, changes: &BTreeMap<Holder, Option<Record>>) -> Result<(), LedgerError> {
        let mut attempt = 0;
        loop {
            // While it is being written nobody has use for it, and it may be large.
            let known = std::mem::take(&mut *lock(&self.shared.known));
            let (mut ledger, version) = match known.version {
                Some(version) => (known.ledger, Some(version)),
                None => self.read().await?,
            };
            let is_shorter = ledger.forget_ended(SystemTime::now());
            for (holder, record) in changes {
                ledger.put(holder.clone(), record.clone());
            }
            if version.is_some() && changes.is_empty() && !is_shorter {
                *lock(&self.shared.known) = Known { ledger, version };
                return Ok(());
            }
            match self.replace(&ledger, version.as_deref()).await {
                Ok(version) => {
                    *lock(&self.shared.known) = Known { ledger, version };
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && attempt < CONFLICTS => {
                    attempt += 1;
                }
                Err(error) => return Err(LedgerError::Api { what: "written", source: Box::new(error) }),
            }
        }
    }

    /// The records and their version; without a version where there are none yet.
    async fn read(&self) -> Result<(Ledger, Option<String>), LedgerError> {
        let found = self.shared.maps.get_opt(CA_HOLDERS).await;
        let found = found.map_err(|error| LedgerError::Api { what: "read", source: Box::new(error) })?;
        let Some(map) = found else {
            let mut ledger = Ledger::default();
            if let Some(before) = self.shared.before.clone().filter(|before| before.ends > seconds(SystemTime::now())) {
                ledger.put(Holder::Others(before.issuer.clone()), Some(before));
            }
            return Ok((ledger, None));
        };
        let text = map.data.as_ref().and_then(|data| data.get(FIELD)).map(String::as_str).unwrap_or_default();
        Ok((text.parse()?, Some(map.metadata.resource_version.unwrap_or_default())))
    }

    async fn replace(&self, ledger: &Ledger, version: Option<&str>) -> Result<Option<String>, kube::Error> {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(CA_HOLDERS.to_owned()),
                namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "mesh".to_owned())])),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(FIELD.to_owned(), ledger.text())])),
            ..ConfigMap::default()
        };
        let params = PostParams::default();
        let written = match version {
            Some(_) => self.shared.maps.replace(CA_HOLDERS, &params, &map).await?,
            None => self.shared.maps.create(&params, &map).await?,
        };
        Ok(written.metadata.resource_version)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holders").finish_non_exhaustive()
    }
}
