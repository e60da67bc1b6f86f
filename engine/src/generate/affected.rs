//! Which resources a change touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::model::{Action, Host, Model, RouteRule};

/// What must be generated again after a change; everything else is the same as before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affected {
    /// Settings of the mesh changed: everything is touched.
    pub everything: bool,
    /// Services whose listeners changed (and every inbound listener of their workloads).
    pub listeners: BTreeSet<Host>,
    /// Services whose route configurations changed.
    pub routes: BTreeSet<Host>,
    /// Services whose clusters changed, or the set of them.
    pub clusters: BTreeSet<Host>,
    /// Services whose endpoints changed, or the set of their clusters.
    pub endpoints: BTreeSet<Host>,
    /// Whether the gateway's route configuration changed.
    pub gateway: bool,
}

impl Affected {
    /// Whether nothing is touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Affected::default()
    }
}

/// Compares two models. Costs a comparison of pointers per object, as unchanged objects are shared between models.
#[must_use]
pub fn affected(old: &Model, new: &Model) -> Affected {
    let mut touched = Affected { everything: old.mesh != new.mesh, ..Affected::default() };
    changed(&old.services, &new.services, |host, _| {
        for set in [&mut touched.listeners, &mut touched.routes, &mut touched.clusters, &mut touched.endpoints] {
            set.insert(host.clone());
        }
        // A rule of any service may send to this one by a port that was not there before.
        for rule in new.route_rules.values().filter(|rule| targets(rule).any(|target| target == host)) {
            touched.routes.insert(rule.destination.clone());
        }
        touched.gateway = true;
    });
    changed(&old.endpoints, &new.endpoints, |host, _| {
        touched.endpoints.insert(host.clone());
    });
    changed(&old.route_rules, &new.route_rules, |_, rule: &Arc<RouteRule>| {
        touched.routes.insert(rule.destination.clone());
        touched.clusters.extend(targets(rule).cloned());
        touched.endpoints.extend(targets(rule).cloned());
    });
    changed(&old.destination_policies, &new.destination_policies, |_, policy| {
        touched.clusters.insert(policy.destination.clone());
        touched.endpoints.insert(policy.destination.clone());
    });
    changed(&old.ingresses, &new.ingresses, |_, _| touched.gateway = true);
    let behind_gateway =
        |host: &Host| new.ingresses.values().flat_map(|ingress| &ingress.rules).any(|rule| rule.service == *host);
    touched.gateway |= touched.routes.iter().any(behind_gateway);
    touched
}

/// The services that a rule sends to.
fn targets(rule: &RouteRule) -> impl Iterator<Item = &Host> {
    let to = match &rule.action {
        Action::Route { to, .. } => to.as_slice(),
        Action::Redirect(_) => &[],
    };
    to.iter().map(|target| &target.host)
}

/// Calls `touch` with every value that is not the same in both maps: old and new.
fn changed<K: Ord, T: PartialEq + ?Sized>(
    old: &std::collections::BTreeMap<K, Arc<T>>,
    new: &std::collections::BTreeMap<K, Arc<T>>,
    mut touch: impl FnMut(&K, &Arc<T>),
) {
    for (key, value) in new {
        match old.get(key) {
            Some(before) if Arc::ptr_eq(before, value) || before == value => {}
            Some(before) => {
                touch(key, before);
                touch(key, value);
            }
            None => touch(key, value),
        }
    }
    for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
        touch(key, value);
    }
}
