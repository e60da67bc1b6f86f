//! What one proxy should have: the shared tables, what depends on who it is, and what belongs to its workload alone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use api::model::{Host, Key, MeshTls, Model, Node, Role, Workload};
use engine::generate;

use super::Snapshot;
use super::tables::{Entry, OWN_LISTENERS};
use crate::resource::{Kind, Resource};
use crate::xds::state;

/// By kind, in the order of [`Kind`].
type Own = [BTreeMap<Arc<str>, Arc<Resource>>; 4];

/// What one proxy should have, followed from snapshot to snapshot.
#[derive(Debug)]
pub struct View {
    snapshot: Arc<Snapshot>,
    node: Node,
    /// Serial of the snapshot in which the proxy last became somebody else (its labels, its services).
    node_since: u64,
    /// Resources of this workload alone.
    own: Own,
    /// Serial of the snapshot in which `own` last changed.
    own_since: u64,
    /// Every name that `own` ever held.
    own_names: BTreeSet<(Kind, Arc<str>)>,
}

impl View {
    /// The view of a proxy of this role in this pod, which takes part in mutual TLS or not. A pod that is not known (yet) is nobody: no labels, no services.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, role: Role, tls: MeshTls, pod: Key) -> Self {
        let node = node(&snapshot, role, tls, pod);
        let own = own(&snapshot.model, &node);
        let own_names = names_of(&own).collect();
        let serial = snapshot.serial;
        View { snapshot, node, node_since: serial, own, own_since: serial, own_names }
    }

    /// The proxy as the snapshot knows it.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The snapshot that is looked at.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Goes on to a later snapshot.
    pub fn advance(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.serial == self.snapshot.serial {
            return;
        }
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        let is_concerned = self.follow_node(&before) || self.are_services_touched(&before.model);
        if is_concerned {
            let own = own(&self.snapshot.model, &self.node);
            if versions(&own).ne(versions(&self.own)) {
                self.own_since = self.snapshot.serial;
                self.own_names.extend(names_of(&own));
                self.own = own;
            }
        }
    }

    /// Follows the workload; whether it has changed.
    fn follow_node(&mut self, before: &Snapshot) -> bool {
        let (key, now) = (&self.node.workload.key, &self.snapshot);
        let is_same = match (before.node(key), now.node(key)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return false;
        }
        let node = node(now, self.node.role, self.node.tls, key.clone());
        if node == self.node {
            return false;
        }
        self.node = node;
        self.node_since = now.serial;
        true
    }

    /// Whether a service of the workload, or its endpoints, are different.
    fn are_services_touched(&self, before: &Model) -> bool {
        let now = &self.snapshot.model;
        let differs = |host: &Host| {
            let service = same(before.services.get(host), now.services.get(host));
            let endpoints = same(before.endpoints.get(host), now.endpoints.get(host));
            !(service && endpoints)
        };
        // Who may call is written into the inbound listener, and so is the account of each service that may.
        let is_access_same = before.access.is_same(&now.access)
            && (!now.access.names_services() || before.endpoints.is_same(&now.endpoints));
        before.mesh != now.mesh || !is_access_same || self.node.services.iter().any(differs)
    }
}

impl state::View for View {
    fn serial(&self) -> u64 {
        self.snapshot.serial
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        if let Some(own) = self.own[kind as usize].get(name) {
            return Some(own.clone());
        }
        match self.snapshot.tables.get(self.node.role, kind, name)? {
            // The shared clusters are those of proxies that have an identity; they change whenever the others' do.
            Entry::Shared(_) if kind == Kind::Cluster && self.node.tls != MeshTls::Own => {
                generated(&self.snapshot.model, &self.node, kind, name)
            }
            Entry::Shared(resource) => Some(resource.clone()),
            Entry::PerProxy => generated(&self.snapshot.model, &self.node, kind, name),
        }
    }

    fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        let own = self.own[kind as usize].keys().cloned();
        self.snapshot.tables.names(self.node.role, kind).chain(own).collect()
    }

    fn changed_since(&self, kind: Kind, serial: u64) -> Option<Vec<Arc<str>>> {
        if serial < self.node_since {
            return None;
        }
        let mut names = self.snapshot.log.since(kind, serial)?;
        if serial < self.own_since {
            names.extend(self.own_names.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()));
        }
        Some(names)
    }
}

fn same<T: ?Sized>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn versions(own: &Own) -> impl Iterator<Item = (&Arc<str>, crate::resource::Version)> {
    own.iter().flatten().map(|(name, resource)| (name, resource.version))
}

fn names_of(own: &Own) -> impl Iterator<Item = (Kind, Arc<str>)> {
    Kind::ALL.into_iter().zip(own).flat_map(|(kind, own)| own.keys().map(move |name| (kind, name.clone())))
}

fn node(snapshot: &Snapshot, role: Role, tls: MeshTls, pod: Key) -> Node {
    match snapshot.node(&pod) {
        Some(node) => Node { role, tls, ..(**node).clone() },
        None => Node { role, workload: Arc::new(nobody(pod)), services: Vec::new(), tls },
    }
}

fn nobody(key: Key) -> Workload {
    Workload {
        owner: key.name.clone(),
        key,
        addresses: Vec::new(),
        labels: api::model::Labels::new(),
        service_account: String::new(),
        ports: Vec::new(),
        has_sidecar: true,
        takes_tls: false,
    }
}

/// The listeners of its workload and the inbound clusters of a sidecar.
fn own(model: &Model, node: &Node) -> Own {
    let mut own = Own::default();
    if node.role != Role::Sidecar {
        return own;
    }
    let mut add = |kind: Kind, name: &str| {
        if let Some(resource) = generated(model, node, kind, name) {
            own[kind as usize].insert(resource.name.clone(), resource);
        }
    };
    for listener in OWN_LISTENERS {
        add(Kind::Listener, listener);
    }
    for port in ports(model, node) {
        add(Kind::Cluster, &format!("inbound|{port}"));
    }
    own
}

/// Ports at which the workload may serve.
fn ports(model: &Model, node: &Node) -> BTreeSet<NonZeroU16> {
    let endpoints = node.services.iter().filter_map(|host| model.endpoints.get(host)).flat_map(|all| all.iter());
    let own = endpoints.filter(|endpoint| endpoint.workload.key == node.workload.key).map(|endpoint| endpoint.port);
    node.workload.ports.iter().copied().chain(own).collect()
}

fn generated(model: &Model, node: &Node, kind: Kind, name: &str) -> Option<Arc<Resource>> {
    let resource = generate::resource(model, node, kind.to_engine(), name)?;
    Some(Arc::new(Resource::of_engine(&resource)))
}
