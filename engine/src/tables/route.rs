//! Compiled route configurations.

use std::fmt;
use std::time::Duration;

use super::{Fault, FaultShare, Name, Retry};
use crate::decide::index::{DomainIndex, RouteIndex};
use crate::matcher::{Regex, Text};

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    /// Its name; may be empty when it is written in a listener.
    pub name: Name,
    /// Virtual hosts, in order.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Whether the port in an authority is left out of account when virtual hosts are looked up.
    pub ignore_port: bool,
    pub(crate) domains: DomainIndex,
}

/// A group of routes for some authorities.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Box<str>,
    /// The authorities that it is for.
    pub domains: Vec<Domain>,
    /// Routes, in order: the first that matches is taken.
    pub routes: Vec<Route>,
    /// The fault for routes that have none of their own.
    pub fault: Option<Fault>,
    pub(crate) index: RouteIndex,
}

/// An authority, or many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Any.
    Any,
    /// Equal, without regard to case.
    Exact(Box<str>),
    /// `*.example.com`, kept as `.example.com`: something must stand for the star.
    Suffix(Box<str>),
    /// `example.*`, kept as `example.`.
    Prefix(Box<str>),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Any => f.write_str("*"),
            Domain::Exact(host) => f.write_str(host),
            Domain::Suffix(host) => write!(f, "*{host}"),
            Domain::Prefix(host) => write!(f, "{host}*"),
        }
    }
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its name, as `route-rule/default/reviews`; may be empty.
    pub name: Box<str>,
    /// Where the rule behind it was written, when known.
    pub origin: Option<Origin>,
    /// What the path must be.
    pub path: PathMatch,
    /// What else must be: all of these.
    pub headers: Vec<HeaderMatch>,
    /// The share of requests that it is for; `None` is all.
    pub fraction: Option<FaultShare>,
    /// Fault to inject first.
    pub fault: Option<Fault>,
    /// What happens to the request.
    pub action: Action,
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File, as the user named it.
    pub file: Box<str>,
    /// Line, from 1.
    pub line: u32,
}

/// What a path must be. The query is not looked at.
#[derive(Debug, PartialEq)]
pub enum PathMatch {
    /// Begins with.
    Prefix(Box<str>),
    /// Equal.
    Exact(Box<str>),
    /// Equal, or begins with it and a slash.
    Elements(Box<str>),
    /// Matches as a whole.
    Regex(Box<Regex>),
    /// One of the above without regard to ASCII case (never a regex).
    IgnoreCase(Box<PathMatch>),
    /// None at all: CONNECT, which names an authority only, and which no other match takes.
    Connect,
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Prefix(text) => write!(f, "prefix `{text}`"),
            PathMatch::Exact(text) => write!(f, "exact `{text}`"),
            PathMatch::Elements(text) => write!(f, "path prefix `{text}`"),
            PathMatch::Regex(regex) => write!(f, "regex `{}`", regex.as_str()),
            PathMatch::IgnoreCase(inner) => write!(f, "{inner} in any case"),
            PathMatch::Connect => f.write_str("method CONNECT"),
        }
    }
}

/// One condition beside the path.
#[derive(Debug, PartialEq)]
pub struct HeaderMatch {
    /// What is looked at.
    pub subject: Subject,
    /// What it must be.
    pub test: HeaderTest,
    /// Whether it must not be that.
    pub invert: bool,
    /// Whether a missing header counts as an empty one; else it fails every test but absence, inverted or not.
    pub missing_is_empty: bool,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The path with its query (`:path`).
    Path,
    /// The method (`:method`).
    Method,
    /// The authority (`:authority`, `host`).
    Authority,
    /// The scheme (`:scheme`).
    Scheme,
    /// A header by its lower-case name; each of its values is looked at by itself.
    Header(Box<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::Path => ":path",
            Subject::Method => ":method",
            Subject::Authority => ":authority",
            Subject::Scheme => ":scheme",
            Subject::Header(name) => name,
        })
    }
}

/// What a header must be.
#[derive(Debug, PartialEq)]
pub enum HeaderTest {
    /// There (`true`) or not there (`false`).
    Present(bool),
    /// A text.
    Text(Text),
    /// A whole number of decimal digits from start to before end.
    Range(i64, i64),
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.invert { "not " } else { "" };
        match &self.test {
            HeaderTest::Present(true) => write!(f, "{} {not}present", self.subject),
            HeaderTest::Present(false) => write!(f, "{} {not}absent", self.subject),
            HeaderTest::Text(text) => write!(f, "{} {not}{text}", self.subject),
            HeaderTest::Range(start, end) => write!(f, "{} {not}from {start} to before {end}", self.subject),
        }
    }
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Sends the request on.
    Forward(Forward),
    /// Answers with another place.
    Redirect(Redirect),
    /// Answers by itself.
    Direct(Direct),
}

/// How a request is sent on.
#[derive(Debug)]
pub struct Forward {
    /// Where to, by weight; never empty.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of the weights; never 0.
    pub total_weight: u32,
    /// How long the whole request may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// When it is tried again; `None` is never.
    pub retry: Option<Box<Retry>>,
    /// How the path changes.
    pub path: PathRewrite,
    /// How the authority changes.
    pub host: HostRewrite,
    /// Status when the cluster does not exist.
    pub cluster_not_found: u16,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Name,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

/// How a path changes. The query always stays.
#[derive(Debug, PartialEq)]
pub enum PathRewrite {
    /// Not at all.
    Keep,
    /// What the path match matched is replaced.
    Prefix(Box<str>),
    /// Every match is replaced.
    Regex(Box<Regex>, Box<str>),
}

/// How an authority changes.
#[derive(Debug, PartialEq)]
pub enum HostRewrite {
    /// Not at all.
    Keep,
    /// It becomes this.
    Literal(Box<str>),
}

/// A redirect.
#[derive(Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Scheme to use instead.
    pub scheme: Option<Box<str>>,
    /// Host to use instead.
    pub host: Option<Box<str>>,
    /// Port to use instead.
    pub port: Option<u16>,
    /// Path to use instead.
    pub path: RedirectPath,
    /// Whether the query is left out.
    pub strip_query: bool,
}

/// How a redirect changes the path.
#[derive(Debug, PartialEq)]
pub enum RedirectPath {
    /// Not at all.
    Keep,
    /// It becomes this, with its query if it has one.
    Whole(Box<str>),
    /// What the path match matched is replaced.
    Prefix(Box<str>),
}

/// An answer of the proxy's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Direct {
    /// HTTP status.
    pub status: u16,
    /// Body; may be empty.
    pub body: Box<[u8]>,
}
