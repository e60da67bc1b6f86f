//! Goes on with a rotation of the root, stage by stage, each once everybody has acknowledged the one before: every Pilot
//! and every proxy that is connected to one, by what they tell; every other CA; and whoever else holds a certificate, by
//! having asked for it anew.
//!
//! Other roots that somebody plugged in, and other names of the trust domain, are made known in the same way, as soon as a CA
//! has them in force. Once everybody accepts today's name, it is issued in it, and all are asked to renew once more.
//!
//! What has been done lies in the Secret and who holds what in the records, so every CA may go on at any time, also after
//! it was killed. Of several that do, one is faster, and the others find the step taken.

pub mod pilots;
mod wanted;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::messages::Rotation;
use api::names::CA;
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use runtime::CancellationToken;
use runtime::svid::report::stamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::pilots::{Pilots, runs};
use self::wanted::Wanted;
use crate::authority::{Authority, Plan, Policy};
use crate::holders::kept::Holders;
use crate::holders::{Holder, Ledger, Record, time};
use crate::naming::Naming;
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

impl Waiting {
    /// For these.
    fn for_these(names: BTreeSet<String>) -> Self {
        Waiting { count: names.len(), names: names.into_iter().take(NAMED).collect() }
    }

    /// For the CA, which has not looked yet.
    #[must_use]
    pub fn at_first(pod: &str) -> Self {
        Waiting { count: 1, names: vec![format!("{pod}, which has just started")] }
    }
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
    /// In which name is issued.
    pub naming: Naming,
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
        // What is known to have been made known to everybody.
        let mut spread = None;
        loop {
            let authority = self.authority.load_full();
            self.report_own(&authority).await;
            let is_idle = authority.plan() == Plan::Idle && spread == Some(Wanted::of(&authority, &self.naming));
            let pause = async {
                if is_idle {
                    // The sender lives as long as the process.
                    let _ = looked.changed().await;
                } else {
                    tokio::time::sleep(every).await;
                }
            };
            if cancelled.run_until_cancelled(pause).await.is_none() {
                return;
            }
            if is_idle {
                self.say(Waiting::default());
                continue;
            }
            let began = Instant::now();
            match cancelled.run_until_cancelled(self.go_on(&authority, &mut stage)).await {
                None => return,
                Some(None) => {}
                Some(acknowledged) => spread = acknowledged,
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
            id: if authority.policy().aliases.is_empty() {
                "-".to_owned()
            } else {
                self.naming.domain(authority.policy()).to_string()
            },
        };
        self.holders.record(Holder::Ca(self.pod.clone()), record, None).await;
    }

    /// Takes the next step, if everybody has acknowledged the last one. Gives what that was.
    async fn go_on(&mut self, authority: &Authority, stage: &mut Stage) -> Option<Wanted> {
        let wanted = Wanted::of(authority, &self.naming);
        if authority.plan() == Plan::Idle && self.is_spread(authority, &wanted).await {
            self.say(Waiting::default());
            return Some(wanted);
        }
        let is_new = stage.enter(&wanted);
        let Lagging { names, is_connected } = self.lagging(authority, &wanted, !is_new).await;
        if !names.is_empty() {
            if is_connected && stage.is_time_to_ask(is_new) {
                self.pilots.ask_to_renew(authority).await;
            }
            let waiting = Waiting::for_these(names);
            let count = waiting.count;
            if stage.is_time_to_tell() {
                let who = waiting.names.join(", ");
                match authority.plan() {
                    Plan::Idle => tracing::warn!(count, who, "not everybody has the roots and names in force yet"),
                    _ => tracing::warn!(stage = ?authority.rotation(), count, who, "the rotation of the root waits"),
                }
            }
            self.say(waiting);
            return None;
        }
        if !self.naming.is_known() {
            // Who is to take the name is told before it is given, so that nobody sees an end between the two.
            let renamed = wanted.renamed(authority.policy());
            self.say(Waiting::for_these(self.lagging(authority, &renamed, false).await.names));
            self.naming.everybody_knows();
            let domain = &authority.policy().domain;
            tracing::info!(%domain, "everybody accepts this name of the trust domain; certificates are issued in it");
            self.report_own(authority).await;
            return None;
        }
        self.say(Waiting::default());
        if authority.plan() != Plan::Idle {
            self.step(authority).await;
            return None;
        }
        Some(wanted)
    }

    /// Takes the next step of a rotation, which everybody is ready for.
    async fn step(&mut self, authority: &Authority) {
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

    /// Whether there is nothing to be made known: the trust domain has one name, and nobody is known to have other roots.
    async fn is_spread(&self, authority: &Authority, wanted: &Wanted) -> bool {
        let now = authority.now().unwrap_or_else(SystemTime::now);
        let behind = |ledger: &Ledger| behind(ledger, wanted).iter().any(|(holder, _)| !holder.is_unknown());
        wanted.names.is_empty() && self.holders.all(now).await.is_ok_and(|ledger| !behind(&ledger))
    }

    /// Who does not have what is wanted. `is_late` looks whether they are still there.
    async fn lagging(&self, authority: &Authority, wanted: &Wanted, is_late: bool) -> Lagging {
        let now = authority.now().unwrap_or_else(SystemTime::now);
        let mut lagging = BTreeSet::new();
        let mut connected = BTreeSet::new();
        let mut is_connected = false;
        match self.pilots.all(authority).await {
            Ok(pilots) => {
                for (pilot, answer) in pilots {
                    match answer {
                        Ok(proxies) => {
                            let behind = wanted.lacking(&proxies);
                            is_connected |= !behind.is_empty();
                            lagging.extend(behind);
                            connected.extend(proxies.proxies.into_iter().map(|proxy| proxy.id));
                        }
                        Err(error) => drop(lagging.insert(format!("{pilot} ({})", runtime::exit::chain(&error)))),
                    }
                }
            }
            Err(error) => drop(lagging.insert(format!("Pilot ({})", runtime::exit::chain(&error)))),
        }
        match self.holders.all(now).await {
            Ok(ledger) => {
                let recorded = behind(&ledger, wanted);
                let recorded = self.still_there(recorded, &connected, is_late).await;
                lagging.extend(recorded.iter().map(|(holder, record)| words(holder, record)));
                lagging.extend(self.other_cas(&ledger, wanted).await);
            }
            Err(error) => drop(lagging.insert(runtime::exit::chain(&error))),
        }
        Lagging { names: lagging, is_connected }
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
    async fn other_cas(&self, ledger: &Ledger, wanted: &Wanted) -> Vec<String> {
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
        let follows = |name: &String| ledger.get(&Holder::Ca(name.clone())).is_some_and(|has| wanted.trusts(has));
        names.filter(|name| *name != self.pod && !follows(name)).collect()
    }
}

/// How long a stage has gone on.
#[derive(Default)]
struct Stage {
    of: Option<Wanted>,
    asked: Option<Instant>,
    told: Option<Instant>,
}

impl Stage {
    /// Whether it begins now.
    fn enter(&mut self, wanted: &Wanted) -> bool {
        if self.of.as_ref() == Some(wanted) {
            return false;
        }
        *self = Stage { of: Some(wanted.clone()), asked: None, told: Some(Instant::now()) };
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

/// Who does not have what everybody should have.
struct Lagging {
    /// In words.
    names: BTreeSet<String>,
    /// Whether some of them are reached through Pilot.
    is_connected: bool,
}

fn behind(ledger: &Ledger, wanted: &Wanted) -> Vec<(Holder, Record)> {
    let others = ledger.iter().filter(|(holder, _)| !matches!(holder, Holder::Ca(_)));
    let behind = others.filter(|(_, record)| !wanted.is_had(record));
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
