//! Furnishes namespaces, and empties those that are to go.

use std::sync::Arc;

use serde_json::json;

use super::{Controller, Key, keys};
use crate::api::{Api, ApiResult, DeleteOptions, Event, Reason, object, pods};

pub(super) struct Namespaces {
    api: Arc<Api>,
}

impl Namespaces {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }

    fn furnish(&self, namespace: &str) -> ApiResult<()> {
        let store = self.api.store();
        pods::make_default(store, namespace)?;
        let data = json!({"ca.crt": self.api.pki().ca});
        let map = json!({"metadata": {"name": "kube-root-ca.crt", "namespace": namespace}, "data": data});
        match store.create("configmaps", map) {
            Err(error) if error.reason == Reason::AlreadyExists => {
                store.patch("configmaps", namespace, "kube-root-ca.crt", &json!({"data": data})).map(|_| ())
            }
            made => made.map(|_| ()),
        }
    }

    fn empty(&self, namespace: &str) -> ApiResult<()> {
        let store = self.api.store();
        let mut left = 0;
        for (resource, found) in store.everything() {
            if object::namespace(&found) != namespace {
                continue;
            }
            left += 1;
            // Webhooks may live in the namespace that goes, so they are not asked.
            if !object::is_deleting(&found)
                && let Err(error) = store.delete(&resource, namespace, object::name(&found), &DeleteOptions::default())
                && !error.is_not_found()
            {
                return Err(error);
            }
        }
        if left == 0 {
            return store.finish_namespace(namespace);
        }
        Ok(())
    }
}

impl Controller for Namespaces {
    const WATCHED: &'static [&'static str] = &[];

    fn all(&self) -> Vec<Key> {
        keys(self.api.store(), "namespaces")
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        match (&*event.resource, object::namespace(&event.object)) {
            ("namespaces", _) => vec![(String::new(), object::name(&event.object).to_owned())],
            (_, "") => vec![],
            ("serviceaccounts" | "configmaps", namespace) => vec![(String::new(), namespace.to_owned())],
            (_, namespace) => match self.api.store().get("namespaces", "", namespace) {
                Ok(found) if object::is_deleting(&found) => vec![(String::new(), namespace.to_owned())],
                _ => vec![],
            },
        }
    }

    async fn reconcile(&self, (_, name): &Key) -> ApiResult<()> {
        let namespace = self.api.store().get("namespaces", "", name)?;
        if object::is_deleting(&namespace) { self.empty(name) } else { self.furnish(name) }
    }
}
