//! Rules of what is asked about which requests, as meant: a rule gives instances to handlers.
//!
//! Two adapters are here, both answered by the proxy itself: `rbac`, which asks roles, and `denier`, which refuses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Host, Key, Origin, SubjectTest};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};

/// Rules and what they refer to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mixer {
    /// Rules by key.
    pub rules: BTreeMap<Key, Arc<Rule>>,
    /// What answers.
    pub handlers: BTreeMap<Reference, Arc<Handler>>,
    /// What is asked.
    pub instances: BTreeMap<Reference, Arc<Instance>>,
}

impl Mixer {
    /// What a rule refers to and nobody has made.
    pub fn missing<'m>(&'m self, rule: &'m Rule) -> impl Iterator<Item = &'m Reference> {
        rule.actions.iter().flat_map(|action| {
            let handler = Some(&action.handler).filter(|handler| !self.handlers.contains_key(*handler));
            handler.into_iter().chain(action.instances.iter().filter(|of| !self.instances.contains_key(*of)))
        })
    }
}

/// Names a handler or an instance: `name.kind.namespace`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its adapter or template, in lower case.
    pub kind: &'static str,
    /// Its namespace. Both names of the system namespace are one here.
    pub namespace: String,
}

impl Reference {
    /// Refers to the object of that kind and key.
    #[must_use]
    pub fn new(kind: &'static str, key: &Key) -> Self {
        let namespace = if is_system(&key.namespace) { SYSTEM_NAMESPACE } else { &key.namespace };
        Reference { name: key.name.clone(), kind, namespace: namespace.to_owned() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// What is asked about which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// What requests must be like: all of these.
    pub tests: Vec<Test>,
    /// What is asked about them. Never empty.
    pub actions: Vec<Action>,
}

impl Rule {
    /// Whether it speaks for workloads of a namespace: a rule of the system namespace does for all, others for their own.
    #[must_use]
    pub fn speaks_for(&self, namespace: &str) -> bool {
        is_system(&self.key.namespace) || self.key.namespace == namespace
    }

    /// The actions of an adapter.
    pub fn asks(&self, adapter: Adapter) -> impl Iterator<Item = &Action> {
        self.actions.iter().filter(move |action| action.adapter == adapter)
    }
}

fn is_system(namespace: &str) -> bool {
    [SYSTEM_NAMESPACE, CLASSIC_SYSTEM_NAMESPACE].contains(&namespace)
}

/// Asks a handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Whose handler it is, which its name says, so that a rule restricts even while its handler is not there.
    pub adapter: Adapter,
    /// The handler.
    pub handler: Reference,
    /// What it is asked. Never empty.
    pub instances: Vec<Reference>,
}

/// What answers questions of some kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// Roles do: [`super::ServiceRole`].
    Rbac,
    /// The answer is no.
    Denier,
}

/// An attribute that must have a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The namespace of the workload that is called.
    DestinationNamespace(String),
    /// The service that is called.
    DestinationService(Host),
    /// A label of the workload that is called.
    DestinationLabel(String, String),
    /// Who calls, by its certificate.
    Caller(SubjectTest),
    /// The path, without its query.
    Path(String),
    /// The method.
    Method(String),
    /// A header, by its lower-case name.
    Header(String, String),
}

impl Test {
    /// Whether the answer is another for each request; else it is known of the workload that is called.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        match self {
            Test::DestinationNamespace(_) | Test::DestinationService(_) | Test::DestinationLabel(..) => false,
            Test::Caller(_) | Test::Path(_) | Test::Method(_) | Test::Header(..) => true,
        }
    }
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// Roles.
    Rbac,
    /// A refusal, with these words.
    Denier {
        /// Why; may be empty.
        message: String,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// Who does what, as roles and bindings look at it.
    Authorization,
    /// Nothing.
    CheckNothing,
}
