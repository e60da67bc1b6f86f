//! The users' objects by name: which version of each is in force since which snapshot, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use api::model::Key;
use api::problem::Problem;
use api::registry::{Id, Registry, Resource};
use serde_json::Value as Json;

use crate::source::key_of;

/// Deletions that are remembered, for those who wait for one to be applied.
const DELETIONS: usize = 1024;

/// Whether objects of the resource are the users' own kinds, whose state is shown.
#[must_use]
pub(crate) fn is_ours(resource: Resource) -> bool {
    resource.is_ours()
}

/// What is known of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectState {
    /// The API server's version of it.
    pub resource_version: String,
    /// The API server's count of changes to its spec.
    pub generation: Option<i64>,
    /// Serial of the snapshot with which its spec came into force.
    pub serial: u64,
    /// Whether it is used.
    pub is_accepted: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Conditions that stand in its status.
    pub conditions: Json,
    /// What it says, to tell a change of it from one of its status.
    pub(crate) spec: Arc<Json>,
}

impl ObjectState {
    /// Whether this is the version asked for, or a later one.
    #[must_use]
    pub fn has_reached(&self, version: &str) -> bool {
        match (self.resource_version.parse::<u64>(), version.parse::<u64>()) {
            (Ok(known), Ok(asked)) => known >= asked,
            _ => self.resource_version == version,
        }
    }
}

/// All objects of our kinds.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    known: BTreeMap<Arc<Id>, Arc<ObjectState>>,
    deleted: VecDeque<(Arc<Id>, u64)>,
}

impl Objects {
    /// What is known of an object.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<&ObjectState> {
        self.known.get(id).map(|state| &**state)
    }

    /// The serial of the snapshot that is without the object, if its deletion is remembered.
    #[must_use]
    pub fn deleted_at(&self, id: &Id) -> Option<u64> {
        self.deleted.iter().rev().find(|(deleted, _)| **deleted == *id).map(|(_, serial)| *serial)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Id, &Arc<ObjectState>)> {
        self.known.iter().map(|(id, state)| (&**id, state))
    }

    /// Number of objects with problems.
    #[must_use]
    pub fn with_problems(&self) -> usize {
        self.known.values().filter(|state| !state.problems.is_empty()).count()
    }

    /// These are all there are of a resource; `world` has taken them in.
    pub fn replace(&mut self, resource: Resource, objects: &[Json], serial: u64, world: &Registry) {
        let now: BTreeSet<Key> = objects.iter().map(key_of).collect();
        let gone = self.known.keys().filter(|id| id.resource == resource && !now.contains(&id.key)).cloned();
        for id in gone.collect::<Vec<_>>() {
            self.remove(&id, serial, world);
        }
        for object in objects {
            self.set(resource, object, serial, world);
        }
    }

    /// One is new or different; `world` has taken it in.
    pub fn set(&mut self, resource: Resource, object: &Json, serial: u64, world: &Registry) {
        let id = Id { resource, key: key_of(object) };
        let spec = object.get("spec").unwrap_or(&Json::Null);
        let same = self.known.get(&id).filter(|state| *state.spec == *spec);
        let (spec, since) = match same {
            Some(state) => (state.spec.clone(), state.serial),
            None => (Arc::new(spec.clone()), serial),
        };
        let status = world.status(&id);
        let state = ObjectState {
            resource_version: text(object, "/metadata/resourceVersion"),
            generation: object.pointer("/metadata/generation").and_then(Json::as_i64),
            serial: since,
            is_accepted: status.as_ref().is_some_and(|status| status.is_accepted),
            problems: status.map(|status| status.problems).unwrap_or_default(),
            conditions: object.pointer("/status/conditions").cloned().unwrap_or_default(),
            spec,
        };
        self.known.insert(Arc::new(id.clone()), Arc::new(state));
        self.refresh_twin(&id, world);
    }

    /// One is gone; `world` has forgotten it.
    pub fn remove(&mut self, id: &Id, serial: u64, world: &Registry) {
        if let Some((id, _)) = self.known.remove_entry(id) {
            if self.deleted.len() == DELETIONS {
                self.deleted.pop_front();
            }
            self.deleted.push_back((id, serial));
        }
        self.refresh_twin(id, world);
    }

    /// Problems of objects may have come or gone without a change of the objects.
    pub fn refresh(&mut self, world: &Registry) {
        for (id, state) in &mut self.known {
            let Some(status) = world.status(id) else { continue };
            if state.problems != status.problems {
                Arc::make_mut(state).problems = status.problems;
            }
        }
    }

    /// The object of the same name in the other group may be shadowed now, or no more.
    fn refresh_twin(&mut self, id: &Id, world: &Registry) {
        let resource = id.resource.in_group(!id.resource.is_classic());
        if resource == id.resource {
            return;
        }
        let twin = Id { resource, key: id.key.clone() };
        let (Some(state), Some(status)) = (self.known.get_mut(&twin), world.status(&twin)) else { return };
        if state.problems != status.problems || state.is_accepted != status.is_accepted {
            let state = Arc::make_mut(state);
            state.is_accepted = status.is_accepted;
            state.problems = status.problems;
        }
    }
}

fn text(object: &Json, pointer: &str) -> String {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
}
