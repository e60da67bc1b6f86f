//! Configuration and discovery as meant: what the engine generates from. Cannot hold nonsense.
//!
//! A [`Model`] is an immutable snapshot. Its parts are shared ([`Arc`]), so that the next model costs what changed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::problem::Location;

mod access;
mod identity;
mod index;
mod ingress;
mod mixer;
mod order;
mod resilience;

pub use access::{
    Access, AccessRule, AccessSubject, AuthenticationPolicy, AuthenticationTarget, Constraint, Enforcement, Jwt,
    KeySource, MtlsMode, Pattern, PortRef, RbacConfig, RbacMode, Scope, ServiceRole, ServiceRoleBinding, SourceService,
    SubjectTest, is_service,
};
pub use identity::{Accounts, MeshTls};
pub use mixer::{Action as RuleAction, Adapter, Handler, Instance, Mixer, Reference, Rule, Test};
pub use resilience::{CircuitBreaker, Outlier, Retries};

pub use index::{About, ByService, Shared};
pub use ingress::{Ingress, IngressPath, IngressRule, Passthrough};

/// Everything that decides what requests meet, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Settings of the mesh as a whole.
    pub mesh: Arc<Mesh>,
    /// Services by host name.
    pub services: Shared<BTreeMap<Host, Arc<Service>>>,
    /// Endpoints of each service, sorted by address and port.
    pub endpoints: Shared<BTreeMap<Host, Arc<[Endpoint]>>>,
    /// Service accounts that run each service.
    pub accounts: Shared<BTreeMap<Host, Arc<Accounts>>>,
    /// Route rules by key, in no order of precedence.
    pub route_rules: Shared<ByService<RouteRule>>,
    /// Destination policies by key.
    pub destination_policies: Shared<ByService<DestinationPolicy>>,
    /// Ingresses of the mesh's class, by key.
    pub ingresses: Shared<BTreeMap<Key, Arc<Ingress>>>,
    /// Who may call what, and how callers prove who they are.
    pub access: Shared<Access>,
}

/// Settings of the mesh as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// DNS domain of the cluster.
    pub domain: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// Whether workloads prove who they are where no policy says anything of it: the classic `authPolicy`.
    pub mtls: MtlsMode,
    /// What happens to connections to destinations that are not in the mesh's registry.
    pub outbound: OutboundPolicy,
    /// How long a connection to an upstream may take to be made.
    pub connect_timeout: Duration,
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh {
            domain: crate::names::DEFAULT_DOMAIN.to_owned(),
            trust_domain: crate::names::DEFAULT_TRUST_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            mtls: MtlsMode::Permissive,
            outbound: OutboundPolicy::AllowAny,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// What happens to connections to unknown destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// They pass through as opaque bytes.
    AllowAny,
    /// They are refused (`no_route`).
    RegistryOnly,
}

/// A fully qualified host name in lower case without a trailing dot, as `reviews.default.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// Takes a name that is already fully qualified; lower-cases it and cuts a trailing dot.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Host(name.trim_end_matches('.').to_ascii_lowercase().into())
    }

    /// The name of a Kubernetes service: `name.namespace.svc.domain`.
    #[must_use]
    pub fn of_service(name: &str, namespace: &str, domain: &str) -> Self {
        Host::new(&format!("{name}.{namespace}.svc.{domain}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where an object came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The API server's version of it; empty for objects from files.
    pub resource_version: String,
    /// Where it stands in a file, for objects from files.
    pub location: Option<Location>,
}

/// Labels of a workload, or a selection by labels.
pub type Labels = BTreeMap<String, String>;

/// A service of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its host name.
    pub host: Host,
    /// Namespace and short name.
    pub key: Key,
    /// Its virtual addresses; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// Its ports, in declared order; numbers are unique.
    pub ports: Vec<Port>,
    /// How its endpoints are found.
    pub resolution: Resolution,
}

/// How a service's endpoints are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Traffic to the virtual addresses is balanced over the endpoints.
    Virtual,
    /// No virtual address: callers address endpoints themselves.
    Headless,
    /// An alias of a name outside the registry.
    External(Host),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its number at the service.
    pub number: NonZeroU16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether callers prove who they are, by the Service's annotation `auth.istio.io/<port>`.
    pub mtls: Option<MtlsMode>,
}

/// What is spoken on a port, by `appProtocol`, else by the port's name up to the first dash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1 in clear text (HTTP/2 with prior knowledge is recognised).
    Http,
    /// HTTP/2 in clear text.
    Http2,
    /// gRPC, so HTTP/2 in clear text.
    Grpc,
    /// TLS of the application's own: opaque.
    Https,
    /// Opaque bytes; includes mongo and redis.
    Tcp,
    /// Not said: found out by the first bytes.
    Auto,
    /// Not the mesh's business.
    Udp,
}

/// A place where a service is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the pod or machine.
    pub address: IpAddr,
    /// Port at that address.
    pub port: NonZeroU16,
    /// Number of the service's port that it belongs to.
    pub service_port: NonZeroU16,
    /// Whether it takes new requests.
    pub health: Health,
    /// Who it is.
    pub workload: Arc<Workload>,
}

/// Whether an endpoint takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    Ready,
    /// Ends soon: takes no new requests as long as others are there.
    Draining,
}

/// A pod, or a process on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub key: Key,
    /// Name of what owns it (the Deployment), else its own name: the `workload` label of metrics.
    pub owner: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: String,
    /// Ports its containers declare, for inbound listeners.
    pub ports: Vec<NonZeroU16>,
    /// Whether it has a sidecar.
    pub has_sidecar: bool,
    /// Whether that takes the mesh's mutual TLS.
    pub takes_tls: bool,
}

/// One rule of routing, as meant. Semantics: `RouteRule` of `config.istio.io/v1alpha2`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRule {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// The service that it is about.
    pub destination: Host,
    /// Higher is asked first. See [`RouteRule::order`].
    pub precedence: i32,
    /// Whose requests it is about; `None` is everybody's.
    pub source: Option<Source>,
    /// What a request must be like: all of these.
    pub conditions: Vec<Condition>,
    /// What happens to it.
    pub action: Action,
    /// Fault to inject first.
    pub fault: Fault,
    /// How long the whole request may take; `None` is the default.
    pub timeout: Option<Duration>,
    /// How often it is tried again; `None` is never.
    pub retries: Option<Retries>,
}

/// Selects callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The service that the calling workload belongs to.
    pub service: Option<Host>,
    /// Labels that the calling workload has among its own.
    pub labels: Labels,
}

/// One condition on a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub on: Subject,
    /// What it must be.
    pub value: StringMatch,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The path in its canonical form; a regex sees the query too.
    Uri,
    /// `http` or `https`.
    Scheme,
    /// The method.
    Method,
    /// The host with its port, if one was given.
    Authority,
    /// A header, by its lower-case name.
    Header(String),
}

/// How a value is compared; case-sensitive.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Matches as a whole. The text has been checked to compile (RE2 syntax; ECMAScript's common part).
    Regex(String),
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Sends it to one of these, by weight, after the rewrite.
    Route {
        /// Never empty; weights add up to 100.
        to: Vec<Target>,
        /// What is changed first.
        rewrite: Option<Rewrite>,
    },
    /// Answers 302.
    Redirect(Redirect),
}

/// One destination of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub host: Host,
    /// Labels that the endpoints must have; empty is all endpoints.
    pub labels: Labels,
    /// Share in percent.
    pub weight: u32,
}

/// What a route changes in a request. At least one is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Replaces the matched prefix if the rule matches by uri prefix, else the whole path.
    pub uri: Option<String>,
    /// Replaces the authority.
    pub authority: Option<String>,
}

/// Where a redirect points. At least one is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirect {
    /// Replaces the whole path.
    pub uri: Option<String>,
    /// Replaces the authority.
    pub authority: Option<String>,
}

/// Faults of a rule; the delay comes first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fault {
    /// A wait before the request goes on.
    pub delay: Option<Delay>,
    /// An answer instead of the service's.
    pub abort: Option<Abort>,
}

/// A wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Delay {
    /// Share of requests.
    pub percent: Percent,
    /// How long.
    pub fixed: Duration,
}

/// An answer with a status.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// Share of requests.
    pub percent: Percent,
    /// HTTP status, 200 to 599.
    pub status: u16,
}

/// A share from 0 to 100 percent, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    /// 0 to 1,000,000.
    pub millionths: u32,
}

/// How traffic to a destination is balanced. Semantics: `DestinationPolicy` of `config.istio.io/v1alpha2`.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationPolicy {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// The service.
    pub destination: Host,
    /// Labels of the version that it is about; empty is the service as a whole and every version without its own.
    pub labels: Labels,
    /// Whose traffic it is about; `None` is everybody's.
    pub source: Option<Source>,
    /// How an endpoint is picked.
    pub balancing: Balancing,
    /// Bounds on what is open to it at one time; `None` is none but the budget of retries.
    pub breaker: Option<CircuitBreaker>,
    /// When an endpoint is ejected; `None` is never.
    pub outlier: Option<Outlier>,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Balancing {
    /// In turn.
    RoundRobin,
    /// Two at random, the one with fewer requests in flight. The default.
    #[default]
    LeastRequest,
    /// At random.
    Random,
}

/// A proxy that asks for its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it does.
    pub role: Role,
    /// The workload that it serves, or is.
    pub workload: Arc<Workload>,
    /// Services that the workload is an endpoint of, by host.
    pub services: Vec<Host>,
    /// Whether it takes part in mutual TLS.
    pub tls: MeshTls,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// At the edge, by itself.
    Gateway,
}

/// Networks, as in annotations that include or exclude ranges.
pub type Networks = Vec<IpNet>;
