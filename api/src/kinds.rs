//! The kinds that users write: their names in every spelling, their groups, and whether they are in force.

use std::fmt;

use crate::names::{CLASSIC_GROUP, GROUP, VERSION};
use crate::suggest;

/// One kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As in `kind:`, `RouteRule`.
    pub kind: &'static str,
    /// As in URLs, `routerules`.
    pub plural: &'static str,
    /// `routerule`.
    pub singular: &'static str,
    /// `route-rule`, as the CLI prints it.
    pub dashed: &'static str,
    /// `route-rules`.
    pub dashed_plural: &'static str,
    /// Abbreviations, as `rr`.
    pub short: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether objects have an effect; else they are refused with those words.
    pub in_force: bool,
}

/// Rules of routing.
pub const ROUTE_RULE: Kind = Kind {
    kind: "RouteRule",
    plural: "routerules",
    singular: "routerule",
    dashed: "route-rule",
    dashed_plural: "route-rules",
    short: &["rr"],
    namespaced: true,
    in_force: true,
};

/// How traffic to a destination is balanced.
pub const DESTINATION_POLICY: Kind = Kind {
    kind: "DestinationPolicy",
    plural: "destinationpolicies",
    singular: "destinationpolicy",
    dashed: "destination-policy",
    dashed_plural: "destination-policies",
    short: &["dp"],
    namespaced: true,
    in_force: true,
};

/// Services outside of the mesh.
pub const EGRESS_RULE: Kind = Kind {
    kind: "EgressRule",
    plural: "egressrules",
    singular: "egressrule",
    dashed: "egress-rule",
    dashed_plural: "egress-rules",
    short: &["er"],
    namespaced: true,
    in_force: false,
};

/// What may be done.
pub const SERVICE_ROLE: Kind = Kind {
    kind: "ServiceRole",
    plural: "serviceroles",
    singular: "servicerole",
    dashed: "service-role",
    dashed_plural: "service-roles",
    short: &["sr"],
    namespaced: true,
    in_force: true,
};

/// Who may do it.
pub const SERVICE_ROLE_BINDING: Kind = Kind {
    kind: "ServiceRoleBinding",
    plural: "servicerolebindings",
    singular: "servicerolebinding",
    dashed: "service-role-binding",
    dashed_plural: "service-role-bindings",
    short: &["srb"],
    namespaced: true,
    in_force: true,
};

/// Where roles are in force.
pub const RBAC_CONFIG: Kind = Kind {
    kind: "RbacConfig",
    plural: "rbacconfigs",
    singular: "rbacconfig",
    dashed: "rbac-config",
    dashed_plural: "rbac-configs",
    short: &["rbc"],
    namespaced: true,
    in_force: true,
};

/// How callers prove who they are.
pub const AUTHENTICATION_POLICY: Kind = Kind {
    kind: "AuthenticationPolicy",
    plural: "authenticationpolicies",
    singular: "authenticationpolicy",
    dashed: "authentication-policy",
    dashed_plural: "authentication-policies",
    short: &["ap"],
    namespaced: true,
    in_force: true,
};

/// What is asked about which requests.
pub const RULE: Kind = Kind {
    kind: "Rule",
    plural: "rules",
    singular: "rule",
    dashed: "rule",
    dashed_plural: "rules",
    short: &[],
    namespaced: true,
    in_force: true,
};

/// A handler that asks roles.
pub const RBAC: Kind = Kind {
    kind: "Rbac",
    plural: "rbacs",
    singular: "rbac",
    dashed: "rbac",
    dashed_plural: "rbacs",
    short: &[],
    namespaced: true,
    in_force: true,
};

/// An instance for it: who does what.
pub const AUTHORIZATION: Kind = Kind {
    kind: "Authorization",
    plural: "authorizations",
    singular: "authorization",
    dashed: "authorization",
    dashed_plural: "authorizations",
    short: &[],
    namespaced: true,
    in_force: true,
};

/// A handler that refuses.
pub const DENIER: Kind = Kind {
    kind: "Denier",
    plural: "deniers",
    singular: "denier",
    dashed: "denier",
    dashed_plural: "deniers",
    short: &[],
    namespaced: true,
    in_force: true,
};

/// An instance for it, which says nothing.
pub const CHECK_NOTHING: Kind = Kind {
    kind: "CheckNothing",
    plural: "checknothings",
    singular: "checknothing",
    dashed: "check-nothing",
    dashed_plural: "check-nothings",
    short: &[],
    namespaced: true,
    in_force: true,
};

/// Mixer's kinds, which the classic files write in lower case.
const OF_MIXER: [&Kind; 5] = [&RULE, &RBAC, &AUTHORIZATION, &DENIER, &CHECK_NOTHING];

/// The kinds that have a command-line name of their own.
pub const KINDS: &[Kind] = &[
    ROUTE_RULE,
    DESTINATION_POLICY,
    EGRESS_RULE,
    SERVICE_ROLE,
    SERVICE_ROLE_BINDING,
    RBAC_CONFIG,
    AUTHENTICATION_POLICY,
    RULE,
    RBAC,
    AUTHORIZATION,
    DENIER,
    CHECK_NOTHING,
];

/// Kinds of our groups that are understood by name alone: Mixer's, its adapters' and templates', and identity's.
const LATER: &[&str] = &[
    "AttributeManifest",
    "Handler",
    "Instance",
    "Template",
    "Adapter",
    "QuotaSpec",
    "QuotaSpecBinding",
    "HTTPAPISpec",
    "HTTPAPISpecBinding",
    "EndUserAuthenticationPolicySpec",
    "EndUserAuthenticationPolicySpecBinding",
    "ListChecker",
    "MemQuota",
    "RedisQuota",
    "Opa",
    "Stdio",
    "Prometheus",
    "Statsd",
    "Fluentd",
    "Otlp",
    "KubernetesEnv",
    "Noop",
    "ReportNothing",
    "ListEntry",
    "ApiKey",
    "Quota",
    "Metric",
    "LogEntry",
    "TraceSpan",
    "Kubernetes",
];

/// Groups of the ecosystem whose kinds the mesh will follow, but does not yet.
const LATER_GROUPS: &[&str] = &[
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "authentication.istio.io",
    "rbac.istio.io",
    "gateway.networking.k8s.io",
];

/// What an `apiVersion` and a `kind` amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// One of the mesh's kinds, which has a reader here.
    Ours(&'static Kind),
    /// Understood, but nothing follows it yet.
    Later,
    /// Of our groups, but no kind of them; perhaps this one was meant.
    Unknown {
        /// The kind that was probably meant.
        meant: Option<&'static str>,
    },
    /// Of our groups, but of a version that they do not have.
    UnknownVersion,
    /// Not the mesh's: Kubernetes' or somebody else's.
    Foreign,
}

/// Finds out what an `apiVersion` and a `kind` amount to.
#[must_use]
pub fn meaning(api_version: &str, kind: &str) -> Meaning {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if LATER_GROUPS.contains(&group) {
        return Meaning::Later;
    }
    if group != GROUP && group != CLASSIC_GROUP {
        return Meaning::Foreign;
    }
    // The classic samples have DestinationPolicies of v1beta1, which never differed.
    if version != VERSION && !(group == CLASSIC_GROUP && version == "v1beta1") {
        return Meaning::UnknownVersion;
    }
    if let Some(ours) = KINDS.iter().find(|ours| ours.is_written(kind)) {
        return Meaning::Ours(ours);
    }
    if is_later(kind) {
        return Meaning::Later;
    }
    let known = KINDS.iter().map(|ours| ours.kind).chain(LATER.iter().copied());
    Meaning::Unknown { meant: suggest::closest(kind, known) }
}

/// Whether a kind of our groups is understood by name alone, in any case: an adapter or a template, say.
#[must_use]
pub fn is_later(kind: &str) -> bool {
    LATER.iter().any(|later| later.eq_ignore_ascii_case(kind))
}

/// The kind that a user names on the command line, in any spelling and case.
///
/// # Errors
///
/// When there is no such kind; the error knows the one that was probably meant.
///
/// # Examples
///
/// ```
/// use api::kinds::{named, ROUTE_RULE};
///
/// for word in ["rr", "routerule", "routerules", "route-rule", "route-rules", "RouteRule", "routerules.config.meshctl.io"] {
///     assert_eq!(named(word), Ok(&ROUTE_RULE));
/// }
/// let error = named("route-rulse").unwrap_err();
/// assert_eq!(error.to_string(), "there is no kind `route-rulse`");
/// assert_eq!(error.hint(), "did you mean `route-rule`?");
/// ```
pub fn named(word: &str) -> Result<&'static Kind, UnknownKind> {
    let bare = word.strip_suffix(GROUP).or_else(|| word.strip_suffix(CLASSIC_GROUP));
    let lower = bare.map_or(word, |bare| bare.trim_end_matches('.')).to_ascii_lowercase();
    KINDS.iter().find(|kind| kind.spellings().any(|spelling| spelling == lower)).ok_or_else(|| {
        let spellings = KINDS.iter().flat_map(|kind| [kind.dashed, kind.dashed_plural]);
        UnknownKind { word: word.to_owned(), meant: suggest::closest(word, spellings) }
    })
}

impl Kind {
    /// Whether `kind:` of an object may be written so. The classic files have Mixer's kinds in lower case.
    #[must_use]
    pub fn is_written(&self, kind: &str) -> bool {
        self.kind == kind || (self.singular == kind && self.is_of_mixer())
    }

    /// Whether it is one of Mixer's: rules, and what they refer to.
    #[must_use]
    pub fn is_of_mixer(&self) -> bool {
        OF_MIXER.contains(&self)
    }

    /// Every word that means this kind, in lower case.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> {
        let dashed = [self.dashed, self.dashed_plural].into_iter().filter(|word| word.contains('-'));
        [self.singular, self.plural].into_iter().chain(dashed).chain(self.short.iter().copied())
    }
}

/// The native `apiVersion`.
#[must_use]
pub fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind {
    word: String,
    meant: Option<&'static str>,
}

impl UnknownKind {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        self.meant.map_or_else(
            || format!("the kinds are {}", KINDS.iter().map(|kind| kind.dashed_plural).collect::<Vec<_>>().join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        )
    }
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no kind `{}`", self.word)
    }
}

impl std::error::Error for UnknownKind {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_both_groups_are_found_and_misspelt_ones_suggested() {
        for (api_version, kind, expected) in [
            ("config.meshctl.io/v1alpha2", "RouteRule", Meaning::Ours(&ROUTE_RULE)),
            ("config.istio.io/v1alpha2", "RouteRule", Meaning::Ours(&ROUTE_RULE)),
            ("config.istio.io/v1beta1", "DestinationPolicy", Meaning::Ours(&DESTINATION_POLICY)),
            ("config.istio.io/v1alpha2", "denier", Meaning::Ours(&DENIER)),
            ("config.meshctl.io/v1alpha2", "CheckNothing", Meaning::Ours(&CHECK_NOTHING)),
            ("config.istio.io/v1alpha2", "listchecker", Meaning::Later),
            ("config.istio.io/v1alpha2", "RouteRul", Meaning::Unknown { meant: Some("RouteRule") }),
            ("config.istio.io/v1alpha2", "routerule", Meaning::Unknown { meant: Some("RouteRule") }),
            ("config.istio.io/v1alpha2", "Deployment", Meaning::Unknown { meant: None }),
            ("config.meshctl.io/v1", "RouteRule", Meaning::UnknownVersion),
            ("networking.istio.io/v1alpha3", "VirtualService", Meaning::Later),
            ("v1", "Service", Meaning::Foreign),
            ("apps/v1", "Deployment", Meaning::Foreign),
        ] {
            assert_eq!(meaning(api_version, kind), expected, "{api_version} {kind}");
        }
    }

    #[test]
    fn spellings_are_unambiguous() {
        let mut all: Vec<_> = KINDS.iter().flat_map(Kind::spellings).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
