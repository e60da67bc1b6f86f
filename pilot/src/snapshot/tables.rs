//! The resources that are the same for every proxy of a role, kept from snapshot to snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::model::{Host, Key, MeshTls, Model, Node, Role, Workload};
use engine::generate::{self, Affected};
use engine::tables::{Name, NameMap};

use super::changes::Changes;
use crate::resource::{Kind, Resource};

/// Listener of what comes to a workload.
pub(super) const INBOUND_LISTENER: &str = "virtual_inbound";
/// Listener of what goes out of it.
const OUTBOUND_LISTENER: &str = "virtual_outbound";
/// The listeners whose content depends on the workload.
pub(super) const OWN_LISTENERS: [&str; 2] = [INBOUND_LISTENER, OUTBOUND_LISTENER];

/// One named resource of a role.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It is the same for all.
    Shared(Arc<Resource>),
    /// It depends on who asks: generated for each.
    PerProxy,
}

/// All resources by role, kind and name, except those that belong to one workload.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    sidecar: [NameMap<Entry>; 4],
    gateway: [NameMap<Entry>; 4],
}

impl Tables {
    /// The entry of a name.
    #[must_use]
    pub fn get(&self, role: Role, kind: Kind, name: &str) -> Option<&Entry> {
        self.role(role)[kind as usize].get_str(name)
    }

    /// All names of a kind.
    pub fn names(&self, role: Role, kind: Kind) -> impl Iterator<Item = Arc<str>> {
        self.role(role)[kind as usize].entries().map(|(name, _)| name.shared())
    }

    /// Number of resources of a kind that sidecars may have.
    #[must_use]
    pub fn len(&self, kind: Kind) -> usize {
        self.sidecar[kind as usize].len()
    }

    /// Brings the tables from `old` to `new`, and says which names changed.
    pub fn update(&mut self, old: &Model, new: &Model, serial: u64) -> Changes {
        let mut update = Update { tables: self, new, names: BTreeSet::new() };
        let affected = if serial == 1 {
            Affected { everything: true, ..Affected::default() }
        } else {
            generate::affected(old, new)
        };
        if affected.everything {
            update.everything();
            return Changes { serial, names: Vec::new(), everything: true };
        }
        update.affected(old, &affected);
        if affected.access {
            update.names.insert((Kind::Listener, INBOUND_LISTENER.into()));
        }
        Changes { serial, names: update.names.into_iter().collect(), everything: false }
    }

    fn role(&self, role: Role) -> &[NameMap<Entry>; 4] {
        match role {
            Role::Sidecar => &self.sidecar,
            Role::Gateway => &self.gateway,
        }
    }

    fn role_mut(&mut self, role: Role) -> &mut [NameMap<Entry>; 4] {
        match role {
            Role::Sidecar => &mut self.sidecar,
            Role::Gateway => &mut self.gateway,
        }
    }
}

/// One update under way.
struct Update<'a> {
    tables: &'a mut Tables,
    new: &'a Model,
    names: BTreeSet<(Kind, Arc<str>)>,
}

impl Update<'_> {
    /// Generates everything anew.
    fn everything(&mut self) {
        *self.tables = Tables::default();
        for role in [Role::Sidecar, Role::Gateway] {
            for resource in generate::everything(self.new, &anybody(role)) {
                self.take_in(role, &resource);
            }
        }
    }

    /// Generates what is affected anew.
    fn affected(&mut self, old: &Model, affected: &Affected) {
        for host in &affected.listeners {
            let names: BTreeSet<String> =
                [old, self.new].into_iter().flat_map(|model| listeners_of(model, host)).collect();
            self.again(&[Role::Sidecar], Kind::Listener, names);
        }
        for host in &affected.routes {
            let names: BTreeSet<String> =
                [old, self.new].into_iter().flat_map(|model| routes_of(model, host)).collect();
            self.again(&[Role::Sidecar], Kind::Route, names);
        }
        for (hosts, kind) in [(&affected.clusters, Kind::Cluster), (&affected.endpoints, Kind::Endpoints)] {
            for host in hosts {
                let names: BTreeSet<String> = [old, self.new]
                    .into_iter()
                    .flat_map(|model| generate::cluster_names_of(model, host))
                    .map(|name| name.to_string())
                    .collect();
                self.again(&[Role::Sidecar, Role::Gateway], kind, names);
            }
        }
        if affected.gateway {
            let gateway = anybody(Role::Gateway);
            let routes = generate::route_names(self.new, &gateway);
            let listeners = generate::listener_names(self.new, &gateway);
            for (kind, names) in [(Kind::Listener, listeners), (Kind::Route, routes)] {
                let mut names: BTreeSet<String> = names.into_iter().collect();
                names.extend(self.tables.names(Role::Gateway, kind).map(|name| name.to_string()));
                self.again(&[Role::Gateway], kind, names);
            }
        }
    }

    /// Generates these resources anew, or finds that they are gone.
    fn again(&mut self, roles: &[Role], kind: Kind, names: BTreeSet<String>) {
        for name in names {
            for &role in roles {
                match generate::resource(self.new, &anybody(role), kind.to_engine(), &name) {
                    Some(resource) => self.take_in(role, &resource),
                    None => self.remove(role, kind, &name),
                }
            }
        }
    }

    fn take_in(&mut self, role: Role, resource: &generate::Resource) {
        let kind = Kind::of_engine(resource.kind);
        if kind == Kind::Listener && role == Role::Sidecar && OWN_LISTENERS.contains(&&*resource.name) {
            return;
        }
        if !generate::is_shared(self.new, role, resource.kind, &resource.name) {
            let name = Name::new(&resource.name);
            self.names.insert((kind, name.shared()));
            self.tables.role_mut(role)[kind as usize].insert(name, Entry::PerProxy);
            return;
        }
        let version = crate::resource::version_of(resource);
        let is_same = |entry: &Entry| matches!(entry, Entry::Shared(known) if known.version == version);
        if self.tables.get(role, kind, &resource.name).is_some_and(is_same) {
            return;
        }
        let name = Name::new(&resource.name);
        // Both roles share what is the same for both.
        let shared = [Role::Sidecar, Role::Gateway].into_iter().find_map(|role| {
            match self.tables.get(role, kind, name.as_str()) {
                Some(Entry::Shared(known)) if known.version == version => Some(known.clone()),
                _ => None,
            }
        });
        let shared = shared.unwrap_or_else(|| Arc::new(Resource::of_engine(resource)));
        self.names.insert((kind, name.shared()));
        self.tables.role_mut(role)[kind as usize].insert(name, Entry::Shared(shared));
    }

    fn remove(&mut self, role: Role, kind: Kind, name: &str) {
        if self.tables.role_mut(role)[kind as usize].remove(name).is_some() {
            self.names.insert((kind, name.into()));
        }
    }
}

/// A proxy without a workload: what it gets is what all proxies of the role get, where that is the same for all.
fn anybody(role: Role) -> Node {
    let workload = Workload {
        key: Key { namespace: String::new(), name: String::new() },
        owner: String::new(),
        addresses: Vec::new(),
        labels: api::model::Labels::new(),
        service_account: String::new(),
        ports: Vec::new(),
        has_sidecar: true,
        takes_tls: false,
    };
    Node { role, workload: Arc::new(workload), services: Vec::new(), tls: MeshTls::Own }
}

fn listeners_of(model: &Model, host: &Host) -> Vec<String> {
    let Some(service) = model.services.get(host) else { return Vec::new() };
    let ports = service.ports.iter().map(|port| port.number);
    ports
        .flat_map(|port| service.addresses.iter().map(move |address| generate::listener_name(*address, port)))
        .collect()
}

fn routes_of(model: &Model, host: &Host) -> Vec<String> {
    let Some(service) = model.services.get(host) else { return Vec::new() };
    service.ports.iter().map(|port| generate::route_name(host, port.number)).collect()
}
