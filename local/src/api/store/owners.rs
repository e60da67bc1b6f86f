//! Who owns what: found by the owner's uid instead of by looking at everything.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::Store;
use crate::api::object::{self, array, text};

/// Resource, namespace and name of an object.
type Place = (String, String, String);

/// The objects that name an owner, by its uid.
#[derive(Default)]
pub(super) struct Owners(HashMap<String, BTreeSet<Place>>);

impl Owners {
    /// Takes note of a change of an object.
    pub(super) fn note(&mut self, resource: &str, before: Option<&Value>, after: Option<&Value>) {
        let owners = |object: Option<&Value>| -> Vec<String> {
            let references = object.map(|it| array(it, "/metadata/ownerReferences")).unwrap_or_default();
            references.iter().map(|owner| text(owner, "/uid").to_owned()).collect()
        };
        let (old, new) = (owners(before), owners(after));
        if old == new {
            return;
        }
        let Some(object) = after.or(before) else { return };
        let place = (resource.to_owned(), object::namespace(object).to_owned(), object::name(object).to_owned());
        for uid in old {
            if let Some(owned) = self.0.get_mut(&uid) {
                owned.remove(&place);
                if owned.is_empty() {
                    self.0.remove(&uid);
                }
            }
        }
        for uid in new {
            self.0.entry(uid).or_default().insert(place.clone());
        }
    }
}

impl Store {
    /// The objects that name an object of that uid among their owners, each with its resource.
    pub fn owned(&self, uid: &str) -> Vec<(String, Arc<Value>)> {
        let state = self.lock();
        let places = state.owners.0.get(uid).into_iter().flatten();
        places
            .filter_map(|(resource, namespace, name)| {
                Some((resource.clone(), Arc::clone(state.get(resource, namespace, name)?)))
            })
            .collect()
    }

    /// As [`Store::owned`], of one resource.
    pub fn owned_of(&self, uid: &str, resource: &str) -> Vec<Arc<Value>> {
        let all = self.owned(uid);
        all.into_iter().filter(|(found, _)| found == resource).map(|(_, object)| object).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_object_owns_follows_its_references() {
        let directory = tempfile::tempdir().expect("a directory");
        let make =
            |owners: Value| json!({"metadata": {"name": "a", "namespace": "default", "ownerReferences": owners}});
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid}]);
        let store = Store::open(directory.path()).expect("a store");
        let owned = |store: &Store, uid: &str| store.owned_of(uid, "configmaps").len();
        store.create("configmaps", make(owner("1"))).expect("created");
        assert_eq!((owned(&store, "1"), owned(&store, "2"), store.owned_of("1", "pods").len()), (1, 0, 0));
        store.update("configmaps", make(owner("2"))).expect("updated");
        assert_eq!((owned(&store, "1"), owned(&store, "2")), (0, 1));
        drop(store);
        let store = Store::open(directory.path()).expect("it opens again");
        assert_eq!(owned(&store, "2"), 1);
        store.delete("configmaps", "default", "a", &super::super::DeleteOptions::now()).expect("deleted");
        assert_eq!(owned(&store, "2"), 0);
    }
}
