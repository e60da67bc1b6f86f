//! What the engine looks at in a request, without a copy.

use std::net::{IpAddr, SocketAddr};

use api::spiffe::SpiffeId;

use crate::token::Verified;

/// A request as the engine sees it: path and authority in their canonical form.
///
/// Implemented by the data path on its parsed head, and by [`Simple`] for tests and offline questions.
pub trait Request {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
    /// The host with its port if one was given, from [`crate::path::canonical_authority`].
    fn authority(&self) -> &str;
    /// The path with its query, from [`crate::path::canonical_path`].
    fn path(&self) -> &str;
    /// Every value of a header in the order of arrival; `name` is in lower case, names compare without case.
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// Who sent it, as far as that is proved.
    fn caller(&self) -> Caller<'_>;
    /// Whether it is a request at all; else it is a connection, which has nothing but a caller.
    fn is_http(&self) -> bool {
        true
    }
}

/// Who sent a request, as far as that is proved: nothing in here is what the request says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'r> {
    /// The workload, by its certificate; `None` in plain text.
    pub identity: Option<&'r SpiffeId>,
    /// The address at the other end of the connection.
    pub address: Option<IpAddr>,
    /// Where the connection was going.
    pub destination: Option<SocketAddr>,
    /// The end user, by tokens that were verified.
    pub tokens: &'r [Verified],
}

/// An opaque connection, as the engine sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connection<'r>(pub Caller<'r>);

impl Request for Connection<'_> {
    fn method(&self) -> &str {
        ""
    }

    fn scheme(&self) -> &str {
        ""
    }

    fn authority(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        ""
    }

    fn header(&self, _name: &str) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    fn caller(&self) -> Caller<'_> {
        self.0
    }

    fn is_http(&self) -> bool {
        false
    }
}

/// A request made of text, for tests and offline questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simple {
    /// The method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The canonical authority.
    pub authority: String,
    /// The canonical path with its query.
    pub path: String,
    /// Headers with names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The workload that sends it.
    pub identity: Option<SpiffeId>,
    /// The address that it comes from.
    pub address: Option<IpAddr>,
    /// Where it was going.
    pub destination: Option<SocketAddr>,
    /// Tokens that were verified.
    pub tokens: Vec<Verified>,
}

impl Simple {
    /// A `GET` of a path at an authority, in clear text.
    #[must_use]
    pub fn get(authority: &str, path: &str) -> Self {
        Simple {
            method: "GET".to_owned(),
            scheme: "http".to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            identity: None,
            address: None,
            destination: None,
            tokens: Vec::new(),
        }
    }

    /// The same request with another method.
    #[must_use]
    pub fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The same request from a workload.
    #[must_use]
    pub fn from_workload(mut self, identity: &SpiffeId) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }
}

impl Request for Simple {
    fn method(&self) -> &str {
        &self.method
    }

    fn scheme(&self) -> &str {
        &self.scheme
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_bytes())
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            identity: self.identity.as_ref(),
            address: self.address,
            destination: self.destination,
            tokens: &self.tokens,
        }
    }
}
