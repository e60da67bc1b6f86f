//! Compiled rules of who is let in.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use super::{HeaderMatch, PathMatch};
use crate::matcher::Text;
use crate::token::KeySet;

/// Who is let in on an HTTP filter chain.
#[derive(Debug, Default)]
pub struct Access {
    /// Tokens that are verified first.
    pub tokens: Option<Arc<Tokens>>,
    /// Rules, in order: all of them must let a request in.
    pub rbac: Vec<Rbac>,
}

impl Access {
    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tokens.is_none() && self.rbac.is_empty()
    }
}

/// One set of rules, and one that is only on trial.
#[derive(Debug)]
pub struct Rbac {
    /// Its name, as `rbac-config/mesh-system/default`.
    pub name: Box<str>,
    /// Rules that count; `None` lets everybody in.
    pub rules: Option<Rules>,
    /// Rules on trial: what they would refuse is counted.
    pub shadow: Option<Rules>,
}

/// A set of rules.
#[derive(Debug)]
pub struct Rules {
    /// Whether a policy that matches lets in, or keeps out.
    pub allows: bool,
    /// Policies by name.
    pub policies: Vec<AccessPolicy>,
}

/// Who may do what: one of the permissions and one of the principals must hold.
#[derive(Debug)]
pub struct AccessPolicy {
    /// Its name, as `service-role-binding/default/bind/service-role/viewer/rules[0]`.
    pub name: Box<str>,
    /// What.
    pub permissions: Vec<Check>,
    /// Who.
    pub principals: Vec<Check>,
}

/// One fact of a request or of its caller.
#[derive(Debug)]
pub enum Check {
    /// All of these hold.
    All(Vec<Check>),
    /// One of these holds.
    Any(Vec<Check>),
    /// It holds always, or never.
    Always(bool),
    /// That does not hold.
    Not(Box<Check>),
    /// A header, or another part of the head.
    Header(HeaderMatch),
    /// The path without its query.
    Path(Text),
    /// The workload is known by its certificate, with this identity if one is given.
    Identity(Option<Text>),
    /// The connection comes from this network.
    Source(IpNet),
    /// It was going to this network.
    Destination(IpNet),
    /// It was going to one of these ports.
    DestinationPort(Range<u32>),
    /// A verified token has a claim.
    Claim {
        /// Under which name its claims are kept.
        key: Box<str>,
        /// The way to the claim.
        path: Vec<Box<str>>,
        /// What it must be.
        test: ClaimTest,
    },
}

/// What a claim must be.
#[derive(Debug)]
pub enum ClaimTest {
    /// There.
    Present,
    /// This text.
    Text(Text),
    /// A list with this.
    OneOf(Box<ClaimTest>),
    /// One of these.
    Or(Vec<ClaimTest>),
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, checks: &[Check], word: &str| {
            for (nth, check) in checks.iter().enumerate() {
                let joint = if nth == 0 { "" } else { word };
                let is_nested = matches!(check, Check::All(inner) | Check::Any(inner) if inner.len() > 1);
                if is_nested { write!(f, "{joint}({check})")? } else { write!(f, "{joint}{check}")? }
            }
            Ok(())
        };
        match self {
            Check::All(checks) => list(f, checks, " and "),
            Check::Any(checks) => list(f, checks, " or "),
            Check::Always(true) => f.write_str("anything"),
            Check::Always(false) => f.write_str("nothing"),
            Check::Not(check) => write!(f, "not ({check})"),
            Check::Header(header) => header.fmt(f),
            Check::Path(text) => write!(f, "path {text}"),
            Check::Identity(None) => f.write_str("any identity proved by a certificate"),
            Check::Identity(Some(text)) => write!(f, "identity {text}"),
            Check::Source(network) => write!(f, "from {network}"),
            Check::Destination(network) => write!(f, "to {network}"),
            Check::DestinationPort(ports) if ports.len() == 1 => write!(f, "to port {}", ports.start),
            Check::DestinationPort(ports) => write!(f, "to a port from {} to before {}", ports.start, ports.end),
            Check::Claim { path, test, .. } => write!(f, "claim {} {test}", path.join(".")),
        }
    }
}

impl fmt::Display for ClaimTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimTest::Present => f.write_str("present"),
            ClaimTest::Text(text) => text.fmt(f),
            ClaimTest::OneOf(test) => write!(f, "with {test}"),
            ClaimTest::Or(tests) => {
                for (nth, test) in tests.iter().enumerate() {
                    let joint = if nth == 0 { "" } else { " or " };
                    write!(f, "{joint}{test}")?;
                }
                Ok(())
            }
        }
    }
}

/// Tokens that are verified on an HTTP filter chain.
#[derive(Debug)]
pub struct Tokens {
    /// Kinds of tokens that are believed.
    pub providers: Vec<Provider>,
    /// Which of them a request needs: the first rule that matches says it.
    pub rules: Vec<TokenRule>,
    /// Headers that the proxy alone may set, in lower case: a client's own are left out.
    pub reserved: Vec<Box<str>>,
}

/// Which tokens some requests need.
#[derive(Debug)]
pub struct TokenRule {
    /// What the path must be.
    pub path: PathMatch,
    /// What else must be.
    pub headers: Vec<HeaderMatch>,
    /// What they need; `None` is nothing.
    pub needs: Option<Need>,
}

/// What a request needs.
#[derive(Debug)]
pub enum Need {
    /// A good token of this provider, by its place.
    Provider(usize),
    /// One of these.
    Any(Vec<Need>),
    /// All of these.
    All(Vec<Need>),
    /// No token at all.
    Missing,
}

/// A kind of token that is believed.
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: Box<str>,
    /// The issuer, never empty.
    pub issuer: Box<str>,
    /// Whom a token must be for: one of these; empty is anybody.
    pub audiences: Vec<Box<str>>,
    /// The issuer's keys, never empty.
    pub keys: KeySet,
    /// Headers that a token may stand in, by lower-case name, and what stands before it.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Parameters of the query that a token may stand in.
    pub params: Vec<Box<str>>,
    /// Cookies that a token may stand in.
    pub cookies: Vec<Box<str>>,
    /// Whether the application gets the token too.
    pub forward: bool,
    /// Header for the verified claims, in base64url.
    pub payload_header: Option<Box<str>>,
    /// Headers for single claims.
    pub claim_headers: Vec<(Box<str>, Box<str>)>,
    /// The name under which its claims are kept.
    pub key: Box<str>,
    /// How far clocks may be apart, in seconds.
    pub skew: u32,
    /// Whether a token must say when it ends.
    pub must_expire: bool,
    /// What tells this provider, with these keys, from every other.
    pub fingerprint: [u8; 32],
}
