//! The objects: in memory for reading, in the journal for keeping.
//!
//! One lock guards the index, the history and the journal together, so a change is in all of them or in none. It is
//! held for the time of one `write`, never over an `await`. A watch keeps no queue: it remembers the version it has
//! read up to and reads on in the shared history, so a slow one costs nothing and is told `Expired` when what it
//! needs has been dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::{ApiError, ApiResult, Reason};
use super::journal::{self, Journal, Record};
pub use super::journal::{Change, Lost, OpenError, Saved};
use super::object::{self, array, metadata};
use super::resources::{DEFINITIONS, Resource, Resources};
use super::selector::Selection;

mod addresses;
mod deletion;
mod owners;
#[cfg(test)]
mod tests;
mod watching;
mod writing;

pub use deletion::{DeleteOptions, Deleted};
use owners::Owners;
pub use watching::Watch;
pub use writing::Part;

/// A change as a watch sees it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its resource version.
    pub version: u64,
    /// What happened.
    pub change: Change,
    /// Which resource, as in [`Resource::key`].
    pub resource: Arc<str>,
    /// The object after the change; its last state when it is gone.
    pub object: Arc<Value>,
    /// The object before the change, unless it is new.
    pub previous: Option<Arc<Value>>,
}

/// What a list returns: the objects, and the version from which a watch goes on without a gap.
#[derive(Debug, Clone)]
pub struct List {
    /// Resource version of the whole store at the time of the list.
    pub version: u64,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Arc<Value>>,
}

/// Number of changes that are remembered for watches that come late.
const HISTORY: usize = 4096;
/// Number of Event objects that are kept; older ones are deleted.
const EVENTS: usize = 1000;
/// A journal below this size is never compacted.
const COMPACT_ABOVE: u64 = 8 << 20;

type Objects = BTreeMap<(String, String), Arc<Value>>;

/// The store. Cheap to share in an [`Arc`].
pub struct Store {
    state: Mutex<State>,
    latest: watch::Sender<u64>,
}

struct State {
    journal: Journal,
    objects: HashMap<String, Objects>,
    owners: Owners,
    resources: Arc<Resources>,
    history: VecDeque<Event>,
    /// Watches from before this version get `Expired`.
    history_begins: u64,
    version: u64,
    /// Size of the journal at which it is compacted.
    compact_at: u64,
}

impl Store {
    /// Opens the store in a directory (file `journal`), or makes it there.
    ///
    /// # Errors
    /// When the journal cannot be read or is damaged; the error says what to do.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let replay = Journal::open(&directory.join("journal"))?;
        if replay.torn > 0 {
            tracing::warn!(
                bytes = replay.torn,
                "the last write before the store was closed was cut off, as it was not whole"
            );
        }
        let first =
            replay.changes.first().map_or(replay.journal.next_version(), |record| object::version(&record.object));
        let mut state = State {
            objects: HashMap::new(),
            owners: Owners::default(),
            resources: Arc::new(Resources::built_in()),
            history: VecDeque::new(),
            history_begins: first - 1,
            version: first - 1,
            compact_at: COMPACT_ABOVE,
            journal: replay.journal,
        };
        for record in replay.objects {
            state.place(record.change, &record.resource, &Arc::new(record.object));
        }
        for record in replay.changes {
            state.version = object::version(&record.object);
            let object = Arc::new(record.object);
            let previous = state.place(record.change, &record.resource, &object);
            let resource = record.resource.into();
            state.remember(Event { version: state.version, change: record.change, resource, object, previous });
        }
        state.read_definitions();
        state.compact_if_due();
        let (latest, _) = watch::channel(state.version);
        let store = Self { state: Mutex::new(state), latest };
        store.make_namespaces(directory)?;
        Ok(store)
    }

    /// Saves what can be read of a damaged store; a sound one is left as it is.
    ///
    /// A deletion that cannot be read any more leaves its object there: errs towards keeping.
    ///
    /// # Errors
    /// When the journal is in use, or the disk refuses; the damaged file stays as it is then.
    pub fn recover(directory: &Path) -> Result<Saved, OpenError> {
        let saved = journal::salvage(&directory.join("journal"))?;
        if saved.copy.is_none() {
            return Ok(saved);
        }
        let store = Self::open(directory)?;
        let in_namespaces = store.everything();
        for name in in_namespaces.iter().map(|(_, it)| object::namespace(it)).filter(|name| !name.is_empty()) {
            match store.create("namespaces", json!({"metadata": {"name": name}})) {
                Err(error) if error.reason != Reason::AlreadyExists => {
                    let source = std::io::Error::other(error.message);
                    return Err(OpenError::Io { path: directory.join("journal"), source });
                }
                _ => {}
            }
        }
        Ok(saved)
    }

    /// The namespaces that are always there; `default` is labelled for injection when it is first made.
    fn make_namespaces(&self, directory: &Path) -> Result<(), OpenError> {
        for (name, labels) in [("default", json!({api::names::INJECT: "enabled"})), ("kube-system", json!({}))] {
            match self.create("namespaces", json!({"metadata": {"name": name, "labels": labels}})) {
                Err(error) if error.reason != Reason::AlreadyExists => {
                    let source = std::io::Error::other(error.message);
                    return Err(OpenError::Io { path: directory.join("journal"), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Resource version of the last change.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The resources served now.
    pub fn resources(&self) -> Arc<Resources> {
        self.lock().resources.clone()
    }

    /// Reads one object. `namespace` is empty for objects of the cluster.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> ApiResult<Arc<Value>> {
        self.lock().get(resource, namespace, name).cloned().ok_or_else(|| ApiError::not_found(resource, name))
    }

    /// Lists the objects of a resource; an unknown resource has none.
    pub fn list(&self, resource: &str, selection: &Selection) -> List {
        let state = self.lock();
        let items = match (state.objects.get(resource), &selection.namespace) {
            (None, _) => vec![],
            (Some(objects), Some(namespace)) => objects
                .range((namespace.clone(), String::new())..)
                .take_while(|((found, _), _)| found == namespace)
                .filter(|(_, object)| selection.matches(object))
                .map(|(_, object)| object.clone())
                .collect(),
            (Some(objects), None) => objects.values().filter(|it| selection.matches(it)).cloned().collect(),
        };
        List { version: state.version, items }
    }

    /// Watches a resource: every change after the version `from`, in order, without a gap.
    ///
    /// # Errors
    /// `Expired` when changes after `from` have been forgotten: list again, and watch from the list's version.
    pub fn watch(self: &Arc<Self>, resource: &str, from: u64) -> ApiResult<Watch> {
        Watch::start(self, &[resource], from)
    }

    /// Watches several resources at once, or all if none is named; otherwise as [`Store::watch`].
    ///
    /// # Errors
    /// As [`Store::watch`].
    pub fn watch_many(self: &Arc<Self>, resources: &[&str], from: u64) -> ApiResult<Watch> {
        Watch::start(self, resources, from)
    }

    /// All objects of all resources, each with its resource's name.
    pub fn everything(&self) -> Vec<(String, Arc<Value>)> {
        let state = self.lock();
        let each = |(resource, objects): (&String, &Objects)| {
            objects.values().map(|object| (resource.clone(), object.clone())).collect::<Vec<_>>()
        };
        state.objects.iter().flat_map(each).collect()
    }

    /// Writes the journal anew with nothing but the objects alive. It happens by itself when it is due.
    ///
    /// # Errors
    /// What the disk says; the old journal stays in force.
    pub fn compact(&self) -> std::io::Result<()> {
        self.lock().compact()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change under the lock and wakes the watches.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> ApiResult<T>) -> ApiResult<T> {
        let mut state = self.lock();
        let before = state.version;
        let result = work(&mut state);
        if state.version != before {
            state.compact_if_due();
            self.latest.send_replace(state.version);
        }
        result
    }
}

/// A write that the disk refused.
fn unwritten(journal: &Path, error: &std::io::Error) -> ApiError {
    use std::io::ErrorKind;
    let journal = journal.display();
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        let message = format!(
            "the disk of {journal} is full, so the change was not made; everything made before it is kept. Free space \
             there and try again"
        );
        return ApiError::new(Reason::InsufficientStorage, message);
    }
    ApiError::internal(format!("the change could not be written to {journal}, so it was not made: {error}"))
}

impl State {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    fn resource(&self, key: &str) -> ApiResult<Arc<Resource>> {
        self.resources.by_key(key).cloned().ok_or_else(|| {
            ApiError::new(
                Reason::NotFound,
                format!("the server could not find the requested resource: {key} is not served here"),
            )
        })
    }

    /// Gives the object the next version, appends it to the journal, and then to the index and the history.
    fn commit(&mut self, change: Change, resource: &str, mut object: Value) -> ApiResult<Arc<Value>> {
        let version = self.journal.next_version();
        metadata(&mut object).insert("resourceVersion".into(), version.to_string().into());
        let record = Record { change, resource: resource.to_owned(), object: &object };
        let appended = self.journal.append(&record);
        appended.map_err(|error| {
            if error.kind() == std::io::ErrorKind::FileTooLarge {
                let name = object::name(record.object);
                let message = format!("Request entity too large: {resource} \"{name}\" is larger than 2 MiB");
                return ApiError::new(Reason::RequestEntityTooLarge, message);
            }
            unwritten(self.journal.path(), &error)
        })?;
        let object = Arc::new(object);
        let previous = self.place(change, resource, &object);
        self.version = version;
        self.remember(Event { version, change, resource: resource.into(), object: object.clone(), previous });
        if resource == DEFINITIONS {
            self.read_definitions();
        }
        Ok(object)
    }

    /// Puts an object into the index or takes it out; returns what was there.
    fn place(&mut self, change: Change, resource: &str, object: &Arc<Value>) -> Option<Arc<Value>> {
        let key = (object::namespace(object).to_owned(), object::name(object).to_owned());
        if !self.objects.contains_key(resource) {
            self.objects.insert(resource.to_owned(), Objects::new());
        }
        let objects = self.objects.get_mut(resource)?;
        let previous = match change {
            Change::Deleted => objects.remove(&key),
            Change::Added | Change::Modified => objects.insert(key, Arc::clone(object)),
        };
        self.owners.note(resource, previous.as_deref(), (change != Change::Deleted).then_some(&**object));
        previous
    }

    fn remember(&mut self, event: Event) {
        if self.history.len() >= HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.history_begins = forgotten.version;
        }
        self.history.push_back(event);
    }

    fn read_definitions(&mut self) {
        let definitions = self.objects.get(DEFINITIONS).into_iter().flat_map(BTreeMap::values).map(|it| &**it);
        self.resources = Arc::new(Resources::with_definitions(definitions));
    }

    /// Compaction costs a write of everything alive, so it waits until that is a small part of what was written.
    fn compact_if_due(&mut self) {
        if self.journal.length() < self.compact_at {
            return;
        }
        if let Err(error) = self.compact() {
            tracing::error!(%error, "the journal could not be compacted and goes on growing; free space on its disk");
            self.compact_at = self.journal.length() * 2;
        }
    }

    fn compact(&mut self) -> std::io::Result<()> {
        let alive = self
            .objects
            .iter()
            .flat_map(|(resource, objects)| objects.values().map(move |object| (resource.as_str(), &**object)));
        self.journal.compact(alive)?;
        self.compact_at = COMPACT_ABOVE.max(self.journal.length() * 4);
        Ok(())
    }
}
