//! Goes on with a rotation of the root, stage by stage, each once everybody has acknowledged the one before: every Pilot
//! and every proxy that is connected to one, by what they tell; every other CA; and whoever else holds a certificate, by
//! having asked for it anew.
//!
//! What has been done lies in the Secret and who holds what in the records, so every CA may go on at any time, also after
//! it was killed. Of several that do, one is faster, and the others find the step taken.

pub mod pilots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::messages::{Proxies, Rotation, SvidStatus};
use api::names::CA;
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use runtime::CancellationToken;
use runtime::svid::report::stamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::pilots::{Pilots, runs};
use crate::authority::{Authority, Plan, Policy};
use crate::holders::kept::Holders;
use crate::holders::{Holder, Ledger, Record, time};
use crate::store::{Step, Store, StoreError};

/// How often it is looked who has acknowledged.
const EVERY: Duration = Duration::from_millis(500);
/// The pause after a look, as a multiple of its own time, if that is longer.
const PAUSE: u32 = 4;
const RARELY: Duration = Duration::from_secs(5);
/// How often those that lag are asked to renew, and told of in the log.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Pods of records that are looked for at a time, as some of them may be gone.
const PODS_AT_A_TIME: usize = 32;
/// Most that are named.
const NAMED: usize = 20;

/// Who has not acknowledged the stage that a rotation is at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: usize,
    /// Some of them, in words.
    pub names: Vec<String>,
}

/// What goes on with rotations.
pub struct Rotator {
    /// The cluster.
    pub client: Client,
    /// Where the key is kept.
    pub store: Store,
    /// What certificates may be.
    pub policy: Policy,
    /// Who signs.
    pub authority: Arc<ArcSwap<Authority>>,
    /// Who holds what.
    pub holders: Holders,
    /// Whom proxies tell what they have.
    pub pilots: Pilots,
    /// This CA's pod.
    pub pod: String,
    /// Has the CA look at what is kept.
    pub look: Arc<Notify>,
    /// How often it has looked.
    pub looked: watch::Receiver<u64>,
    /// Where it says who lags.
    pub waiting: watch::Sender<Waiting>,
}

impl Rotator {
    /// Runs until cancelled.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let mut stage = Stage::default();
        let mut looked = self.looked.clone();
        // Where there are very many proxies, looking takes long, and is done less often.
        let mut every = EVERY;
        loop {
            let authority = self.authority.load_full();
            self.report_own(&authority).await;
            let pause = async {
                if authority.plan() == Plan::Idle {
                    // The sender lives as long as the process.
                    let _ = looked.changed().await;
                } else {
                    tokio::time::sleep(every).await;
                }
            };
            if cancelled.run_until_cancelled(pause).await.is_none() {
                return;
            }
            if authority.plan() == Plan::Idle {
                self.say(Waiting::default());
                continue;
            }
            let began = Instant::now();
            if cancelled.run_until_cancelled(self.go_on(&authority, &mut stage)).await.is_none() {
                return;
            }
            every = (began.elapsed() * PAUSE).clamp(EVERY, RARELY);
        }
    }

    /// Writes down what this CA itself has in force, for the others.
    async fn report_own(&self, authority: &Authority) {
        let record = Record {
            issuer: authority.issuer_key().to_owned(),
            bundle: authority.bundle().version(),
            ends: u64::MAX,
            id: "-".to_owned(),
        };
        self.holders.record(Holder::Ca(self.pod.clone()), record, None).await;
    }

    /// Takes the next step, if everybody has acknowledged the last one.
    async fn go_on(&mut self, authority: &Authority, stage: &mut Stage) {
        let is_new = stage.enter(authority);
        let lagging = self.lagging(authority, !is_new).await;
        if !lagging.is_empty() {
            if stage.is_time_to_ask(is_new) {
                self.pilots.ask_to_renew(authority).await;
            }
            let count = lagging.len();
            let waiting = Waiting { count, names: lagging.into_iter().take(NAMED).collect() };
            if stage.is_time_to_tell() {
                let who = waiting.names.join(", ");
                tracing::warn!(stage = ?authority.rotation(), count, who, "the rotation of the root waits");
            }
            self.say(waiting);
            return;
        }
        self.say(Waiting::default());
        let step = match (authority.rotation(), authority.plan()) {
            (Rotation::Added, _) => Step::Sign,
            (Rotation::Signing, _) => Step::Retire,
            (Rotation::None, Plan::Ending) => Step::Finish,
            (Rotation::None, _) => return,
        };
        let now = authority.now().unwrap_or_else(SystemTime::now);
        match self.store.rotate(step, &self.policy, now, authority.roots()).await {
            Ok(()) => tracing::info!(?step, "everybody has acknowledged; the rotation of the root goes on"),
            Err(error @ (StoreError::OutOfOrder { .. } | StoreError::Changed)) => {
                tracing::debug!(error = runtime::exit::chain(&error), "another CA was faster");
            }
            Err(error) => {
                let error = runtime::exit::chain(&error);
                tracing::warn!(error, ?step, "the rotation of the root cannot go on now");
                self.say(Waiting { count: 1, names: vec![format!("the API server: {error}")] });
            }
        }
        self.looked.mark_unchanged();
        self.look.notify_one();
        let _ = tokio::time::timeout(ASK_AGAIN, self.looked.changed()).await;
    }

    fn say(&self, waiting: Waiting) {
        self.waiting.send_if_modified(|before| {
            let has_changed = *before != waiting;
            *before = waiting;
            has_changed
        });
    }

    /// Who does not have today's roots, and a certificate by today's issuer. `is_late` looks whether they are still there.
    async fn lagging(&self, authority: &Authority, is_late: bool) -> BTreeSet<String> {
        let now = authority.now().unwrap_or_else(SystemTime::now);
        let mut lagging = BTreeSet::new();
        let mut connected = BTreeSet::new();
        match self.pilots.all(authority).await {
            Ok(pilots) => {
                for (pilot, answer) in pilots {
                    match answer {
                        Ok(proxies) => told(&proxies, authority, &mut lagging, &mut connected),
                        Err(error) => drop(lagging.insert(format!("{pilot} ({})", runtime::exit::chain(&error)))),
                    }
                }
            }
            Err(error) => drop(lagging.insert(format!("Pilot ({})", runtime::exit::chain(&error)))),
        }
        match self.holders.all(now).await {
            Ok(ledger) => {
                let recorded = behind(&ledger, authority);
                let recorded = self.still_there(recorded, &connected, is_late).await;
                lagging.extend(recorded.iter().map(|(holder, record)| words(holder, record)));
                lagging.extend(self.other_cas(&ledger, authority).await);
            }
            Err(error) => drop(lagging.insert(runtime::exit::chain(&error))),
        }
        lagging
    }

    /// Leaves out pods that are no more, or have ended: their keys went with them.
    async fn still_there(
        &self,
        recorded: Vec<(Holder, Record)>,
        connected: &BTreeSet<String>,
        is_late: bool,
    ) -> Vec<(Holder, Record)> {
        let mut looks = if is_late { PODS_AT_A_TIME } else { 0 };
        let mut left = Vec::new();
        for (holder, record) in recorded {
            let name = match &holder {
                Holder::Pod(name) => name.split_once('/').filter(|_| !connected.contains(&words(&holder, &record))),
                _ => None,
            };
            if let Some((namespace, name)) = name.filter(|_| looks > 0) {
                looks -= 1;
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                if matches!(&pods.get_opt(name).await, Ok(pod) if pod.as_ref().is_none_or(has_ended)) {
                    self.holders.forget(holder);
                    continue;
                }
            }
            left.push((holder, record));
        }
        left
    }

    /// The other CAs that do not have in force what this one has: they would sign with, or trust, something else.
    async fn other_cas(&self, ledger: &Ledger, authority: &Authority) -> Vec<String> {
        let pods = match self.pilots.pods(CA).await {
            Ok(pods) => pods,
            Err(error) => return vec![format!("the other CAs ({})", runtime::exit::chain(&error))],
        };
        let is_gone = |name: &String| !pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name));
        for (holder, _) in ledger.iter() {
            if matches!(holder, Holder::Ca(name) if *name != self.pod && is_gone(name)) {
                self.holders.forget(holder.clone());
            }
        }
        let names = pods.iter().filter(|pod| runs(pod)).filter_map(|pod| pod.metadata.name.clone());
        let follows = |name: &String| ledger.get(&Holder::Ca(name.clone())).is_some_and(|has| has.follows(authority));
        names.filter(|name| *name != self.pod && !follows(name)).collect()
    }
}

/// How long a stage has gone on.
#[derive(Default)]
struct Stage {
    of: Option<(String, String)>,
    asked: Option<Instant>,
    told: Option<Instant>,
}

impl Stage {
    /// Whether it begins now.
    fn enter(&mut self, authority: &Authority) -> bool {
        let of = Some((authority.bundle().version(), authority.issuer_key().to_owned()));
        if self.of == of {
            return false;
        }
        *self = Stage { of, asked: None, told: Some(Instant::now()) };
        true
    }

    fn is_time_to_ask(&mut self, is_new: bool) -> bool {
        let is_time = is_new || self.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if is_time {
            self.asked = Some(Instant::now());
        }
        is_time
    }

    fn is_time_to_tell(&mut self) -> bool {
        let is_time = self.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if is_time {
            self.told = Some(Instant::now());
        }
        is_time
    }
}

impl Record {
    fn follows(&self, authority: &Authority) -> bool {
        self.bundle == authority.bundle().version() && self.issuer == authority.issuer_key()
    }
}

/// What a Pilot tells of itself and of its proxies.
fn told(all: &Proxies, authority: &Authority, lagging: &mut BTreeSet<String>, connected: &mut BTreeSet<String>) {
    let bundle = authority.bundle().version();
    let follows = |svid: &SvidStatus| svid.bundle == bundle && svid.issuer == authority.issuer_key();
    if !all.svid.as_ref().is_some_and(follows) {
        lagging.insert(all.pilot.clone());
    }
    for proxy in &all.proxies {
        connected.insert(proxy.id.clone());
        // A stock Envoy has no identity of its own; who hands it one has a record.
        if !proxy.version.starts_with("envoy") && !proxy.svid.as_ref().is_some_and(follows) {
            lagging.insert(proxy.id.clone());
        }
    }
}

fn behind(ledger: &Ledger, authority: &Authority) -> Vec<(Holder, Record)> {
    let others = ledger.iter().filter(|(holder, _)| !matches!(holder, Holder::Ca(_)));
    let behind = others.filter(|(_, record)| !record.follows(authority));
    behind.map(|(holder, record)| (holder.clone(), record.clone())).collect()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A holder as people know it; a pod as Pilot calls its proxy.
fn words(holder: &Holder, record: &Record) -> String {
    let until = || stamp(time(record.ends));
    match holder {
        Holder::Ca(pod) => pod.clone(),
        Holder::Pod(name) => match name.split_once('/') {
            Some((namespace, name)) => format!("{name}.{namespace}"),
            None => name.clone(),
        },
        Holder::Leaf(serial) => format!("{} outside of pods (certificate {serial}, until {})", record.id, until()),
        Holder::Others(_) => format!("certificates without a record (until {})", until()),
    }
}
