//! The proxies that are connected to this Pilot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::messages::{ProxyStatus, Rejected, SvidStatus, TrafficStatus};
use runtime::CancellationToken;
use tokio::sync::watch;

use super::identity::Identity;
use super::state::ProxyState;
use crate::snapshot::Changes;

/// Streams that one proxy may have: one, and one more while it restarts. A further one ends the oldest.
const STREAMS_PER_PROXY: usize = 2;
/// Streams of all proxies together.
const MOST_STREAMS: usize = 20_000;

/// All connected proxies. Clones share them.
#[derive(Debug, Clone)]
pub struct Proxies {
    streams: Arc<Mutex<BTreeMap<u64, Arc<Proxy>>>>,
    /// Goes up whenever a proxy comes, goes, or gets further.
    progress: Arc<watch::Sender<u64>>,
}

/// One stream of one proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Who it is.
    pub identity: Identity,
    /// When it connected.
    since: jiff::Timestamp,
    /// Its identity, as it told last.
    svid: Mutex<Option<SvidStatus>>,
    /// How much of its traffic is by mutual TLS, as it told last.
    traffic: Mutex<Option<TrafficStatus>>,
    /// What it has.
    state: Mutex<ProxyState>,
    /// Cancelled when a newer stream of the same proxy takes over.
    superseded: CancellationToken,
}

/// How far a proxy is with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The change is nothing to it.
    Unconcerned,
    /// It has not acknowledged it yet.
    Waiting,
    /// It has it.
    Applied,
    /// It refuses it, in these words.
    Refused(String),
}

/// Too many streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_STREAMS} proxies are connected, which is the limit; start more replicas of Pilot")]
pub struct Full;

/// Removes the stream when it ends.
#[derive(Debug)]
pub struct Connected {
    proxies: Proxies,
    number: u64,
    /// The stream's proxy.
    pub proxy: Arc<Proxy>,
}

impl Default for Proxies {
    fn default() -> Self {
        Proxies { streams: Arc::default(), progress: Arc::new(watch::Sender::new(0)) }
    }
}

impl Proxies {
    /// Notes a new stream. It is there until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// When there are too many.
    pub fn connect(&self, identity: Identity) -> Result<Connected, Full> {
        let proxy = Arc::new(Proxy {
            identity,
            since: jiff::Timestamp::now(),
            svid: Mutex::default(),
            traffic: Mutex::default(),
            state: Mutex::default(),
            superseded: CancellationToken::new(),
        });
        let mut streams = lock(&self.streams);
        let own = streams
            .values()
            .filter(|other| other.identity.pod == proxy.identity.pod && !other.superseded.is_cancelled());
        let own: Vec<&Arc<Proxy>> = own.collect();
        if own.len() >= STREAMS_PER_PROXY {
            // The map is in the order of connecting.
            own[0].superseded.cancel();
        }
        if streams.len() >= MOST_STREAMS {
            return Err(Full);
        }
        let number = streams.last_key_value().map_or(0, |(last, _)| last + 1);
        streams.insert(number, proxy.clone());
        drop(streams);
        self.made_progress();
        Ok(Connected { proxies: self.clone(), number, proxy })
    }

    /// Every proxy once, by its newest stream.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Proxy>> {
        let streams = lock(&self.streams);
        let newest: BTreeMap<String, &Arc<Proxy>> =
            streams.values().map(|proxy| (proxy.identity.id(), proxy)).collect();
        newest.into_values().cloned().collect()
    }

    /// Number of streams.
    #[must_use]
    pub fn streams(&self) -> usize {
        lock(&self.streams).len()
    }

    /// Wakes those who wait for proxies to get further.
    pub fn made_progress(&self) {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A receiver that is marked changed whenever a proxy comes, goes, or gets further.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }
}

impl Proxy {
    /// What it has. Held for moments only.
    pub fn state(&self) -> MutexGuard<'_, ProxyState> {
        lock(&self.state)
    }

    /// Takes note of the identity and the traffic that it tells.
    pub fn introduced(&self, svid: Option<SvidStatus>, traffic: Option<TrafficStatus>) {
        *lock(&self.svid) = svid;
        *lock(&self.traffic) = traffic;
    }

    /// Whether it has told of an identity, as our proxies do.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        lock(&self.svid).is_some()
    }

    /// Waits until a newer stream of the same proxy takes over.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// The proxy as the CLI shows it.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        ProxyStatus {
            id: self.identity.id(),
            role: self.identity.role().to_owned(),
            ip: self.identity.address.to_string(),
            version: self.identity.version.clone(),
            connected_since: self.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            svid: lock(&self.svid).clone(),
            traffic: *lock(&self.traffic),
            types: self.state().status(),
        }
    }

    /// How far the proxy is with what a snapshot changed.
    #[must_use]
    pub fn progress(&self, changes: &Changes) -> Progress {
        let state = self.state();
        let concerned = || changes.names.iter().filter(|(kind, name)| state.wants(*kind, name));
        if state.settled() < changes.serial {
            let is_concerned = changes.everything || concerned().next().is_some();
            return if is_concerned { Progress::Waiting } else { Progress::Unconcerned };
        }
        if let Some(reason) = concerned().find_map(|(kind, name)| state.refusal(*kind, name)) {
            return Progress::Refused(reason.to_owned());
        }
        let has_changed =
            |kind, name: &str| state.changed_at(kind, name).is_some_and(|serial| serial >= changes.serial);
        let is_concerned = changes.everything || concerned().any(|(kind, name)| has_changed(*kind, name));
        if is_concerned { Progress::Applied } else { Progress::Unconcerned }
    }

    /// A refusal as answers carry it.
    #[must_use]
    pub fn refused(&self, reason: String) -> Rejected {
        Rejected { resource: self.identity.id(), error: reason }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        lock(&self.proxies.streams).remove(&self.number);
        self.proxies.made_progress();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
