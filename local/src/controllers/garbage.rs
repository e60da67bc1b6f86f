//! Deletes what has lost all its owners.

use std::sync::Arc;

use serde_json::Value;

use super::{Controller, Key};
use crate::api::object::{array, text};
use crate::api::{Api, ApiResult, Change, DeleteOptions, Event, object};

pub(super) struct Garbage {
    api: Arc<Api>,
}

impl Garbage {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }

    fn has_an_owner(&self, found: &Value) -> bool {
        let resources = self.api.store().resources();
        array(found, "/metadata/ownerReferences").iter().any(|owner| {
            let api_version = text(owner, "/apiVersion");
            let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
            // What is not known here cannot be said to be gone.
            let Some(resource) = resources.by_group_kind(group, text(owner, "/kind")) else { return true };
            let namespace = if resource.namespaced { object::namespace(found) } else { "" };
            let owner_found = self.api.store().get(&resource.key(), namespace, text(owner, "/name"));
            owner_found.is_ok_and(|it| object::uid(&it) == text(owner, "/uid"))
        })
    }
}

/// Here a key is the uid of an owner that is gone, or place and name of an object that has just been made; with neither
/// it is all objects.
impl Controller for Garbage {
    const WATCHED: &'static [&'static str] = &[];

    fn all(&self) -> Vec<Key> {
        vec![(String::new(), String::new())]
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        match event.change {
            Change::Deleted => vec![(String::new(), object::uid(&event.object).to_owned())],
            Change::Added if !array(&event.object, "/metadata/ownerReferences").is_empty() => {
                let place = format!("{}{BETWEEN}{}", event.resource, object::namespace(&event.object));
                vec![(place, object::name(&event.object).to_owned())]
            }
            _ => vec![],
        }
    }

    async fn reconcile(&self, (place, name): &Key) -> ApiResult<()> {
        let store = self.api.store();
        let concerned = match (place.split_once(BETWEEN), name.as_str()) {
            (Some((resource, namespace)), name) => vec![(resource.to_owned(), store.get(resource, namespace, name)?)],
            (None, "") => store.everything(),
            (None, uid) => store.owned(uid),
        };
        for (resource, found) in concerned {
            let owners = array(&found, "/metadata/ownerReferences");
            if owners.is_empty() || object::is_deleting(&found) || self.has_an_owner(&found) {
                continue;
            }
            let options = DeleteOptions { uid: Some(object::uid(&found).to_owned()), ..DeleteOptions::default() };
            match store.delete(&resource, object::namespace(&found), object::name(&found), &options) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Between resource and namespace in a key; no name has it.
const BETWEEN: char = ' ';
