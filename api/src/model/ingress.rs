//! What an Ingress lets in at the gateway.

use std::num::NonZeroU16;

use super::{Host, Key, Origin};

/// An Ingress of the mesh's class.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// Namespace and name.
    pub key: Key,
    /// Where it came from.
    pub origin: Origin,
    /// Its rules in written order; a default back end is the last rule, for any host and path.
    pub rules: Vec<IngressRule>,
    /// Servers whose TLS passes through; an Ingress that has some has no other rules.
    pub passthrough: Vec<Passthrough>,
}

/// A server whose TLS the gateway passes to a service as the bytes that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// The name that clients ask for, in lower case: a name of DNS, with `*` as its first label for any names below.
    pub server_name: String,
    /// The service that gets the connection.
    pub service: Host,
    /// The service's port.
    pub port: NonZeroU16,
}

/// One path of an Ingress.
#[derive(Debug, Clone, PartialEq)]
pub struct IngressRule {
    /// Host that it is about (`*.x` allowed); `None` is any.
    pub host: Option<String>,
    /// Path that it is about.
    pub path: IngressPath,
    /// The service that gets the request.
    pub service: Host,
    /// The service's port.
    pub port: NonZeroU16,
}

/// How an Ingress compares paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngressPath {
    /// Equal.
    Exact(String),
    /// Kubernetes' `Prefix`: element by element (`/foo` is `/foo` and `/foo/…`, not `/foobar`).
    Elements(String),
    /// Text prefix: the classic `/foo.*`.
    Text(String),
}
