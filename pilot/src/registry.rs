//! The one writer: takes in what sources say, and publishes what it amounts to.
//!
//! A change is published at once when things are quiet. After a snapshot the registry rests for a few times as long as
//! the snapshot took to make, and what comes meanwhile goes into the next one: so the busier it is, the larger the
//! batches, and no delay is fixed.

mod nodes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::model::Mesh;
use api::registry::{Id, Resource};
use runtime::CancellationToken;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use self::nodes::Nodes;
use crate::metrics::Metrics;
use crate::objects::{self, Objects};
use crate::snapshot::{Publisher, Snapshot};
use crate::source::{Change, key_of};

/// How long a first change waits for those that belong to it: an object and its service, ten objects of one file.
const SIBLINGS: Duration = Duration::from_millis(1);
/// Rest after a snapshot, in multiples of the time that it took to make: at most a fifth of the time goes into them.
const REST: u32 = 4;
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Most changes in one batch, so that a flood cannot put a snapshot off for ever.
const LARGEST_BATCH: usize = 10_000;

/// Everything that is known.
pub struct Registry {
    world: api::registry::Registry,
    nodes: Nodes,
    objects: Arc<Objects>,
    /// Resources of which the source has not said yet what there is.
    missing: BTreeSet<Resource>,
    /// Where the keys of issuers are: told to who fetches them.
    wanted_keys: watch::Sender<BTreeSet<String>>,
    /// Where they were fetched from at least once, well or not.
    tried_keys: BTreeSet<String>,
}

impl Registry {
    /// Nothing is known.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Registry {
            world: api::registry::Registry::new(mesh),
            nodes: Nodes::default(),
            objects: Arc::default(),
            missing: Resource::ALL.into_iter().collect(),
            wanted_keys: watch::Sender::default(),
            tried_keys: BTreeSet::new(),
        }
    }

    /// Where the keys of issuers are, for who fetches them.
    #[must_use]
    pub fn wanted_keys(&self) -> watch::Receiver<BTreeSet<String>> {
        self.wanted_keys.subscribe()
    }

    /// Tells who fetches keys which are wanted; whether one that was never tried is among them.
    fn want_keys(&mut self) -> bool {
        let uris = self.world.key_set_uris();
        self.tried_keys.retain(|uri| uris.contains(uri));
        let is_fetched = self.wanted_keys.receiver_count() > 0;
        let is_untried = uris.iter().any(|uri| !self.tried_keys.contains(uri));
        self.wanted_keys.send_if_modified(|known| {
            let differs = *known != uris;
            *known = uris;
            differs
        });
        is_fetched && is_untried
    }

    /// Takes in and publishes until cancelled, or until no source is left.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        cancelled: CancellationToken,
    ) {
        let mut rest_until = Instant::now();
        while let Some(Some(first)) = cancelled.run_until_cancelled(changes.recv()).await {
            let serial = publisher.current().serial + 1;
            self.take_in(first, serial);
            let mut batch = 1;
            let due = (Instant::now() + SIBLINGS).max(rest_until);
            while batch < LARGEST_BATCH {
                let Ok(Some(change)) = tokio::time::timeout_at(due, changes.recv()).await else { break };
                self.take_in(change, serial);
                batch += 1;
            }
            let is_awaiting_keys = self.want_keys();
            // The first snapshot does not take keys away from proxies that had them from the Pilot before.
            if !self.missing.is_empty() || (serial == 1 && is_awaiting_keys) {
                continue;
            }
            let begun = Instant::now();
            let snapshot = self.snapshot(&publisher.current());
            let problems = snapshot.objects.with_problems();
            publisher.publish(snapshot);
            let took = begun.elapsed();
            metrics.published(batch, took, problems);
            tracing::debug!(serial, changes = batch, ?took, "published");
            rest_until = Instant::now() + (took * REST).min(LONGEST_REST);
        }
    }

    /// Takes in one change, which will be part of the snapshot with this serial.
    pub fn take_in(&mut self, change: Change, serial: u64) {
        match change {
            Change::All(resource, objects) => {
                self.missing.remove(&resource);
                self.world.replace(resource, &objects);
                self.nodes.are_all_stale();
                if objects::is_ours(resource) {
                    Arc::make_mut(&mut self.objects).replace(resource, &objects, serial, &self.world);
                }
            }
            Change::Set(resource, object) => {
                self.world.apply(resource, &object);
                self.nodes.touched_by(resource, &object);
                if objects::is_ours(resource) {
                    Arc::make_mut(&mut self.objects).set(resource, &object, serial, &self.world);
                }
            }
            Change::KeySet(uri, fetched) => {
                self.world.take_key_set(&uri, fetched);
                self.tried_keys.insert(uri);
                Arc::make_mut(&mut self.objects).refresh(&self.world);
            }
            Change::Gone(resource, object) => {
                let id = Id { resource, key: key_of(&object) };
                self.world.remove(resource, &id.key);
                self.nodes.touched_by(resource, &object);
                if objects::is_ours(resource) {
                    Arc::make_mut(&mut self.objects).remove(&id, serial, &self.world);
                }
            }
        }
    }

    /// The snapshot after `before`.
    #[must_use]
    pub fn snapshot(&mut self, before: &Snapshot) -> Snapshot {
        let serial = before.serial + 1;
        let model = self.world.model();
        let mut tables = before.tables.clone();
        let changes = tables.update(&before.model, model, serial);
        self.nodes.refresh(&self.world);
        Snapshot {
            serial,
            model: Arc::new(model.clone()),
            nodes: self.nodes.current(),
            tables,
            log: before.log.with(changes),
            objects: self.objects.clone(),
        }
    }
}
