//! What the resources in hand still wait for before they can be used without a gap.

use std::collections::{BTreeSet, HashMap, HashSet};

use engine::Kind;
use engine::tables::{Action, Chain, Discovery, Filter, Name, RouteTable, Routes, Tables};

/// A name that something in hand refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Needed {
    /// A cluster, with its endpoints if it has them by EDS.
    Cluster(String),
    /// A route configuration.
    Routes(String),
}

/// Keeps count of what is referred to and what of that is missing. Costs what an update changes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What each listener and route configuration refers to.
    references: HashMap<(Kind, String), BTreeSet<Needed>>,
    /// How many refer to each.
    referrers: HashMap<Needed, usize>,
    missing: BTreeSet<Needed>,
    /// Assignments and route configurations that Pilot has said do not exist, and names that were waited for too long.
    absent: HashSet<Needed>,
    absent_assignments: HashSet<String>,
}

impl Waiting {
    /// Whether all that is referred to is there.
    pub(super) fn is_over(&self) -> bool {
        self.missing.is_empty()
    }

    /// What is missing, as a person reads it.
    pub(super) fn missing(&self) -> Vec<String> {
        let name = |needed: &Needed| match needed {
            Needed::Cluster(name) => format!("cluster `{name}`"),
            Needed::Routes(name) => format!("route configuration `{name}`"),
        };
        self.missing.iter().map(name).collect()
    }

    /// Waits no longer for what is missing now.
    pub(super) fn give_up(&mut self) {
        self.absent.extend(std::mem::take(&mut self.missing));
    }

    /// Takes note of a resource that has come, changed or gone. `tables` has the change already.
    pub(super) fn note(&mut self, tables: &Tables, kind: Kind, name: &str, is_removed: bool) {
        match kind {
            Kind::Listener => {
                let found = tables.listener(name).map(|listener| {
                    let chains = listener.chains.iter().chain(&listener.default_chain);
                    chains.flat_map(of_chain).collect()
                });
                self.refer(tables, kind, name, found.unwrap_or_default());
            }
            Kind::Route => {
                let found = tables.route_table(&Name::new(name)).map(|table| of_routes(table).collect());
                self.refer(tables, kind, name, found.unwrap_or_default());
                self.settle(tables, Needed::Routes(name.to_owned()), is_removed);
            }
            Kind::Cluster => self.settle(tables, Needed::Cluster(name.to_owned()), false),
            Kind::Endpoints => {
                if is_removed {
                    self.absent_assignments.insert(name.to_owned());
                } else {
                    self.absent_assignments.remove(name);
                }
                self.recheck(tables);
            }
        }
    }

    fn refer(&mut self, tables: &Tables, kind: Kind, name: &str, now: BTreeSet<Needed>) {
        let key = (kind, name.to_owned());
        let before = self.references.remove(&key).unwrap_or_default();
        for gone in before.difference(&now) {
            if let Some(count) = self.referrers.get_mut(gone) {
                *count -= 1;
                if *count == 0 {
                    self.referrers.remove(gone);
                    self.missing.remove(gone);
                    self.absent.remove(gone);
                }
            }
        }
        for new in now.difference(&before) {
            *self.referrers.entry(new.clone()).or_default() += 1;
            if !self.is_there(tables, new) {
                self.missing.insert(new.clone());
            }
        }
        if !now.is_empty() {
            self.references.insert(key, now);
        }
    }

    /// Decides whether `needed`, which has just come or gone, is missing.
    fn settle(&mut self, tables: &Tables, needed: Needed, is_denied: bool) {
        self.absent.remove(&needed);
        if !self.referrers.contains_key(&needed) {
            return;
        }
        if is_denied {
            self.absent.insert(needed.clone());
        }
        if self.is_there(tables, &needed) {
            self.missing.remove(&needed);
        } else {
            self.missing.insert(needed);
        }
    }

    fn recheck(&mut self, tables: &Tables) {
        let missing = std::mem::take(&mut self.missing);
        self.missing = missing.into_iter().filter(|needed| !self.is_there(tables, needed)).collect();
    }

    fn is_there(&self, tables: &Tables, needed: &Needed) -> bool {
        if self.absent.contains(needed) {
            return true;
        }
        match needed {
            Needed::Routes(name) => tables.route_table(&Name::new(name)).is_some(),
            Needed::Cluster(name) => tables.cluster_named(name).is_some_and(|cluster| match &cluster.spec.discovery {
                Discovery::Eds(assignment) => {
                    cluster.endpoints.is_some() || self.absent_assignments.contains(assignment.as_str())
                }
                Discovery::Static | Discovery::OriginalDestination => true,
            }),
        }
    }
}

fn of_chain(chain: &Chain) -> Vec<Needed> {
    match &chain.filter {
        Filter::Tcp(tcp) => tcp.clusters.iter().map(|cluster| Needed::Cluster(cluster.name.to_string())).collect(),
        Filter::Http(http) => match &http.routes {
            Routes::Named(name) => vec![Needed::Routes(name.to_string())],
            Routes::Inline(table) => of_routes(table).collect(),
        },
    }
}

fn of_routes(table: &RouteTable) -> impl Iterator<Item = Needed> {
    let actions = table.virtual_hosts.iter().flat_map(|host| &host.routes).map(|route| &route.action);
    let forwards = actions.filter_map(|action| match action {
        Action::Forward(forward) => Some(&forward.clusters),
        Action::Redirect(_) | Action::Direct(_) => None,
    });
    forwards.flatten().map(|cluster| Needed::Cluster(cluster.name.to_string()))
}
