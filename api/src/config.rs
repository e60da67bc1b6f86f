//! Configuration as typed: every field of the 2017 kinds, as the user wrote it, believed only after it was checked.
//!
//! Each kind has a type here that is read from a tree, checks itself and becomes its counterpart in [`crate::model`].
//! Fields that are understood but not in force are read and checked like all others, and then refused with those words.

use crate::kinds::{self, Kind};
use crate::model::{Key, Origin};
use crate::read::Context;
use crate::yaml::Node;

pub mod authentication_policy;
pub mod check;
pub mod cors;
pub mod destination_policy;
pub mod duration;
pub mod egress_rule;
pub mod fault;
pub mod jwt;
pub mod matching;
pub mod mixer;
pub mod rbac_config;
pub mod resilience;
pub mod route_rule;
pub mod service;
pub mod service_role;
pub mod service_role_binding;

pub use authentication_policy::AuthenticationPolicy;
pub use destination_policy::DestinationPolicy;
pub use egress_rule::EgressRule;
pub use rbac_config::RbacConfig;
pub use route_rule::RouteRule;
pub use service::IstioService;
pub use service_role::ServiceRole;
pub use service_role_binding::ServiceRoleBinding;

/// The `spec` of an object of one of our kinds, as typed.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// Of a `RouteRule`.
    RouteRule(Box<RouteRule>),
    /// Of a `DestinationPolicy`.
    DestinationPolicy(Box<DestinationPolicy>),
    /// Of an `EgressRule`.
    EgressRule(EgressRule),
    /// Of a `ServiceRole`.
    ServiceRole(ServiceRole),
    /// Of a `ServiceRoleBinding`.
    ServiceRoleBinding(ServiceRoleBinding),
    /// Of an `RbacConfig`.
    RbacConfig(RbacConfig),
    /// Of an `AuthenticationPolicy`.
    AuthenticationPolicy(AuthenticationPolicy),
    /// Of a `Rule`.
    Rule(mixer::Rule),
    /// Of an `Rbac`.
    Rbac(mixer::Rbac),
    /// Of an `Authorization`.
    Authorization(mixer::Authorization),
    /// Of a `Denier`.
    Denier(mixer::Denier),
    /// Of a `CheckNothing`.
    CheckNothing(mixer::CheckNothing),
}

/// An object of one of our kinds, as meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Meant {
    /// A rule of routing.
    RouteRule(crate::model::RouteRule),
    /// How a destination is balanced.
    DestinationPolicy(crate::model::DestinationPolicy),
    /// What may be done.
    ServiceRole(crate::model::ServiceRole),
    /// Who may do it.
    ServiceRoleBinding(crate::model::ServiceRoleBinding),
    /// Where roles are in force.
    RbacConfig(crate::model::RbacConfig),
    /// How callers prove who they are.
    AuthenticationPolicy(crate::model::AuthenticationPolicy),
    /// What is asked about which requests.
    Rule(crate::model::Rule),
    /// What answers it.
    Handler(crate::model::Handler),
    /// What it is asked.
    Instance(crate::model::Instance),
}

/// What decides the meaning of a spec besides its own text.
#[derive(Debug, Clone)]
pub struct Surroundings<'d> {
    /// Namespace and name of the object.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// DNS domain of the cluster.
    pub domain: &'d str,
}

impl Spec {
    /// Reads the spec of an object of that kind, with `context` looking at `spec`.
    #[must_use]
    pub fn read<'a>(kind: &Kind, node: &'a Node, context: &mut Context<'a>) -> Option<Spec> {
        match kind.kind {
            k if k == kinds::ROUTE_RULE.kind => context.read(node).map(|rule| Spec::RouteRule(Box::new(rule))),
            k if k == kinds::DESTINATION_POLICY.kind => {
                context.read(node).map(|policy| Spec::DestinationPolicy(Box::new(policy)))
            }
            k if k == kinds::EGRESS_RULE.kind => context.read(node).map(Spec::EgressRule),
            k if k == kinds::SERVICE_ROLE.kind => context.read(node).map(Spec::ServiceRole),
            k if k == kinds::SERVICE_ROLE_BINDING.kind => context.read(node).map(Spec::ServiceRoleBinding),
            k if k == kinds::RBAC_CONFIG.kind => context.read(node).map(Spec::RbacConfig),
            k if k == kinds::AUTHENTICATION_POLICY.kind => context.read(node).map(Spec::AuthenticationPolicy),
            k if k == kinds::RULE.kind => context.read(node).map(Spec::Rule),
            k if k == kinds::RBAC.kind => context.read(node).map(Spec::Rbac),
            k if k == kinds::AUTHORIZATION.kind => context.read(node).map(Spec::Authorization),
            k if k == kinds::DENIER.kind => context.read(node).map(Spec::Denier),
            k if k == kinds::CHECK_NOTHING.kind => context.read(node).map(Spec::CheckNothing),
            _ => None,
        }
    }

    /// Takes the name of the classic system namespace for that of the mesh's own, as files of that era mean it.
    pub fn in_own_namespace(&mut self) {
        if let Spec::ServiceRoleBinding(binding) = self {
            binding.in_own_namespace();
        }
    }

    /// Checks the spec and says what it means, with `context` looking at `spec`.
    ///
    /// `None` when something refuses it; the context knows what.
    #[must_use]
    pub fn mean(&self, around: &Surroundings<'_>, context: &mut Context<'_>) -> Option<Meant> {
        match self {
            Spec::RouteRule(rule) => rule.mean(around, context).map(Meant::RouteRule),
            Spec::DestinationPolicy(policy) => policy.mean(around, context).map(Meant::DestinationPolicy),
            Spec::EgressRule(rule) => {
                rule.check(around, context);
                None
            }
            Spec::ServiceRole(role) => role.mean(around, context).map(Meant::ServiceRole),
            Spec::ServiceRoleBinding(binding) => binding.mean(around, context).map(Meant::ServiceRoleBinding),
            Spec::RbacConfig(config) => config.mean(around, context).map(Meant::RbacConfig),
            Spec::AuthenticationPolicy(policy) => policy.mean(around, context).map(Meant::AuthenticationPolicy),
            Spec::Rule(rule) => rule.mean(around, context).map(Meant::Rule),
            Spec::Rbac(rbac) => rbac.mean(context).map(Meant::Handler),
            Spec::Authorization(authorization) => authorization.mean(context).map(Meant::Instance),
            Spec::Denier(denier) => denier.mean(context).map(Meant::Handler),
            Spec::CheckNothing(_) => Some(Meant::Instance(crate::model::Instance::CheckNothing)),
        }
    }
}
