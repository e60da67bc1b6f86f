//! Which resources a change touches.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::model::{About, Host, Model, MtlsMode, RouteRule, Service};

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
    /// Whether the gateway's route configuration changed, or one of its listeners.
    pub gateway: bool,
    /// Whether it changed who may call what, so that any inbound listener may be touched.
    pub access: bool,
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
    let mut touches_ipv6 = false;
    changed(&old.services, &new.services, |host, service| {
        touches_ipv6 |= service.addresses.iter().any(IpAddr::is_ipv6);
        for set in [&mut touched.listeners, &mut touched.routes, &mut touched.clusters, &mut touched.endpoints] {
            set.insert(host.clone());
        }
        // A rule of any service may send to this one by a port that was not there before.
        for rule in new.route_rules.naming(host) {
            touched.routes.insert(rule.destination.clone());
        }
        touched.gateway = true;
    });
    // The first and the last of them change where every proxy listens.
    touched.everything |= touches_ipv6 && super::has_ipv6_services(old) != super::has_ipv6_services(new);
    changed(&old.endpoints, &new.endpoints, |host, _| {
        touched.endpoints.insert(host.clone());
    });
    changed(&old.accounts, &new.accounts, |host, _| {
        touched.clusters.insert(host.clone());
    });
    if old.access.authentication != new.access.authentication {
        touched.endpoints.extend(called_otherwise(old, new));
    }
    changed(&old.route_rules, &new.route_rules, |_, rule: &Arc<RouteRule>| {
        touched.routes.insert(rule.destination.clone());
        touched.clusters.extend(rule.named().cloned());
        touched.endpoints.extend(rule.named().cloned());
    });
    changed(&old.destination_policies, &new.destination_policies, |_, policy| {
        touched.clusters.insert(policy.destination.clone());
        touched.endpoints.insert(policy.destination.clone());
    });
    touched.access = old.access != new.access;
    changed(&old.ingresses, &new.ingresses, |_, _| touched.gateway = true);
    let behind_gateway =
        |host: &Host| new.ingresses.values().flat_map(|ingress| &ingress.rules).any(|rule| rule.service == *host);
    touched.gateway |= touched.routes.iter().any(behind_gateway);
    touched
}

/// Services of which a port is called by TLS in one of the models and in clear text in the other.
fn called_otherwise<'m>(old: &'m Model, new: &'m Model) -> impl Iterator<Item = Host> + 'm {
    let is_off = |model: &Model, service: &Service, port| {
        let applied = super::authentication(model, &service.key.namespace, Some((service, port)));
        applied.mode(model) == MtlsMode::Disable
    };
    let differs = move |service: &Service| {
        service.ports.iter().any(|port| is_off(old, service, port.number) != is_off(new, service, port.number))
    };
    new.services.values().filter(move |service| differs(service)).map(|service| service.host.clone())
}

/// Calls `touch` with every value that is not the same in both maps: old and new. Both are in order, so one walk over
/// them is enough, and values that were not touched are recognised by their address.
fn changed<K: Ord, T: PartialEq + ?Sized>(
    old: &BTreeMap<K, Arc<T>>,
    new: &BTreeMap<K, Arc<T>>,
    mut touch: impl FnMut(&K, &Arc<T>),
) {
    // Copies of a model share what was not touched.
    if std::ptr::eq(old, new) {
        return;
    }
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let was = before.next_if(|_| order.is_le());
        let is = after.next_if(|_| order.is_ge());
        if let (Some((_, was)), Some((_, is))) = (was, is)
            && (Arc::ptr_eq(was, is) || was == is)
        {
            continue;
        }
        for (key, value) in was.into_iter().chain(is) {
            touch(key, value);
        }
    }
}
