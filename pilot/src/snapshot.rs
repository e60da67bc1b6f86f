//! What all proxies should have, at one moment: immutable, numbered, and shared by all who read it.
//!
//! A snapshot is made from the one before it and what changed, and costs what changed: resources that are the same for
//! every proxy are generated and encoded once per version, and kept in maps that share what did not change. Resources
//! that depend on who asks are generated for the proxy that asks ([`View`]).

mod changes;
mod tables;
mod view;

use std::sync::Arc;

use api::model::{Key, Model, Node};
use arc_swap::ArcSwap;
use engine::tables::NameMap;
use tokio::sync::watch;

pub use self::changes::{Changes, Log};
pub use self::tables::Tables;
pub use self::view::View;
use crate::objects::Objects;

/// What all proxies should have, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Grows by one with every snapshot of this process.
    pub serial: u64,
    /// What everything is generated from.
    pub model: Arc<Model>,
    /// What a proxy in each pod is configured for, by `namespace/name`.
    pub nodes: NameMap<Arc<Node>>,
    /// Resources that are the same for all proxies of a role.
    pub tables: Tables,
    /// What the last snapshots changed.
    pub log: Log,
    /// The objects that it was made from, with their problems.
    pub objects: Arc<Objects>,
}

impl Snapshot {
    /// What a proxy in this pod is configured for, if the pod is known.
    #[must_use]
    pub fn node(&self, pod: &Key) -> Option<&Arc<Node>> {
        self.nodes.get_str(&pod.to_string())
    }

    /// The snapshot before the first: nothing is known.
    #[must_use]
    pub fn empty() -> Self {
        Snapshot {
            serial: 0,
            model: Arc::default(),
            nodes: NameMap::default(),
            tables: Tables::default(),
            log: Log::default(),
            objects: Arc::default(),
        }
    }
}

/// Where the current snapshot is. One writes ([`Publisher`]), everybody else reads. Clones share it.
#[derive(Debug, Clone)]
pub struct Snapshots {
    current: Arc<ArcSwap<Snapshot>>,
    serial: watch::Receiver<u64>,
}

/// The right to publish the next snapshot.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    serial: watch::Sender<u64>,
}

/// Begins with the empty snapshot.
#[must_use]
pub fn channel() -> (Publisher, Snapshots) {
    let current = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
    let (sender, receiver) = watch::channel(0);
    (Publisher { current: current.clone(), serial: sender }, Snapshots { current, serial: receiver })
}

impl Publisher {
    /// Puts a snapshot in the place of the current one and wakes those who wait.
    pub fn publish(&self, snapshot: Snapshot) {
        let serial = snapshot.serial;
        self.current.store(Arc::new(snapshot));
        self.serial.send_replace(serial);
    }

    /// The current snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

impl Snapshots {
    /// The current snapshot. Take it once per piece of work.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A receiver that is marked changed whenever there is a new snapshot; it holds the snapshot's serial.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.serial.clone()
    }

    /// Whether the first snapshot is there: every source has said all it has.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.serial.borrow() > 0
    }
}
