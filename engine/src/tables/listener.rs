//! Compiled listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Access, Name, Rbac, RouteTable, Seen, ServerName, ServerTls, Tables, WeightedCluster};

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Name,
    /// The address that it binds, or stands for.
    pub address: SocketAddr,
    /// Further addresses that it binds, as `[::]` beside `0.0.0.0`.
    pub additional_addresses: Vec<SocketAddr>,
    /// Whether it has a socket of its own; else connections are handed over to it by original destination.
    pub bind: bool,
    /// Whether accepted connections are handed over to the listener of their original destination.
    pub use_original_dst: bool,
    /// Whether the original destination is asked for (and filter chains are chosen by it).
    pub restores_original_dst: bool,
    /// Whether the first bytes are looked at to recognise HTTP.
    pub inspects_http: bool,
    /// Ports for which they are not.
    pub inspects_not: Option<Ports>,
    /// Whether they are looked at to recognise TLS, and read its server name.
    pub inspects_tls: bool,
    /// Ports for which they are not.
    pub inspects_tls_not: Option<Ports>,
    /// How long the first bytes may take; `None` is for ever.
    pub inspect_timeout: Option<Duration>,
    /// Whether a connection goes on when they take longer; else it is closed.
    pub continue_on_timeout: bool,
    /// Filter chains, in order.
    pub chains: Vec<Chain>,
    /// The chain for connections that no other is for.
    pub default_chain: Option<Chain>,
}

impl Listener {
    /// All filter chains, the default last.
    pub fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// Whether the first bytes of a connection to `port` are looked at for HTTP, and for TLS, before a chain is chosen.
    #[must_use]
    pub fn must_inspect(&self, port: u16) -> Inspect {
        let is_off = |ports: &Option<Ports>| ports.as_ref().is_some_and(|ports| ports.contains(port));
        let by_protocol =
            |chain: &Chain| chain.matches.is_for_port(port) && !chain.matches.application_protocols.is_empty();
        Inspect {
            http: self.inspects_http && !is_off(&self.inspects_not) && self.chains.iter().any(by_protocol),
            tls: self.inspects_tls && !is_off(&self.inspects_tls_not),
        }
    }

    /// The filter chain for a connection in clear text that was going to `port` and speaks `protocol` as far as is known
    /// (`http/1.0`, `http/1.1`, `h2c`). `None` means that the connection is closed (`no_route`).
    #[must_use]
    pub fn chain(&self, port: u16, protocol: Option<&str>) -> Option<&Chain> {
        self.chain_for(&Seen { port, protocols: protocol.as_slice(), ..Seen::default() })
    }
}

/// What the first bytes of a connection are looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspect {
    /// HTTP.
    pub http: bool,
    /// TLS, and its server name.
    pub tls: bool,
}

impl Inspect {
    /// Whether they are looked at.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.http || self.tls
    }
}

/// A set of ports.
#[derive(Debug, PartialEq, Eq)]
pub enum Ports {
    /// All.
    Any,
    /// From the first to before the second.
    Range(i32, i32),
    /// In one of these.
    Or(Vec<Ports>),
    /// In all of these.
    And(Vec<Ports>),
    /// Not in this.
    Not(Box<Ports>),
}

impl Ports {
    /// Whether a port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Ports::Any => true,
            Ports::Range(start, end) => (*start..*end).contains(&i32::from(port)),
            Ports::Or(sets) => sets.iter().any(|set| set.contains(port)),
            Ports::And(sets) => sets.iter().all(|set| set.contains(port)),
            Ports::Not(set) => !set.contains(port),
        }
    }
}

/// A filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name; may be empty.
    pub name: Box<str>,
    /// What it is for.
    pub matches: ChainMatch,
    /// TLS that ends here, before the filter sees a byte; `None` passes bytes as they are.
    pub tls: Option<ServerTls>,
    /// What it does.
    pub filter: Filter,
}

/// What a filter chain is for. Empty is everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// The original destination's port.
    pub destination_port: Option<u16>,
    /// The server name of TLS: one of these.
    pub server_names: Vec<ServerName>,
    /// Whether the connection begins with TLS, or must not.
    pub is_tls: Option<bool>,
    /// What is spoken: one of these.
    pub application_protocols: Vec<Box<str>>,
}

impl ChainMatch {
    fn is_for_port(&self, port: u16) -> bool {
        self.destination_port.is_none_or(|wanted| wanted == port)
    }
}

/// What a filter chain does with its connections.
#[derive(Debug)]
pub enum Filter {
    /// Speaks HTTP.
    Http(Arc<Http>),
    /// Passes bytes.
    Tcp(Arc<Tcp>),
}

/// How HTTP is served.
#[derive(Debug)]
pub struct Http {
    /// Prefix for statistics, as `inbound_0.0.0.0_9080`.
    pub stat_prefix: Box<str>,
    /// Where routes come from.
    pub routes: Routes,
    /// Who is let in.
    pub access: Access,
    /// Whether faults are injected: the fault filter is in the chain.
    pub faults: bool,
    /// The fault for routes that have none of their own.
    pub default_fault: Option<Fault>,
    /// How paths are brought into their canonical form.
    pub path: PathPolicy,
    /// How long a connection may be idle; `None` leaves it to the proxy.
    pub idle_timeout: Option<Duration>,
    /// Whether clients are outside the mesh, so that what they say about themselves is not believed.
    pub is_edge: bool,
    /// What a connection may become.
    pub upgrades: Upgrades,
}

/// What an HTTP/1.1 connection may become when its client asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upgrades {
    /// Protocols that may be switched to, in lower case.
    pub protocols: Vec<Box<str>>,
    /// Whether CONNECT is served.
    pub connect: bool,
}

impl Upgrades {
    /// Whether a client's word for a protocol names one that may be switched to.
    #[must_use]
    pub fn allows(&self, protocol: &[u8]) -> bool {
        self.protocols.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

impl Http {
    /// The route table in force, `None` while it has not come.
    #[must_use]
    pub fn route_table<'t>(&'t self, tables: &'t Tables) -> Option<&'t Arc<RouteTable>> {
        match &self.routes {
            Routes::Inline(table) => Some(table),
            Routes::Named(name) => tables.route_table(name),
        }
    }
}

/// Where routes come from.
#[derive(Debug)]
pub enum Routes {
    /// Written in the listener.
    Inline(Arc<RouteTable>),
    /// By RDS under this name.
    Named(Name),
}

/// How paths are brought into their canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPolicy {
    /// Whether `//` becomes `/`.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C`.
    pub escaped_slashes: Slashes,
}

impl Default for PathPolicy {
    fn default() -> Self {
        PathPolicy { merge_slashes: true, escaped_slashes: Slashes::Keep }
    }
}

/// What happens to escaped slashes in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slashes {
    /// They stay as they are, and are no slashes to any matcher.
    Keep,
    /// The request is refused.
    Reject,
    /// They become slashes, before anything looks at the path.
    Unescape,
}

/// A fault: the wait first, then the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Wait, and for how many requests.
    pub delay: Option<(FaultShare, Duration)>,
    /// Answer with a status, and for how many requests.
    pub abort: Option<(FaultShare, u16)>,
}

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultShare {
    /// How many of `denominator`.
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

/// How opaque bytes are passed.
#[derive(Debug)]
pub struct Tcp {
    /// Prefix for statistics.
    pub stat_prefix: Box<str>,
    /// Who is let in: all of these must do so.
    pub rbac: Vec<Rbac>,
    /// Where they go, by weight; never empty.
    pub clusters: Vec<WeightedCluster>,
    /// How long a connection may be idle; `None` leaves it to the proxy.
    pub idle_timeout: Option<Duration>,
}
