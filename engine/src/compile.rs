//! xDS resources → [`Tables`]: one resource at a time, refused by name, the old one staying in force.
//!
//! Nothing is ignored. A message is read by taking out of it what is in force; what is left must be empty, else the
//! resource is refused with the name of the field. A message with fields that the schema does not have is longer than
//! what was read of it, and is refused too.

mod access;
mod cluster;
mod cluster_limits;
mod endpoints;
mod fault;
mod http;
mod listener;
mod retry;
mod route;
mod route_action;
mod route_match;
mod strict;
mod tls;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::proto::Kind;
use crate::tables::{Cluster, Discovery, Endpoints, Listener, Name, Routes, Tables};

pub(crate) use cluster::KNOWN_ENDPOINTS;
pub(crate) use endpoints::SOCKET_MATCH;
pub use strict::{Refusal, Why};
pub(crate) use tls::{BUNDLE, CERTIFICATE};

/// Compiles resources as they come, and holds what is in force.
///
/// An update costs what it changes: new endpoints of one cluster touch that cluster alone.
#[derive(Debug, Default)]
pub struct Compiler {
    tables: Tables,
    /// What is in force, by kind and name.
    accepted: BTreeMap<(Kind, Arc<str>), Accepted>,
    /// What was refused last and has not been put right or removed since.
    rejected: BTreeMap<(Kind, Arc<str>), Rejected>,
    /// Endpoints that came by EDS.
    assignments: HashMap<Arc<str>, Arc<Endpoints>>,
    /// Clusters that ask for each of them.
    askers: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// A resource in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The version that it came with.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// A resource that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The version that it came with.
    pub version: String,
    /// Why.
    pub why: Refusal,
}

impl Compiler {
    /// A compiler without resources.
    #[must_use]
    pub fn new() -> Self {
        Compiler::default()
    }

    /// What is in force now: a value of its own, cheap to make.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.tables.clone()
    }

    /// Puts a resource in force.
    ///
    /// # Errors
    /// When the resource is not understood in full; what was in force before under this name stays so.
    pub fn update(&mut self, kind: Kind, name: &str, version: &str, body: &Bytes) -> Result<(), Refusal> {
        let key = (kind, Arc::from(name));
        match self.put(kind, name, body) {
            Ok(()) => {
                self.rejected.remove(&key);
                self.accepted.insert(key, Accepted { version: version.to_owned(), body: body.clone() });
                Ok(())
            }
            Err(why) => {
                self.rejected.insert(key, Rejected { version: version.to_owned(), why: why.clone() });
                Err(why)
            }
        }
    }

    /// Takes a resource out of force; `false` if there was none.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        let key = (kind, Arc::from(name));
        self.rejected.remove(&key);
        let was_there = self.accepted.remove(&key).is_some();
        match kind {
            Kind::Listener => {
                if let Some(old) = self.tables.listeners.remove(name) {
                    Arc::make_mut(&mut self.tables.by_address).remove(&old.address);
                }
            }
            Kind::Route => drop(self.tables.routes.remove(name)),
            Kind::Cluster => {
                if let Some(old) = self.tables.clusters.remove(name) {
                    self.tables.places.follow(Some(&old), None);
                    self.forget(&old);
                }
            }
            Kind::Endpoints => {
                self.assignments.remove(name);
                self.assign(name, None);
            }
        }
        was_there
    }

    /// The resources of a kind in force, by name.
    pub fn accepted(&self, kind: Kind) -> impl Iterator<Item = (&str, &Accepted)> {
        self.accepted.iter().filter(move |((of, _), _)| *of == kind).map(|((_, name), accepted)| (&**name, accepted))
    }

    /// The resources whose last version was refused, by kind and name.
    pub fn rejected(&self) -> impl Iterator<Item = (Kind, &str, &Rejected)> {
        self.rejected.iter().map(|((kind, name), rejected)| (*kind, &**name, rejected))
    }

    /// Names that resources in force ask for: route configurations that listeners name, assignments that clusters name.
    /// Empty for the other kinds, which come unasked.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        match kind {
            Kind::Listener | Kind::Cluster => BTreeSet::new(),
            Kind::Endpoints => self.askers.keys().map(|name| name.to_string()).collect(),
            Kind::Route => {
                let chains = self.tables.listeners().flat_map(|listener| listener.all_chains());
                chains
                    .filter_map(|chain| match &chain.filter {
                        crate::tables::Filter::Http(http) => match &http.routes {
                            Routes::Named(name) => Some(name.to_string()),
                            Routes::Inline(_) => None,
                        },
                        crate::tables::Filter::Tcp(_) => None,
                    })
                    .collect()
            }
        }
    }

    fn put(&mut self, kind: Kind, name: &str, body: &Bytes) -> Result<(), Refusal> {
        match kind {
            Kind::Listener => self.put_listener(listener::compile(name, body)?),
            Kind::Route => {
                let table = route::compile(name, body)?;
                self.tables.routes.insert(Name::new(name), Arc::new(table));
                Ok(())
            }
            Kind::Cluster => {
                let old = self.tables.clusters.get_str(name).cloned();
                let compiled = cluster::compile(name, body, old.as_deref().and_then(|old| old.endpoints.as_deref()))?;
                self.put_cluster(compiled, old.as_deref());
                Ok(())
            }
            Kind::Endpoints => {
                let old = self.assignments.get(name).cloned();
                let endpoints = Arc::new(endpoints::compile(name, body, old.as_deref())?);
                self.assignments.insert(Arc::from(name), Arc::clone(&endpoints));
                self.assign(name, Some(&endpoints));
                Ok(())
            }
        }
    }

    fn put_listener(&mut self, listener: Listener) -> Result<(), Refusal> {
        let (name, address) = (listener.name.clone(), listener.address);
        if let Some(other) = self.tables.by_address.get(&address).filter(|other| other.name != name) {
            return Err(Refusal::invalid(format!("{address} is the address of listener `{}` already", other.name)));
        }
        let listener = Arc::new(listener);
        let by_address = Arc::make_mut(&mut self.tables.by_address);
        if let Some(old) = self.tables.listeners.insert(name, Arc::clone(&listener)) {
            by_address.remove(&old.address);
        }
        by_address.insert(address, listener);
        Ok(())
    }

    fn put_cluster(&mut self, mut cluster: Cluster, old: Option<&Cluster>) {
        if let Some(old) = old {
            cluster.usage = Arc::clone(&old.usage);
            self.forget(old);
        }
        let name = cluster.spec.name.clone();
        if let Discovery::Eds(assignment) = &cluster.spec.discovery {
            self.askers.entry(assignment.shared()).or_default().insert(name.shared());
            cluster.endpoints = self.assignments.get(assignment.as_str()).cloned();
        }
        self.tables.places.follow(old, Some(&cluster));
        self.tables.clusters.insert(name, Arc::new(cluster));
    }

    /// Takes a cluster out of those that ask for its assignment.
    fn forget(&mut self, cluster: &Cluster) {
        let Discovery::Eds(assignment) = &cluster.spec.discovery else { return };
        if let Some(askers) = self.askers.get_mut(assignment.as_str()) {
            askers.remove(cluster.spec.name.as_str());
            if askers.is_empty() {
                self.askers.remove(assignment.as_str());
            }
        }
    }

    /// Gives an assignment to the clusters that ask for it.
    fn assign(&mut self, assignment: &str, endpoints: Option<&Arc<Endpoints>>) {
        for name in self.askers.get(assignment).into_iter().flatten() {
            if let Some(cluster) = self.tables.clusters.get_str(name) {
                let old = Arc::clone(cluster);
                let cluster = Cluster { endpoints: endpoints.cloned(), ..Cluster::clone(&old) };
                self.tables.places.follow(Some(&old), Some(&cluster));
                self.tables.clusters.insert(cluster.spec.name.clone(), Arc::new(cluster));
            }
        }
    }
}

/// Says whether a resource would be understood, by itself.
///
/// Takes any bytes and never panics: the fuzz target's entry.
///
/// # Errors
/// When the resource is not understood in full.
pub fn check(kind: Kind, name: &str, body: &[u8]) -> Result<(), Refusal> {
    match kind {
        Kind::Listener => listener::compile(name, body).map(drop),
        Kind::Route => route::compile(name, body).map(drop),
        Kind::Cluster => cluster::compile(name, body, None).map(drop),
        Kind::Endpoints => endpoints::compile(name, body, None).map(drop),
    }
}

/// Addresses that listeners in force bind, with the listeners' names.
#[must_use]
pub fn bound_addresses(tables: &Tables) -> Vec<(SocketAddr, String)> {
    let mut bound: Vec<_> = tables.bound().map(|listener| (listener.address, listener.name.to_string())).collect();
    bound.sort();
    bound
}

#[cfg(test)]
mod tests;
