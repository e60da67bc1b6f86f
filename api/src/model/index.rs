//! Collections of the model that are cheap to copy, and objects that are found by the service that they are about.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Action, DestinationPolicy, Host, Key, RouteRule};

/// A collection that copies of the model share until one of them changes it.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Whether both are the very same, so that nobody need compare what is in them.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0 == other.0
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

/// An object that is about a service.
pub trait About {
    /// The service that it is about.
    fn destination(&self) -> &Host;

    /// The services of which it names endpoints, one after the other; a service may come more than once.
    fn named(&self) -> impl Iterator<Item = &Host>;
}

impl About for RouteRule {
    fn destination(&self) -> &Host {
        &self.destination
    }

    fn named(&self) -> impl Iterator<Item = &Host> {
        let to = match &self.action {
            Action::Route { to, .. } => to.as_slice(),
            Action::Redirect(_) => &[],
        };
        to.iter().map(|target| &target.host)
    }
}

impl About for DestinationPolicy {
    fn destination(&self) -> &Host {
        &self.destination
    }

    fn named(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.destination)
    }
}

/// Objects by key, in whose index those about one service are found without looking at the others.
#[derive(Debug, Clone)]
pub struct ByService<T> {
    all: BTreeMap<Key, Arc<T>>,
    about: BTreeMap<Host, Vec<Arc<T>>>,
    naming: BTreeMap<Host, Vec<Arc<T>>>,
}

impl<T> Default for ByService<T> {
    fn default() -> Self {
        ByService { all: BTreeMap::new(), about: BTreeMap::new(), naming: BTreeMap::new() }
    }
}

impl<T: PartialEq> PartialEq for ByService<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

/// All of them, by key.
impl<T> Deref for ByService<T> {
    type Target = BTreeMap<Key, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<T: About> ByService<T> {
    /// Puts an object in the place of the one with its key, which is given back.
    pub fn insert(&mut self, key: Key, object: Arc<T>) -> Option<Arc<T>> {
        let old = self.remove(&key);
        self.about.entry(object.destination().clone()).or_default().push(Arc::clone(&object));
        for host in object.named() {
            let naming = self.naming.entry(host.clone()).or_default();
            // One rule often names several versions of one service.
            if !naming.last().is_some_and(|last| Arc::ptr_eq(last, &object)) {
                naming.push(Arc::clone(&object));
            }
        }
        self.all.insert(key, object);
        old
    }

    /// Takes the object with this key out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        let old = self.all.remove(key)?;
        take_out(&mut self.about, old.destination(), &old);
        for host in old.named() {
            take_out(&mut self.naming, host, &old);
        }
        Some(old)
    }

    /// Those about a service, in no order.
    pub fn about(&self, host: &Host) -> &[Arc<T>] {
        self.about.get(host).map_or(&[], Vec::as_slice)
    }

    /// Those that name endpoints of a service, in no order.
    pub fn naming(&self, host: &Host) -> &[Arc<T>] {
        self.naming.get(host).map_or(&[], Vec::as_slice)
    }
}

fn take_out<T>(index: &mut BTreeMap<Host, Vec<Arc<T>>>, host: &Host, object: &Arc<T>) {
    if let Some(listed) = index.get_mut(host) {
        listed.retain(|other| !Arc::ptr_eq(other, object));
        if listed.is_empty() {
            index.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fault, Labels, Origin, Target};

    fn rule(name: &str, about: &str, to: &[&str]) -> (Key, Arc<RouteRule>) {
        let key = Key { namespace: "default".to_owned(), name: name.to_owned() };
        let target = |host: &&str| Target { host: Host::new(host), labels: Labels::new(), weight: 50 };
        let rule = RouteRule {
            key: key.clone(),
            origin: Origin::default(),
            destination: Host::new(about),
            precedence: 0,
            source: None,
            conditions: Vec::new(),
            action: Action::Route { to: to.iter().map(target).collect(), rewrite: None },
            fault: Fault::default(),
            timeout: None,
            retries: None,
        };
        (key, rule.into())
    }

    #[test]
    fn objects_are_found_by_service_as_long_as_they_are_there() {
        let mut rules = ByService::default();
        for (key, rule) in [rule("one", "a", &["a", "b", "b"]), rule("two", "a", &["a"])] {
            assert!(rules.insert(key, rule).is_none());
        }
        assert_eq!((rules.about(&Host::new("a")).len(), rules.naming(&Host::new("b")).len()), (2, 1));
        let (key, moved) = rule("one", "b", &["b", "a", "b"]);
        assert!(rules.insert(key.clone(), moved).is_some());
        assert_eq!((rules.about(&Host::new("a")).len(), rules.about(&Host::new("b")).len()), (1, 1));
        assert!(rules.remove(&key).is_some());
        assert!(rules.about(&Host::new("b")).is_empty() && rules.naming(&Host::new("b")).is_empty());
        assert_eq!((rules.len(), rules.naming(&Host::new("a")).len()), (1, 1));
    }

    #[test]
    fn a_copy_is_the_same_until_one_changes() {
        let mut first = Shared::<ByService<RouteRule>>::default();
        let (key, only) = rule("one", "a", &["a"]);
        first.insert(key.clone(), only);
        let mut second = first.clone();
        assert!(first.is_same(&second));
        second.remove(&key);
        assert!(!first.is_same(&second) && first != second);
        assert_eq!((first.len(), second.len()), (1, 0));
    }
}
