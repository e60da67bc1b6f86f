//! Who connects: the workload at a caller's address, as Pilot tells it through endpoints.
//!
//! Without mutual TLS a caller proves nothing, and a header that says who it is could say anything. Its address is what
//! the network lets through, and what endpoints say of it comes from Pilot. A caller that no service stands for, or whose
//! address several workloads share (pods on the host's network), stays unknown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use engine::tables::{Endpoint, Tables};
use foldhash::fast::FixedState;

/// A workload that may connect; the default is an unknown one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PeerId(u32);

/// What is told of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// Its name.
    pub workload: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its `app`.
    pub app: Box<str>,
    /// Its `version`.
    pub version: Box<str>,
}

/// More workloads than this are never told apart while the proxy runs; further ones are unknown.
const MAX_KNOWN: usize = 16 * 1024;

/// Workloads by address.
#[derive(Debug, Default)]
pub struct Peers {
    by_address: ArcSwap<HashMap<IpAddr, PeerId, FixedState>>,
    known: Mutex<Known>,
}

/// Every workload that was ever known, so that an id means the same for ever.
#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Arc<Who>, PeerId, FixedState>,
    all: Vec<Arc<Who>>,
}

impl Known {
    fn id(&mut self, endpoint: &Endpoint) -> PeerId {
        let who = Who {
            workload: endpoint.workload.clone(),
            namespace: endpoint.namespace.clone(),
            app: endpoint.app.clone(),
            version: endpoint.version.clone(),
        };
        if who.workload.is_empty() {
            return PeerId::default();
        }
        if let Some(id) = self.ids.get(&who) {
            return *id;
        }
        if self.all.len() >= MAX_KNOWN {
            return PeerId::default();
        }
        let who = Arc::new(who);
        self.all.push(Arc::clone(&who));
        // Ids begin at one; there are few.
        let id = PeerId(u32::try_from(self.all.len()).unwrap_or_default());
        self.ids.insert(who, id);
        id
    }
}

impl Peers {
    /// The workload at an address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> PeerId {
        self.by_address.load().get(&address).copied().unwrap_or_default()
    }

    /// What is told of a workload.
    #[must_use]
    pub fn who(&self, id: PeerId) -> Option<Arc<Who>> {
        let at = usize::try_from(id.0).ok()?.checked_sub(1)?;
        self.lock().all.get(at).cloned()
    }

    /// Takes over what all endpoints say. To be called when they have changed, off the path.
    pub fn learn(&self, tables: &Tables) {
        let mut by_address: HashMap<IpAddr, PeerId, FixedState> = HashMap::default();
        let mut known = self.lock();
        let endpoints = tables.clusters().filter_map(|cluster| cluster.endpoints.as_ref());
        for endpoint in endpoints.flat_map(|endpoints| endpoints.all()) {
            let id = known.id(endpoint);
            if id == PeerId::default() {
                continue;
            }
            for address in std::iter::once(endpoint.address.ip()).chain(endpoint.others.iter().copied()) {
                match by_address.entry(address) {
                    Entry::Vacant(entry) => drop(entry.insert(id)),
                    Entry::Occupied(mut entry) if *entry.get() != id => drop(entry.insert(PeerId::default())),
                    Entry::Occupied(_) => {}
                }
            }
        }
        drop(known);
        self.by_address.store(Arc::new(by_address));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
