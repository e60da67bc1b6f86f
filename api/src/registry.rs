//! From objects of the API to the [`Model`], one change at a time.
//!
//! A [`Registry`] takes every object as JSON, as the API server or a file has it, and keeps the model up to date: a
//! changed pod touches the endpoints of its services and nothing else. An object that is wrong is out of force until
//! it is right, and disables no other. Nothing else of Kubernetes passes from here on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::config::Meant;
use crate::kubernetes::{EndpointSlice, Ingress, Metadata, Pod, Service};
use crate::model::{About, ByService, Host, Key, Mesh, MeshTls, Model, Node, Origin, Role, Shared, Workload};
use crate::names::GROUP;
use crate::object;
use crate::problem::{Location, Problem, any_error};

mod access;
mod doubts;
mod endpoints;
mod ingress;
mod mixer;
mod protocol;
mod put;
mod resource;

pub use protocol::protocol;
pub use resource::{MixerKind, Resource};

/// Everything that the mesh knows of the cluster, and the model that follows from it.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    model: Model,
    generation: u64,
    pods: BTreeMap<Key, Arc<Workload>>,
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, EndpointSlice>,
    /// Names of the slices of each service.
    slices_of: BTreeMap<Key, BTreeSet<String>>,
    /// Services that have a pod in one of their slices.
    services_of: BTreeMap<Key, BTreeSet<Key>>,
    ingresses: BTreeMap<Key, (Ingress, Origin)>,
    configs: BTreeMap<Id, Config>,
    problems: BTreeMap<Id, Vec<Problem>>,
}

/// An object among all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// What it is.
    pub resource: Resource,
    /// Namespace and name.
    pub key: Key,
}

/// An object of one of our kinds.
#[derive(Debug, Clone)]
struct Config {
    resource_version: String,
    meant: Option<Meant>,
    problems: Vec<Problem>,
}

/// How an object of one of our kinds stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The version of it that was judged.
    pub resource_version: String,
    /// Whether it is in force.
    pub is_accepted: bool,
    /// What there is to say about it.
    pub problems: Vec<Problem>,
}

impl Registry {
    /// Begins without any object.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Registry { model: Model { mesh: Arc::new(mesh), ..Model::default() }, ..Registry::default() }
    }

    /// Takes an object that is new or has changed, and says what is wrong with it.
    ///
    /// `apiVersion` and `kind` may be missing, as they are in lists of the API server.
    pub fn apply(&mut self, resource: Resource, object: &Json) -> Vec<Problem> {
        self.apply_from(resource, object, None)
    }

    /// Takes an object that stands in a file.
    pub fn apply_from(&mut self, resource: Resource, object: &Json, location: Option<Location>) -> Vec<Problem> {
        let metadata = object.get("metadata").map_or_else(|| Ok(Metadata::default()), Metadata::deserialize);
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(error) => return vec![unreadable(resource, &error, location)],
        };
        let id = Id { resource, key: metadata.key() };
        let origin = Origin { resource_version: metadata.resource_version, location: location.clone() };
        self.problems.remove(&id);
        let taken = match resource {
            Resource::Service => Service::deserialize(object).map(|service| {
                let wrong = endpoints::wrong_annotations(&service, location.as_ref());
                if !wrong.is_empty() {
                    self.problems.insert(id.clone(), wrong);
                }
                self.take_service(&id.key, Some(service));
            }),
            Resource::EndpointSlice => {
                EndpointSlice::deserialize(object).map(|slice| self.take_slice(&id.key, Some(slice)))
            }
            Resource::Pod => Pod::deserialize(object).map(|pod| self.take_pod(&id.key, Some(&pod))),
            Resource::Ingress => {
                Ingress::deserialize(object).map(|ingress| self.take_ingress(&id, Some((ingress, origin))))
            }
            _ => {
                self.take_config(&id, object, &origin);
                Ok(())
            }
        };
        if let Err(error) = taken {
            self.remove(resource, &id.key);
            self.problems.insert(id.clone(), vec![unreadable(resource, &error, location)]);
        }
        self.problems_of(&id)
    }

    /// Forgets an object.
    pub fn remove(&mut self, resource: Resource, key: &Key) {
        let id = Id { resource, key: key.clone() };
        self.problems.remove(&id);
        match resource {
            Resource::Service => self.take_service(key, None),
            Resource::EndpointSlice => self.take_slice(key, None),
            Resource::Pod => self.take_pod(key, None),
            Resource::Ingress => self.take_ingress(&id, None),
            _ => {
                self.configs.remove(&id);
                self.settle(&id);
            }
        }
    }

    /// Takes the complete list of objects of one resource, and forgets those that are not in it.
    pub fn replace<'o>(&mut self, resource: Resource, objects: impl IntoIterator<Item = &'o Json>) {
        let mut gone: BTreeSet<Key> = self.keys(resource);
        for object in objects {
            if let Some(metadata) = object.get("metadata").and_then(|metadata| Metadata::deserialize(metadata).ok()) {
                gone.remove(&metadata.key());
            }
            self.apply(resource, object);
        }
        for key in gone {
            self.remove(resource, &key);
        }
    }

    fn keys(&self, resource: Resource) -> BTreeSet<Key> {
        let wrong = self.problems.keys().filter(|id| id.resource == resource).map(|id| id.key.clone());
        match resource {
            Resource::Service => self.services.keys().cloned().chain(wrong).collect(),
            Resource::EndpointSlice => self.slices.keys().cloned().chain(wrong).collect(),
            Resource::Pod => self.pods.keys().cloned().chain(wrong).collect(),
            Resource::Ingress => self.ingresses.keys().cloned().chain(wrong).collect(),
            _ => self.configs.keys().filter(|id| id.resource == resource).map(|id| id.key.clone()).collect(),
        }
    }

    /// The model as it follows from all objects so far.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A number that grows whenever the model changes, and only then.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Changes the settings of the mesh other than its domain, which decides the names of all services.
    pub fn set_mesh(&mut self, mesh: Mesh) {
        if *self.model.mesh != mesh {
            self.model.mesh = Arc::new(mesh);
            self.generation += 1;
        }
    }

    /// Everything that is wrong with any object.
    pub fn problems(&self) -> impl Iterator<Item = (&Id, &Problem)> {
        let others = self.problems.iter();
        let configs = self.configs.iter().map(|(id, config)| (id, &config.problems));
        others.chain(configs).flat_map(|(id, problems)| problems.iter().map(move |problem| (id, problem)))
    }

    fn problems_of(&self, id: &Id) -> Vec<Problem> {
        self.configs
            .get(id)
            .map(|config| &config.problems)
            .or_else(|| self.problems.get(id))
            .cloned()
            .unwrap_or_default()
    }

    /// How an object of one of our kinds stands; `None` when there is no such object.
    #[must_use]
    pub fn status(&self, id: &Id) -> Option<Status> {
        let config = self.configs.get(id)?;
        Some(Status {
            resource_version: config.resource_version.clone(),
            is_accepted: config.meant.is_some() && !any_error(&config.problems),
            problems: config.problems.clone(),
        })
    }

    /// The pod of that key, once it is known.
    #[must_use]
    pub fn workload(&self, pod: &Key) -> Option<&Arc<Workload>> {
        self.pods.get(pod)
    }

    /// All pods that are known and not over.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.pods.values()
    }

    /// What a proxy in that pod is to be configured for.
    ///
    /// Its services are those that select the pod, ready or not, and those that have it in a slice.
    #[must_use]
    pub fn node(&self, pod: &Key, role: Role) -> Option<Node> {
        let workload = self.pods.get(pod)?.clone();
        let listed = self.services_of.get(pod).into_iter().flatten().filter(|key| self.services.contains_key(*key));
        let begin = Key { namespace: pod.namespace.clone(), name: String::new() };
        let selecting = self
            .services
            .range(begin..)
            .take_while(|(key, _)| key.namespace == pod.namespace)
            .filter(|(_, service)| selects(service, &workload))
            .map(|(key, _)| key);
        let services: BTreeSet<Host> = listed.chain(selecting).map(|key| self.host(key)).collect();
        Some(Node { role, workload, services: services.into_iter().collect(), tls: MeshTls::Own })
    }

    fn host(&self, service: &Key) -> Host {
        Host::of_service(&service.name, &service.namespace, &self.model.mesh.domain)
    }

    fn take_config(&mut self, id: &Id, object: &Json, origin: &Origin) {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| json!(id.resource.api_version()));
            fields.entry("kind").or_insert_with(|| json!(id.resource.kind()));
        }
        let (meant, problems) = object::mean(&object, origin, &self.model.mesh.domain);
        let config = Config { resource_version: origin.resource_version.clone(), meant, problems };
        self.configs.insert(id.clone(), config);
        self.settle(id);
    }

    /// Decides which of the objects of that name in both groups is in force, and puts it into the model.
    fn settle(&mut self, id: &Id) {
        let (ours, classic) = id.in_both_groups();
        let is_shadowed = self.configs.contains_key(&ours);
        if let Some(config) = self.configs.get_mut(&classic) {
            config.problems.retain(|problem| !is_shadow(problem));
            if is_shadowed {
                let (kind, key) = (id.resource.kind(), &id.key);
                config.problems.push(
                    Problem::error(format!("{GROUP} has a {kind} of the same name, {SHADOW}"))
                        .in_object(format!("{kind} {key}"))
                        .with_hint("delete one of the two"),
                );
            }
        }
        let winner = self.configs.get(&ours).or_else(|| self.configs.get(&classic));
        let meant = winner.and_then(|config| config.meant.clone());
        let key = &id.key;
        if winner.is_some() && meant.is_none() && access::stays(&self.model.access, id.resource, key) {
            return;
        }
        let changed = match (id.resource, meant) {
            (Resource::RouteRule { .. }, Some(Meant::RouteRule(rule))) => {
                put_about(&mut self.model.route_rules, key, Some(rule))
            }
            (Resource::RouteRule { .. }, _) => put_about(&mut self.model.route_rules, key, None),
            (Resource::DestinationPolicy { .. }, Some(Meant::DestinationPolicy(policy))) => {
                put_about(&mut self.model.destination_policies, key, Some(policy))
            }
            (Resource::DestinationPolicy { .. }, _) => put_about(&mut self.model.destination_policies, key, None),
            (resource, meant) => access::put(&mut self.model.access, resource, key, meant),
        };
        self.generation += u64::from(changed);
    }
}

const SHADOW: &str = "which wins over this one";

fn is_shadow(problem: &Problem) -> bool {
    problem.message.ends_with(SHADOW)
}

/// Whether a service selects a workload of its namespace. A service without a selector selects nothing.
fn selects(service: &Service, workload: &Workload) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty() && selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}

fn unreadable(resource: Resource, error: &serde_json::Error, location: Option<Location>) -> Problem {
    let problem = Problem::error(format!("this {} cannot be read: {error}", resource.kind()));
    match location {
        Some(location) => problem.at(location),
        None => problem,
    }
}

/// Puts a value into a map of the model, or takes it out; says whether that changed anything.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: &K, value: Option<V>) -> bool {
    match value {
        None => map.remove(key).is_some(),
        Some(value) if map.get(key).is_some_and(|old| **old == value) => false,
        Some(value) => {
            map.insert(key.clone(), Arc::new(value));
            true
        }
    }
}

/// As [`put`], into what copies of the model share: it is not copied when nothing changes.
fn put_shared<K: Ord + Clone, V: PartialEq>(map: &mut Shared<BTreeMap<K, Arc<V>>>, key: &K, value: Option<V>) -> bool {
    map.get(key).map(|old| &**old) != value.as_ref() && put(map, key, value)
}

/// As [`put_shared`], where objects are found by their service too.
fn put_about<V: About + PartialEq + Clone>(map: &mut Shared<ByService<V>>, key: &Key, value: Option<V>) -> bool {
    if map.get(key).map(|old| &**old) == value.as_ref() {
        return false;
    }
    match value {
        None => map.remove(key),
        Some(value) => map.insert(key.clone(), Arc::new(value)),
    };
    true
}

#[cfg(test)]
mod tests;
