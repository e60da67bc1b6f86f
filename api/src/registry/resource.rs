//! The resources of the API that the model is made of.

use super::Id;
use crate::kinds::{self, Kind};
use crate::names::{CLASSIC_GROUP, GROUP, VERSION};

/// A resource that the registry takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Services.
    Service,
    /// Endpoints of services.
    EndpointSlice,
    /// Pods.
    Pod,
    /// Ingresses, of either version.
    Ingress,
    /// Rules of routing.
    RouteRule {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// Destination policies.
    DestinationPolicy {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// What may be done.
    ServiceRole {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// Who may do it.
    ServiceRoleBinding {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// Where roles are in force.
    RbacConfig {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// How callers prove who they are.
    AuthenticationPolicy {
        /// Whether it is the classic group's.
        classic: bool,
    },
    /// What is asked about which requests, or a part of it.
    Mixer {
        /// What it is.
        kind: MixerKind,
        /// Whether it is the classic group's.
        classic: bool,
    },
}

/// A rule, or what rules refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MixerKind {
    /// A rule.
    Rule,
    /// A handler that asks roles.
    Rbac,
    /// An instance for it.
    Authorization,
    /// A handler that refuses.
    Denier,
    /// An instance for it.
    CheckNothing,
}

impl MixerKind {
    /// All of them.
    const ALL: [MixerKind; 5] =
        [MixerKind::Rule, MixerKind::Rbac, MixerKind::Authorization, MixerKind::Denier, MixerKind::CheckNothing];

    fn names(self) -> &'static Kind {
        match self {
            MixerKind::Rule => &kinds::RULE,
            MixerKind::Rbac => &kinds::RBAC,
            MixerKind::Authorization => &kinds::AUTHORIZATION,
            MixerKind::Denier => &kinds::DENIER,
            MixerKind::CheckNothing => &kinds::CHECK_NOTHING,
        }
    }
}

impl Resource {
    /// All of them; the classic group's are served only where they were asked for.
    pub const ALL: [Resource; 26] = [
        Resource::Service,
        Resource::EndpointSlice,
        Resource::Pod,
        Resource::Ingress,
        Resource::RouteRule { classic: false },
        Resource::DestinationPolicy { classic: false },
        Resource::ServiceRole { classic: false },
        Resource::ServiceRoleBinding { classic: false },
        Resource::RbacConfig { classic: false },
        Resource::AuthenticationPolicy { classic: false },
        Resource::Mixer { kind: MixerKind::Rule, classic: false },
        Resource::Mixer { kind: MixerKind::Rbac, classic: false },
        Resource::Mixer { kind: MixerKind::Authorization, classic: false },
        Resource::Mixer { kind: MixerKind::Denier, classic: false },
        Resource::Mixer { kind: MixerKind::CheckNothing, classic: false },
        Resource::RouteRule { classic: true },
        Resource::DestinationPolicy { classic: true },
        Resource::ServiceRole { classic: true },
        Resource::ServiceRoleBinding { classic: true },
        Resource::RbacConfig { classic: true },
        Resource::AuthenticationPolicy { classic: true },
        Resource::Mixer { kind: MixerKind::Rule, classic: true },
        Resource::Mixer { kind: MixerKind::Rbac, classic: true },
        Resource::Mixer { kind: MixerKind::Authorization, classic: true },
        Resource::Mixer { kind: MixerKind::Denier, classic: true },
        Resource::Mixer { kind: MixerKind::CheckNothing, classic: true },
    ];

    /// The resource of an object, by its `apiVersion` and `kind`; `None` if the model is not made of it.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Resource> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let classic = group == CLASSIC_GROUP;
        Some(match (group, kind) {
            ("", "Service") => Resource::Service,
            ("", "Pod") => Resource::Pod,
            ("discovery.k8s.io", "EndpointSlice") => Resource::EndpointSlice,
            ("networking.k8s.io" | "extensions", "Ingress") => Resource::Ingress,
            (GROUP | CLASSIC_GROUP, "RouteRule") => Resource::RouteRule { classic },
            (GROUP | CLASSIC_GROUP, "DestinationPolicy") => Resource::DestinationPolicy { classic },
            (GROUP | CLASSIC_GROUP, "ServiceRole") => Resource::ServiceRole { classic },
            (GROUP | CLASSIC_GROUP, "ServiceRoleBinding") => Resource::ServiceRoleBinding { classic },
            (GROUP | CLASSIC_GROUP, "RbacConfig") => Resource::RbacConfig { classic },
            (GROUP | CLASSIC_GROUP, "AuthenticationPolicy") => Resource::AuthenticationPolicy { classic },
            (GROUP | CLASSIC_GROUP, kind) => {
                let kind = MixerKind::ALL.into_iter().find(|of_mixer| of_mixer.names().is_written(kind))?;
                Resource::Mixer { kind, classic }
            }
            _ => return None,
        })
    }

    /// Its group; empty for Kubernetes' core.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Resource::Service | Resource::Pod => "",
            Resource::EndpointSlice => "discovery.k8s.io",
            Resource::Ingress => "networking.k8s.io",
            ours => {
                if ours.is_classic() {
                    CLASSIC_GROUP
                } else {
                    GROUP
                }
            }
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            ours if ours.is_ours() => VERSION,
            _ => "v1",
        }
    }

    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }

    /// `kind` of its objects.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Resource::Service => "Service",
            Resource::EndpointSlice => "EndpointSlice",
            Resource::Pod => "Pod",
            Resource::Ingress => "Ingress",
            Resource::RouteRule { .. } => "RouteRule",
            Resource::DestinationPolicy { .. } => "DestinationPolicy",
            Resource::ServiceRole { .. } => "ServiceRole",
            Resource::ServiceRoleBinding { .. } => "ServiceRoleBinding",
            Resource::RbacConfig { .. } => "RbacConfig",
            Resource::AuthenticationPolicy { .. } => "AuthenticationPolicy",
            Resource::Mixer { kind, .. } => kind.names().kind,
        }
    }

    /// Its name in URLs.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Resource::Service => "services",
            Resource::EndpointSlice => "endpointslices",
            Resource::Pod => "pods",
            Resource::Ingress => "ingresses",
            Resource::RouteRule { .. } => "routerules",
            Resource::DestinationPolicy { .. } => "destinationpolicies",
            Resource::ServiceRole { .. } => "serviceroles",
            Resource::ServiceRoleBinding { .. } => "servicerolebindings",
            Resource::RbacConfig { .. } => "rbacconfigs",
            Resource::AuthenticationPolicy { .. } => "authenticationpolicies",
            Resource::Mixer { kind, .. } => kind.names().plural,
        }
    }

    /// Whether its objects are of the mesh's own kinds.
    #[must_use]
    pub fn is_ours(self) -> bool {
        !matches!(self, Resource::Service | Resource::EndpointSlice | Resource::Pod | Resource::Ingress)
    }

    /// Whether it is the classic group's.
    #[must_use]
    pub fn is_classic(self) -> bool {
        self == self.in_group(true) && self.is_ours()
    }

    /// The same of our group, or of the classic one. Resources of Kubernetes have no twin.
    #[must_use]
    pub fn in_group(self, classic: bool) -> Resource {
        match self {
            Resource::RouteRule { .. } => Resource::RouteRule { classic },
            Resource::DestinationPolicy { .. } => Resource::DestinationPolicy { classic },
            Resource::ServiceRole { .. } => Resource::ServiceRole { classic },
            Resource::ServiceRoleBinding { .. } => Resource::ServiceRoleBinding { classic },
            Resource::RbacConfig { .. } => Resource::RbacConfig { classic },
            Resource::AuthenticationPolicy { .. } => Resource::AuthenticationPolicy { classic },
            Resource::Mixer { kind, .. } => Resource::Mixer { kind, classic },
            other => other,
        }
    }
}

impl Id {
    /// The object of that name in our group, and in the classic one.
    pub(super) fn in_both_groups(&self) -> (Id, Id) {
        let of = |classic| Id { resource: self.resource.in_group(classic), key: self.key.clone() };
        (of(false), of(true))
    }
}
