//! What is in force: one writer compiles resources as they come, many readers take the tables without a lock.
//!
//! Resources are put in force together once nothing refers to what has not come yet (make before break): a route that
//! names a new cluster waits for the cluster and its endpoints, and a cluster that is taken away stays until no route
//! names it. What does not come in time is waited for no longer.

mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use engine::Kind;
use engine::compile::Compiler;
use engine::tables::Tables;
use tokio::sync::watch;

use self::waiting::Waiting;

/// A handle on what is in force. Clones share it.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

struct Shared {
    tables: Arc<ArcSwap<Tables>>,
    writer: Mutex<Writer>,
    in_force: watch::Sender<InForce>,
}

/// How far what has come is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InForce {
    /// Number of times that tables have been swapped.
    pub swaps: u64,
    /// The swap at which a first configuration was complete.
    pub complete_at: Option<u64>,
}

impl InForce {
    /// Whether a first configuration is complete and in force.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.complete_at.is_some()
    }
}

#[derive(Default)]
struct Writer {
    compiler: Compiler,
    waiting: Waiting,
    /// Kinds of which at least one response has come.
    heard: BTreeSet<Kind>,
}

/// Resources of one kind that have come together.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// New and changed ones.
    pub resources: Vec<Incoming>,
    /// Names of those that are gone, or that were asked for and do not exist.
    pub removed: Vec<String>,
}

/// A resource as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// What became of an update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Resources that were refused, with the reason; what was in force under their names stays.
    pub refused: Vec<(String, String)>,
    /// Whether the rest is in force now; else it waits, see [`Snapshots::missing`].
    pub is_in_force: bool,
}

/// A resource that is held, for those who ask what the proxy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// A resource whose last version was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version that was refused.
    pub version: String,
    /// Why.
    pub error: String,
}

impl Default for Snapshots {
    fn default() -> Self {
        Snapshots::new()
    }
}

impl Snapshots {
    /// Nothing is in force yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            tables: Arc::new(ArcSwap::from_pointee(Tables::default())),
            writer: Mutex::new(Writer::default()),
            in_force: watch::Sender::new(InForce::default()),
        };
        Snapshots { shared: Arc::new(shared) }
    }

    /// The tables in force, as the data path reads them.
    #[must_use]
    pub fn tables(&self) -> &Arc<ArcSwap<Tables>> {
        &self.shared.tables
    }

    /// How far what has come is in force.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        *self.shared.in_force.borrow()
    }

    /// Wakes whoever waits each time that tables are swapped.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<InForce> {
        self.shared.in_force.subscribe()
    }

    /// Takes an update in: refuses what it does not understand, by name, and puts the rest in force as soon as nothing
    /// is missing.
    pub fn apply(&self, kind: Kind, update: &Update) -> Applied {
        let mut writer = self.writer();
        writer.heard.insert(kind);
        let mut refused = Vec::new();
        for incoming in &update.resources {
            let Incoming { name, version, body } = incoming;
            match writer.compiler.update(kind, name, version, body) {
                Ok(()) => writer.note(kind, name, false),
                Err(why) => refused.push((name.clone(), why.to_string())),
            }
        }
        for name in &update.removed {
            writer.compiler.remove(kind, name);
            writer.note(kind, name, true);
        }
        Applied { refused, is_in_force: self.swap_if_whole(&writer) }
    }

    /// Drops resources that nothing asks for any more.
    pub fn forget(&self, kind: Kind, names: &[String]) {
        let mut writer = self.writer();
        for name in names {
            writer.compiler.remove(kind, name);
            writer.note(kind, name, false);
        }
        self.swap_if_whole(&writer);
    }

    /// Waits no longer for what is missing: puts in force what there is, and names what is missing.
    pub fn give_up_waiting(&self) -> Vec<String> {
        let mut writer = self.writer();
        let missing = writer.waiting.missing();
        writer.waiting.give_up();
        self.swap_if_whole(&writer);
        missing
    }

    /// What the resources in hand wait for.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.writer().waiting.missing()
    }

    /// The kinds that come unasked and of which nothing has been heard yet.
    #[must_use]
    pub fn unheard(&self) -> Vec<Kind> {
        let writer = self.writer();
        [Kind::Listener, Kind::Cluster].into_iter().filter(|kind| !writer.heard.contains(kind)).collect()
    }

    /// Names of the kind that the resources in hand refer to.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        self.writer().compiler.wanted(kind)
    }

    /// Versions of the resources in hand, by name: what a server need not send again.
    #[must_use]
    pub fn versions(&self, kind: Kind) -> HashMap<String, String> {
        let writer = self.writer();
        writer.compiler.accepted(kind).map(|(name, held)| (name.to_owned(), held.version.clone())).collect()
    }

    /// The resources in hand, by name.
    #[must_use]
    pub fn held(&self, kind: Kind) -> Vec<Held> {
        let writer = self.writer();
        let held = writer.compiler.accepted(kind).map(|(name, held)| Held {
            name: name.to_owned(),
            version: held.version.clone(),
            body: held.body.clone(),
        });
        held.collect()
    }

    /// The resources whose last version was refused.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let writer = self.writer();
        let refused = writer.compiler.rejected().map(|(kind, name, rejected)| Refused {
            kind,
            name: name.to_owned(),
            version: rejected.version.clone(),
            error: rejected.why.to_string(),
        });
        refused.collect()
    }

    /// How many resources of each kind are in hand.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let writer = self.writer();
        Kind::ALL.into_iter().map(|kind| (kind, writer.compiler.accepted(kind).count())).collect()
    }

    fn swap_if_whole(&self, writer: &Writer) -> bool {
        if !writer.waiting.is_over() {
            return false;
        }
        self.shared.tables.store(Arc::new(writer.compiler.tables()));
        self.shared.in_force.send_modify(|in_force| {
            in_force.swaps += 1;
            if writer.heard.contains(&Kind::Listener) && writer.heard.contains(&Kind::Cluster) {
                in_force.complete_at.get_or_insert(in_force.swaps);
            }
        });
        true
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn note(&mut self, kind: Kind, name: &str, is_denied: bool) {
        let tables = self.compiler.tables();
        self.waiting.note(&tables, kind, name, is_denied);
    }
}

#[cfg(test)]
mod tests;
