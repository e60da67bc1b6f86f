//! Who may call what, and how callers prove who they are, as meant.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Host, Key, Mixer, Origin};
use crate::names::{CLASSIC_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};

/// Everything that decides whether a request is let in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// Where roles are in force, by key. See [`Access::config`].
    pub configs: BTreeMap<Key, Arc<RbacConfig>>,
    /// Roles by key.
    pub roles: BTreeMap<Key, Arc<ServiceRole>>,
    /// Who has which role, by key.
    pub bindings: BTreeMap<Key, Arc<ServiceRoleBinding>>,
    /// How callers prove who they are, by key.
    pub authentication: BTreeMap<Key, Arc<AuthenticationPolicy>>,
    /// Rules that ask roles, or refuse.
    pub mixer: Mixer,
    /// Key sets that were fetched, by URI: the last good text of each.
    pub key_sets: BTreeMap<String, Arc<str>>,
}

impl Access {
    /// Where roles are in force. That of the mesh's own system namespace goes before the classic one's.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<RbacConfig>> {
        let of = |namespace: &str| {
            self.configs.get(&Key { namespace: namespace.to_owned(), name: RbacConfig::NAME.to_owned() })
        };
        of(SYSTEM_NAMESPACE).or_else(|| of(CLASSIC_SYSTEM_NAMESPACE))
    }

    /// Whether any subject is a service, which stands for the accounts of its endpoints.
    #[must_use]
    pub fn names_services(&self) -> bool {
        let tests = self.bindings.values().flat_map(|binding| &binding.subjects).flat_map(|subject| &subject.tests);
        tests.into_iter().any(|test| matches!(test, SubjectTest::SourceService(_)))
    }
}

/// A text, or many: `*`, `text`, `text*` or `*text`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// Any text that is there at all.
    Any,
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
}

impl Pattern {
    /// Reads a pattern; `None` when a star stands anywhere but at the beginning or the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use api::model::Pattern;
    ///
    /// assert_eq!(Pattern::parse("*/review"), Some(Pattern::Suffix("/review".to_owned())));
    /// assert_eq!(Pattern::parse("a*b"), None);
    /// assert!(Pattern::parse("/books").is_some_and(|books| !books.matches("/books2")));
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let pattern = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text == "*" => Pattern::Any,
            (Some(rest), None) => Pattern::Suffix(rest.to_owned()),
            (None, Some(rest)) => Pattern::Prefix(rest.to_owned()),
            (None, None) => Pattern::Exact(text.to_owned()),
            (Some(_), Some(_)) => return None,
        };
        (!pattern.text().contains('*')).then_some(pattern)
    }

    /// Whether a text is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(wanted) => text == wanted,
            Pattern::Prefix(wanted) => text.starts_with(wanted.as_str()),
            Pattern::Suffix(wanted) => text.ends_with(wanted.as_str()),
        }
    }

    /// The text without the star.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Pattern::Any => "",
            Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text) => text,
        }
    }

    /// The same pattern of another text.
    #[must_use]
    pub fn map(&self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Pattern::Any => Pattern::Any,
            Pattern::Exact(text) => Pattern::Exact(change(text)),
            Pattern::Prefix(text) => Pattern::Prefix(change(text)),
            Pattern::Suffix(text) => Pattern::Suffix(change(text)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(text) => f.write_str(text),
            Pattern::Prefix(text) => write!(f, "{text}*"),
            Pattern::Suffix(text) => write!(f, "*{text}"),
        }
    }
}

/// Where roles are in force: outside of it everybody may call everything. There is one of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RbacConfig {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// Where.
    pub mode: RbacMode,
    /// What is included, in that mode.
    pub inclusion: Scope,
    /// What is excluded, in that mode.
    pub exclusion: Scope,
    /// Whether what no role allows is refused, or only counted.
    pub enforcement: Enforcement,
}

impl RbacConfig {
    /// The only name that it may have.
    pub const NAME: &'static str = "default";

    /// Whether roles are in force for a service of a namespace, or with `None` for what belongs to no service.
    #[must_use]
    pub fn covers(&self, namespace: &str, service: Option<&Host>) -> bool {
        match self.mode {
            RbacMode::Off => false,
            RbacMode::On => true,
            RbacMode::OnWithInclusion => self.inclusion.holds(namespace, service),
            RbacMode::OnWithExclusion => !self.exclusion.holds(namespace, service),
        }
    }
}

/// Where roles are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacMode {
    /// Nowhere.
    Off,
    /// Everywhere.
    On,
    /// In what is included.
    OnWithInclusion,
    /// In all but what is excluded.
    OnWithExclusion,
}

/// Services and namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Services by host name.
    pub services: Vec<Host>,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
}

impl Scope {
    fn holds(&self, namespace: &str, service: Option<&Host>) -> bool {
        self.namespaces.iter().any(|name| name == namespace)
            || service.is_some_and(|service| self.services.contains(service))
    }
}

/// What happens to what a policy does not allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is refused.
    #[default]
    Enforced,
    /// It is let in, and counted: a dry run.
    Permissive,
}

/// What may be done, for those who have the role. It speaks for services of its own namespace alone.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRole {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// One of these must allow it. Never empty.
    pub rules: Vec<AccessRule>,
}

/// One thing that may be done: all of its fields must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessRule {
    /// Services, in lower case: whole host names, or short names.
    pub services: Vec<Pattern>,
    /// Paths in canonical form, without a query; empty is any.
    pub paths: Vec<Pattern>,
    /// Methods; empty is any.
    pub methods: Vec<Pattern>,
    /// What else must hold.
    pub constraints: Vec<Constraint>,
}

impl AccessRule {
    /// Whether the rule is about a service of the role's namespace.
    #[must_use]
    pub fn is_about(&self, service: &Host, short: &str) -> bool {
        self.services.iter().any(|pattern| is_service(pattern, service, short))
    }
}

/// Whether a pattern means a service: its host name, or a beginning of it that ends before a dot (`reviews`,
/// `reviews.default`, `reviews.default.svc`).
#[must_use]
pub fn is_service(pattern: &Pattern, service: &Host, short: &str) -> bool {
    let host = service.as_str();
    match pattern {
        Pattern::Exact(name) => {
            host.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                && name.len() >= short.len()
        }
        Pattern::Suffix(_) => pattern.matches(host) || pattern.matches(short),
        Pattern::Any | Pattern::Prefix(_) => pattern.matches(host),
    }
}

/// One attribute that must have one of these values.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// A label of the workload that is called.
    DestinationLabel(String, Vec<Pattern>),
    /// An address of the workload that is called.
    DestinationIp(Vec<IpNet>),
    /// The port at the workload that is called.
    DestinationPort(Vec<NonZeroU16>),
    /// The service account of the workload that is called, as `<trust domain>/ns/<namespace>/sa/<account>`.
    DestinationUser(Vec<Pattern>),
    /// A header of the request, by its lower-case name: each of its values.
    Header(String, Vec<Pattern>),
}

/// Who has a role. It speaks for a role of its own namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRoleBinding {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// One of these has the role. Never empty.
    pub subjects: Vec<AccessSubject>,
    /// The role's name.
    pub role: String,
    /// Whether it counts, or is on trial.
    pub enforcement: Enforcement,
}

/// Somebody: all of these must hold. Without any it is anybody.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessSubject {
    /// What must hold.
    pub tests: Vec<SubjectTest>,
}

/// One thing that is known of a caller.
#[derive(Debug, Clone, PartialEq)]
pub enum SubjectTest {
    /// Its identity by its certificate, without `spiffe://`.
    Workload(Pattern),
    /// Its namespace by its certificate.
    SourceNamespace(Pattern),
    /// Its service: one whose endpoints have the account that its certificate names.
    SourceService(SourceService),
    /// Its address.
    SourceIp(Vec<IpNet>),
    /// The end user by its token: `issuer/subject`.
    EndUser(Pattern),
    /// A claim of the end user's token, or one in it: a text, or one text of a list.
    Claim(Vec<String>, Pattern),
    /// A header of the request, by its lower-case name.
    Header(String, Pattern),
}

/// A service that calls.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceService {
    /// Its name, in lower case.
    pub name: Pattern,
    /// Its namespace, where the name is a short one.
    pub namespace: String,
}

/// How callers of some services prove who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthenticationPolicy {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// Services that it is about; empty is all of its namespace, or of the mesh in the system namespace.
    pub targets: Vec<AuthenticationTarget>,
    /// Whether workloads prove it by mutual TLS; `None` leaves that to the next wider policy.
    pub mtls: Option<MtlsMode>,
    /// Tokens that end users prove it by, one of these; `None` leaves that to the next wider policy, and without any no
    /// token is asked for.
    pub origins: Option<Vec<Jwt>>,
    /// Whether a request without a token is let in all the same.
    pub origin_is_optional: bool,
}

impl AuthenticationPolicy {
    /// Whether it is about the whole mesh.
    #[must_use]
    pub fn is_mesh_wide(&self) -> bool {
        self.targets.is_empty() && [SYSTEM_NAMESPACE, CLASSIC_SYSTEM_NAMESPACE].contains(&self.key.namespace.as_str())
    }
}

/// A service, or some ports of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticationTarget {
    /// The service.
    pub service: Host,
    /// Ports of the service; empty is all.
    pub ports: Vec<PortRef>,
}

/// A port by number or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRef {
    /// By number.
    Number(NonZeroU16),
    /// By name.
    Name(String),
}

/// Whether workloads prove who they are by mutual TLS. The stricter is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// They do not.
    Disable,
    /// They may.
    Permissive,
    /// They must.
    Strict,
}

impl MtlsMode {
    /// Reads the classic `MUTUAL_TLS` or `NONE`, of a Service's annotation or of `authPolicy`.
    ///
    /// # Examples
    /// ```
    /// use api::model::MtlsMode;
    /// assert_eq!(MtlsMode::of_classic("MUTUAL_TLS"), Some(MtlsMode::Strict));
    /// assert_eq!(MtlsMode::of_classic("NONE"), Some(MtlsMode::Disable));
    /// assert_eq!(MtlsMode::of_classic("mutual"), None);
    /// ```
    #[must_use]
    pub fn of_classic(text: &str) -> Option<Self> {
        match text {
            "MUTUAL_TLS" => Some(MtlsMode::Strict),
            "NONE" => Some(MtlsMode::Disable),
            _ => None,
        }
    }
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MtlsMode::Disable => "DISABLE",
            MtlsMode::Permissive => "PERMISSIVE",
            MtlsMode::Strict => "STRICT",
        })
    }
}

/// A kind of token that is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// Who issues it.
    pub issuer: String,
    /// Whom it must be for: one of these; empty is anybody.
    pub audiences: Vec<String>,
    /// Where its keys are from.
    pub keys: KeySource,
    /// Headers that it may stand in, by lower-case name.
    pub headers: Vec<String>,
    /// Parameters of the query that it may stand in. With neither headers, parameters nor cookies it stands in
    /// `Authorization: Bearer` or in the parameter `access_token`.
    pub params: Vec<String>,
    /// Cookies that it may stand in.
    pub cookies: Vec<String>,
    /// Whether the application gets it too.
    pub forward: bool,
    /// Header in which the application gets the verified claims, in base64url.
    pub payload_header: Option<String>,
    /// Headers in which the application gets single claims.
    pub claim_headers: Vec<(String, String)>,
}

/// Where the keys of an issuer are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// They are written here, as a JSON Web Key Set.
    Inline(String),
    /// They are fetched by the control plane.
    Uri(String),
}
