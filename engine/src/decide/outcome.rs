//! What was decided, and what follows from it for the request's text.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Admission, Denied};
use crate::path::{split_query, without_port};
use crate::request::Request;
use crate::tables::{
    Cluster, Direct, Forward, HostRewrite, PathMatch, PathRewrite, Redirect, RedirectPath, Retry, Route, VirtualHost,
};

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'t> {
    /// Who let it in, or did not.
    pub admission: Admission<'t>,
    /// The virtual host, if one was found.
    pub virtual_host: Option<&'t VirtualHost>,
    /// The route, if one was found.
    pub route: Option<&'t Route>,
    /// A wait before anything else.
    pub delay: Option<Delayed>,
    /// What happens then.
    pub outcome: Outcome<'t>,
}

impl<'t> Decision<'t> {
    pub(crate) fn of(outcome: Outcome<'t>) -> Self {
        Decision { admission: Admission::default(), virtual_host: None, route: None, delay: None, outcome }
    }

    /// Name of the route, empty without one.
    #[must_use]
    pub fn route_name(&self) -> &'t str {
        self.route.map_or("", |route| &route.name)
    }
}

/// A wait that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delayed {
    /// How long.
    pub wait: Duration,
}

/// An answer that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// HTTP status.
    pub status: u16,
}

/// Why there is no route: all of them are 404 `no_route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrouted {
    /// The route configuration has not come.
    NoTable,
    /// No virtual host is for this authority.
    NoVirtualHost,
    /// No route of the virtual host matches.
    NoRoute,
}

impl Unrouted {
    /// The sentence for the reply.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Unrouted::NoTable => "the route configuration of this listener has not arrived",
            Unrouted::NoVirtualHost => "no virtual host is for this authority",
            Unrouted::NoRoute => "no route matches this request",
        }
    }
}

/// What happens after the wait.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'t> {
    /// The request is sent on.
    Forward(Forwarded<'t>),
    /// The answer is another place.
    Redirect(Redirected<'t>),
    /// The answer is the route's own.
    Direct(&'t Direct),
    /// The answer is a fault's.
    Abort(Aborted),
    /// It is not let in.
    Denied(Denied<'t>),
    /// Nothing is for it.
    Unrouted(Unrouted),
    /// The route's cluster does not exist.
    NoCluster {
        /// The cluster.
        name: &'t str,
        /// HTTP status of the answer.
        status: u16,
    },
}

/// A request that is sent on.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'t> {
    /// Where to.
    pub cluster: &'t Arc<Cluster>,
    pub(crate) forward: &'t Forward,
    pub(crate) path: &'t PathMatch,
}

impl<'t> Forwarded<'t> {
    /// How long the whole request may take; `None` is for ever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.forward.timeout
    }

    /// When it is tried again; `None` is never.
    #[must_use]
    pub fn retry(&self) -> Option<&'t Retry> {
        self.forward.retry.as_deref()
    }

    /// The path with query to send, for the canonical path with query that came.
    #[must_use]
    pub fn path<'r>(&self, path: &'r str) -> Cow<'r, str> {
        let (bare, query) = split_query(path);
        let rewritten = match &self.forward.path {
            PathRewrite::Keep => return Cow::Borrowed(path),
            PathRewrite::Prefix(by) => replaced_prefix(self.path, by, bare),
            PathRewrite::Regex(regex, by) => match regex.replace_all(bare, by) {
                Some(rewritten) => rewritten,
                None => return Cow::Borrowed(path),
            },
        };
        Cow::Owned(rewritten + query)
    }

    /// The authority to send, for the one that came.
    #[must_use]
    pub fn authority<'r>(&self, authority: &'r str) -> &'r str
    where
        't: 'r,
    {
        match &self.forward.host {
            HostRewrite::Keep => authority,
            HostRewrite::Literal(host) => host,
        }
    }
}

/// A request that is answered with another place.
#[derive(Debug, Clone, Copy)]
pub struct Redirected<'t> {
    pub(crate) redirect: &'t Redirect,
    pub(crate) path: &'t PathMatch,
}

impl Redirected<'_> {
    /// HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.redirect.status
    }

    /// Value of the answer's `location` header.
    #[must_use]
    pub fn location(&self, request: &impl Request) -> String {
        let redirect = self.redirect;
        let scheme = redirect.scheme.as_deref().unwrap_or_else(|| request.scheme());
        let authority = request.authority();
        let mut location = format!("{scheme}://");
        match (&redirect.host, redirect.port) {
            (None, None) => {
                let default = match (request.scheme(), scheme) {
                    ("http", "https") => ":80",
                    ("https", "http") => ":443",
                    _ => "",
                };
                location.push_str(authority.strip_suffix(default).unwrap_or(authority));
            }
            (host, port) => {
                // A port that came with the old host means nothing for the new one.
                location.push_str(host.as_deref().unwrap_or_else(|| without_port(authority)));
                if let Some(port) = port {
                    location.push(':');
                    location.push_str(&port.to_string());
                }
            }
        }
        let (bare, query) = split_query(request.path());
        match &redirect.path {
            RedirectPath::Keep => location.push_str(bare),
            RedirectPath::Whole(path) => location.push_str(path),
            RedirectPath::Prefix(by) => location.push_str(&replaced_prefix(self.path, by, bare)),
        }
        let has_query = matches!(&redirect.path, RedirectPath::Whole(path) if path.contains('?'));
        if !redirect.strip_query && !has_query {
            location.push_str(query);
        }
        location
    }
}

/// The path with what the match matched replaced: its prefix, or all of it.
fn replaced_prefix(matched: &PathMatch, by: &str, bare: &str) -> String {
    let rest = bare.get(matched.matched_len(bare)..).unwrap_or_default();
    format!("{by}{rest}")
}
