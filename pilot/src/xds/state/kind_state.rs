//! What one proxy has of one type, and how that differs from what it should have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use api::messages::{Rejected, ResourceStatus, SyncState, TypeStatus};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{Push, View};
use crate::resource::{Kind, Version};
use crate::xds::nack;

/// Bytes of resources after which a response is sent and the rest goes into the next one: gRPC clients refuse
/// messages over 4 MiB unless told otherwise.
const RESPONSE_BYTES: usize = 2 << 20;
/// What stands for all resources.
const WILDCARD: &str = "*";
/// What a proxy says that it holds in a version that no Pilot gives out.
const FOREIGN: Version = Version(0);

/// What a proxy has of one type.
#[derive(Debug, Default)]
pub(super) struct KindState {
    /// A request of this type has come.
    subscribed: bool,
    /// It wants all there are.
    wildcard: bool,
    /// What it wants by name.
    names: HashSet<Arc<str>>,
    /// What it has, or knows to be missing.
    held: HashMap<Arc<str>, Held>,
    /// Names to be compared with what should be.
    todo: BTreeSet<Arc<str>>,
    /// What it has and should not have any more.
    gone: BTreeSet<Arc<str>>,
    /// Serial up to which all changes are in `todo`, or done.
    compared: Option<u64>,
    /// The response that is not answered yet.
    in_flight: Option<InFlight>,
    /// Something was sent.
    sent: bool,
    /// What it refuses.
    pub(super) rejected: BTreeMap<Arc<str>, Rejection>,
    /// Names that it is expected to subscribe to any moment.
    pub(super) awaited: HashSet<Arc<str>>,
}

/// One resource that the proxy knows.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Version that was sent last; `None` if it was told that there is none.
    sent: Option<Version>,
    /// Version that it has accepted last.
    acked: Option<Version>,
    /// Serial of the snapshot with which it was sent last; 0 for what the proxy had when it connected.
    since: u64,
}

impl Held {
    fn missing(since: u64) -> Self {
        Held { sent: None, acked: None, since }
    }
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    resources: Vec<(Arc<str>, Version)>,
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Rejection {
    /// In the proxy's words.
    pub(super) reason: String,
}

impl KindState {
    /// Takes in the answer to the response that is on its way: `None` if the request is no such answer, else the names
    /// that are refused.
    pub(super) fn answered(&mut self, request: &DeltaDiscoveryRequest) -> Option<Vec<Arc<str>>> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == request.response_nonce)?;
        let refused = match &request.error_detail {
            None => Vec::new(),
            Some(error) => {
                let sent: Vec<Arc<str>> = in_flight.resources.iter().map(|(name, _)| name.clone()).collect();
                nack::refused(&sent, &error.message)
            }
        };
        let names: Vec<Arc<str>> = refused.iter().map(|refused| refused.name.clone()).collect();
        for (name, version) in in_flight.resources {
            if names.contains(&name) {
                continue;
            }
            self.rejected.remove(&name);
            if let Some(held) = self.held.get_mut(&name) {
                held.acked = Some(version);
            }
        }
        for refused in refused {
            self.rejected.insert(refused.name, Rejection { reason: refused.reason });
        }
        Some(names)
    }

    /// Takes in what the request subscribes to and unsubscribes from.
    pub(super) fn subscribe(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) {
        let is_first = !self.subscribed;
        self.subscribed = true;
        if is_first {
            for (name, version) in &request.initial_resource_versions {
                let version = Some(Version::parse(version).unwrap_or(FOREIGN));
                self.held.insert(name.as_str().into(), Held { sent: version, acked: version, since: 0 });
            }
            self.wildcard = kind.may_be_wildcard() && request.resource_names_subscribe.is_empty();
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                self.compared = None;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            self.awaited.remove(&name);
            if !is_first {
                // Asked for again, it is sent again: the proxy may have dropped it.
                self.held.remove(&name);
            }
            self.todo.insert(name.clone());
            self.names.insert(name);
        }
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.names.remove(name.as_str());
            }
        }
        if !request.resource_names_unsubscribe.is_empty() {
            self.forget_unwanted();
        }
    }

    fn forget_unwanted(&mut self) {
        if self.wildcard {
            return;
        }
        let names = &self.names;
        self.held.retain(|name, _| names.contains(name));
        self.rejected.retain(|name, _| names.contains(name));
        self.todo.retain(|name| names.contains(name));
        self.gone.retain(|name| names.contains(name));
    }

    /// Notes what may have changed since the last comparison.
    pub(super) fn compare_with(&mut self, kind: Kind, view: &dyn View) {
        if !self.subscribed || self.compared == Some(view.serial()) {
            return;
        }
        match self.compared.and_then(|serial| view.changed_since(kind, serial)) {
            Some(changed) => {
                let wanted = changed.into_iter().filter(|name| self.wildcard || self.names.contains(name));
                let wanted: Vec<Arc<str>> = wanted.collect();
                self.todo.extend(wanted);
            }
            None => {
                if self.wildcard {
                    self.todo.extend(view.names(kind));
                }
                self.todo.extend(self.names.iter().cloned());
                self.todo.extend(self.held.keys().cloned());
            }
        }
        self.compared = Some(view.serial());
    }

    /// The next response with new and changed resources; `None` when there are none or one is on its way.
    pub(super) fn additions(&mut self, kind: Kind, nonce: u64, view: &dyn View) -> Option<Push> {
        if !self.subscribed || self.is_busy() {
            return None;
        }
        let (mut resources, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < RESPONSE_BYTES {
            let Some(name) = self.todo.pop_first() else { break };
            if !self.wants(&name) {
                self.held.remove(&name);
                continue;
            }
            let held = self.held.get(&name).copied();
            match view.find(kind, &name) {
                Some(resource) => {
                    self.gone.remove(&name);
                    if held.and_then(|held| held.sent) != Some(resource.version) {
                        bytes += resource.entry().len();
                        resources.push(resource);
                    }
                }
                None if held.is_some_and(|held| held.sent.is_some()) => {
                    self.gone.insert(name);
                }
                None if held.is_none() && self.names.contains(&name) => {
                    self.held.insert(name.clone(), Held::missing(view.serial()));
                    removed.push(name);
                }
                None => {}
            }
        }
        // A proxy that starts waits for a first answer even if it says that there is nothing.
        let is_first_answer = !self.sent && self.wildcard && self.held.is_empty();
        if resources.is_empty() && removed.is_empty() && !is_first_answer {
            return None;
        }
        Some(self.send(Push { kind, nonce, serial: view.serial(), resources, removed }))
    }

    /// The response that takes away what is gone.
    pub(super) fn removals(&mut self, kind: Kind, nonce: u64, view: &dyn View) -> Option<Push> {
        let gone = std::mem::take(&mut self.gone);
        let removed: Vec<Arc<str>> = gone.into_iter().filter(|name| view.find(kind, name).is_none()).collect();
        if removed.is_empty() {
            return None;
        }
        for name in &removed {
            self.rejected.remove(name);
            if self.names.contains(name) {
                self.held.insert(name.clone(), Held::missing(view.serial()));
            } else {
                self.held.remove(name);
            }
        }
        Some(self.send(Push { kind, nonce, serial: view.serial(), resources: Vec::new(), removed }))
    }

    fn send(&mut self, push: Push) -> Push {
        for resource in &push.resources {
            let held = self.held.entry(resource.name.clone()).or_insert(Held::missing(push.serial));
            held.sent = Some(resource.version);
            held.since = push.serial;
        }
        let resources = push.resources.iter().map(|resource| (resource.name.clone(), resource.version)).collect();
        self.in_flight = Some(InFlight { nonce: push.nonce.to_string(), resources });
        self.sent = true;
        push
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Serial of the snapshot with which a resource was sent last.
    pub(super) fn changed_at(&self, name: &str) -> Option<u64> {
        self.held.get(name).map(|held| held.since)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether something is left to compare.
    pub(super) fn is_behind(&self) -> bool {
        !self.todo.is_empty()
    }

    /// Number of names that are kept on the proxy's word.
    pub(super) fn size(&self) -> usize {
        self.names.len().max(self.held.len())
    }

    /// Every resource that the proxy knows, by name.
    pub(super) fn resources(&self, kind: Kind) -> Vec<ResourceStatus> {
        let version = |version: Option<Version>| version.map(|version| version.to_string());
        let one = |(name, held): (&Arc<str>, &Held)| ResourceStatus {
            kind: kind.short().to_owned(),
            name: name.to_string(),
            sent: version(held.sent),
            acknowledged: version(held.acked),
            refused: self.rejected.get(name).map(|rejection| rejection.reason.clone()),
        };
        let mut resources: Vec<ResourceStatus> = self.held.iter().map(one).collect();
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources
    }

    pub(super) fn status(&self, kind: Kind) -> TypeStatus {
        let acked = || self.held.iter().filter_map(|(name, held)| Some((name, held.acked?)));
        let state = if !self.rejected.is_empty() {
            SyncState::Rejected
        } else if self.is_busy() || !self.todo.is_empty() || !self.gone.is_empty() {
            SyncState::Stale
        } else if !self.sent && self.held.is_empty() {
            SyncState::NotSent
        } else {
            SyncState::Synced
        };
        let rejected = self.rejected.iter();
        TypeStatus {
            kind: kind.short().to_owned(),
            state,
            resources: acked().count() as u64,
            version: format!("{:08x}", digest(acked())),
            rejected: rejected
                .map(|(name, rejection)| Rejected { resource: name.to_string(), error: rejection.reason.clone() })
                .collect(),
        }
    }
}

/// A short hash over names and versions that does not depend on their order.
fn digest<'a>(acked: impl Iterator<Item = (&'a Arc<str>, Version)>) -> u32 {
    let sum = acked.map(|(name, version)| crate::hash::of(&(name, version.0))).fold(0_u64, u64::wrapping_add);
    (sum >> 32) as u32 ^ sum as u32
}
