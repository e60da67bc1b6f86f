//! Tells of CustomResourceDefinitions that their resources are served.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, Key, key, keys, write_status};
use crate::api::object::{array, child, set_condition};
use crate::api::{Api, ApiResult, Event};

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

pub(super) struct Definitions {
    api: Arc<Api>,
}

impl Definitions {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: api.clone() }
    }
}

impl Controller for Definitions {
    const WATCHED: &'static [&'static str] = &[DEFINITIONS];

    fn all(&self) -> Vec<Key> {
        keys(self.api.store(), DEFINITIONS)
    }

    fn affected(&self, event: &Event) -> Vec<Key> {
        vec![key(&event.object)]
    }

    async fn reconcile(&self, (_, name): &Key) -> ApiResult<()> {
        let old = self.api.store().get(DEFINITIONS, "", name)?;
        let mut new = (*old).clone();
        let stored: Vec<Value> = array(&old, "/spec/versions")
            .iter()
            .filter(|it| it["storage"] == true)
            .map(|it| it["name"].clone())
            .collect();
        let names = old["spec"]["names"].clone();
        let status = child(&mut new, "status");
        status.insert("acceptedNames".into(), names);
        status.insert("storedVersions".into(), json!(stored));
        set_condition(&mut new, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
        set_condition(&mut new, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted");
        write_status(self.api.store(), DEFINITIONS, &old, new)
    }
}
