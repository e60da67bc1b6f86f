//! What a proxy in each pod is configured for, brought up to date for those pods alone that a change is about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::model::{Key, Node, Role};
use api::registry::{Registry, Resource};
use engine::tables::{Name, NameMap};
use serde_json::Value as Json;

use crate::source::key_of;

/// The nodes by pod. Which role a proxy has it says itself, so all of these are sidecars.
#[derive(Debug, Default)]
pub struct Nodes {
    current: NameMap<Arc<Node>>,
    /// Pods that must be looked at again.
    stale: BTreeSet<Key>,
    /// Namespaces whose pods must be looked at again.
    stale_namespaces: BTreeSet<String>,
    all_stale: bool,
    /// Pods in each slice, to know whom a slice was about.
    slices: BTreeMap<Key, BTreeSet<Key>>,
}

impl Nodes {
    /// The nodes as of the last refresh.
    #[must_use]
    pub fn current(&self) -> NameMap<Arc<Node>> {
        self.current.clone()
    }

    /// Everything may be different.
    pub fn are_all_stale(&mut self) {
        self.all_stale = true;
    }

    /// An object is new, different or gone.
    pub fn touched_by(&mut self, resource: Resource, object: &Json) {
        let key = key_of(object);
        match resource {
            Resource::Pod => {
                self.stale.insert(key);
            }
            Resource::Service => {
                self.stale_namespaces.insert(key.namespace);
            }
            Resource::EndpointSlice => {
                let pods = pods_of(object, &key.namespace);
                let before = self.slices.insert(key, pods.clone());
                self.stale.extend(before.into_iter().flatten());
                self.stale.extend(pods);
            }
            _ => {}
        }
    }

    /// Looks again at those that may be different.
    pub fn refresh(&mut self, world: &Registry) {
        let namespaces = std::mem::take(&mut self.stale_namespaces);
        let mut stale = std::mem::take(&mut self.stale);
        if std::mem::take(&mut self.all_stale) {
            stale.extend(self.current.entries().map(|(_, node)| node.workload.key.clone()));
            stale.extend(world.workloads().map(|workload| workload.key.clone()));
        } else if !namespaces.is_empty() {
            let keys = world.workloads().map(|workload| &workload.key);
            stale.extend(keys.filter(|key| namespaces.contains(&key.namespace)).cloned());
        }
        for key in stale {
            let name = key.to_string();
            match world.node(&key, Role::Sidecar) {
                None => {
                    self.current.remove(&name);
                }
                Some(node) if self.current.get_str(&name).is_some_and(|known| **known == node) => {}
                Some(node) => {
                    self.current.insert(Name::new(&name), Arc::new(node));
                }
            }
        }
    }
}

/// The pods that an EndpointSlice refers to.
fn pods_of(slice: &Json, namespace: &str) -> BTreeSet<Key> {
    let endpoints = slice.get("endpoints").and_then(Json::as_array).into_iter().flatten();
    let targets = endpoints.filter_map(|endpoint| endpoint.get("targetRef"));
    let pods = targets.filter(|target| target.get("kind").and_then(Json::as_str) == Some("Pod"));
    let names = pods.filter_map(|target| target.get("name").and_then(Json::as_str));
    names.map(|name| Key { namespace: namespace.to_owned(), name: name.to_owned() }).collect()
}
