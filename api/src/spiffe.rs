//! SPIFFE identities: names of workloads as URIs, read strictly and written back unchanged.
//!
//! The mesh's own identities are `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`; those of others may
//! have any path that the SPIFFE standard allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::check::is_dns_label;

/// The longest identity, in bytes.
const MAX_ID: usize = 2048;
/// The longest trust domain, in bytes.
const MAX_TRUST_DOMAIN: usize = 255;
const SCHEME: &str = "spiffe://";

/// The name of a trust domain: lower-case letters, digits, dots, dashes and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// The identity of a workload, or of a trust domain as a whole when it has no path.
///
/// # Examples
///
/// ```
/// use api::spiffe::{SpiffeId, TrustDomain};
///
/// let domain: TrustDomain = "cluster.local".parse()?;
/// let id = SpiffeId::of_account(&domain, "default", "bookinfo-reviews")?;
/// assert_eq!(id.to_string(), "spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
/// assert_eq!(id.account(), Some(("default", "bookinfo-reviews")));
/// assert_eq!(id, id.to_string().parse()?);
/// assert!("spiffe://cluster.local/ns//sa/x".parse::<SpiffeId>().is_err());
/// # Ok::<(), api::spiffe::InvalidId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The whole URI.
    uri: String,
    /// Where the path begins in it; its length when there is none.
    path: usize,
}

/// Why a text is no SPIFFE identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It does not begin as one.
    #[error("`{0}` does not begin with `spiffe://`")]
    Scheme(String),
    /// The trust domain is missing.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is too long.
    #[error("the trust domain is longer than {MAX_TRUST_DOMAIN} bytes")]
    LongTrustDomain,
    /// The trust domain has a character that it cannot have.
    #[error("the trust domain `{0}` has other characters than lower-case letters, digits, `.`, `-` and `_`")]
    TrustDomain(String),
    /// The whole is too long.
    #[error("a SPIFFE ID is longer than {MAX_ID} bytes")]
    Long,
    /// The path ends in a slash.
    #[error("the path `{0}` ends in a slash")]
    TrailingSlash(String),
    /// A part of the path is empty.
    #[error("the path `{0}` has an empty part")]
    EmptySegment(String),
    /// A part of the path is `.` or `..`.
    #[error("the path `{0}` has a part that is `.` or `..`")]
    DotSegment(String),
    /// A part of the path has a character that it cannot have.
    #[error("the path `{0}` has other characters than letters, digits, `.`, `-` and `_`")]
    Path(String),
    /// A namespace or service account is no name of Kubernetes.
    #[error("`{0}` cannot be the name of a namespace or of a service account")]
    Name(String),
}

impl TrustDomain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of the trust domain as a whole.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        let uri = format!("{SCHEME}{}", self.0);
        SpiffeId { path: uri.len(), uri }
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        check_trust_domain(text)?;
        Ok(TrustDomain(text.to_owned()))
    }
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    ///
    /// When one of the names is none of Kubernetes'.
    pub fn of_account(domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, InvalidId> {
        if !is_dns_label(namespace) {
            return Err(InvalidId::Name(namespace.to_owned()));
        }
        // Names of service accounts may have dots.
        if account.len() > 253 || !account.split('.').all(is_dns_label) {
            return Err(InvalidId::Name(account.to_owned()));
        }
        format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.uri[SCHEME.len()..self.path].to_owned())
    }

    /// Whether the identity belongs to that trust domain.
    #[must_use]
    pub fn is_member_of(&self, domain: &TrustDomain) -> bool {
        self.uri[SCHEME.len()..self.path] == domain.0
    }

    /// The path with its leading slash; empty for a trust domain as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.uri[self.path..]
    }

    /// Namespace and service account, if the path has the mesh's form.
    #[must_use]
    pub fn account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() > MAX_ID {
            return Err(InvalidId::Long);
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(InvalidId::Scheme(text.to_owned()));
        };
        let domain = rest.find('/').map_or(rest, |slash| &rest[..slash]);
        check_trust_domain(domain)?;
        let path = SCHEME.len() + domain.len();
        check_path(&text[path..])?;
        Ok(SpiffeId { uri: text.to_owned(), path })
    }
}

fn check_trust_domain(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::EmptyTrustDomain);
    }
    if text.len() > MAX_TRUST_DOMAIN {
        return Err(InvalidId::LongTrustDomain);
    }
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if text.bytes().all(is_good) { Ok(()) } else { Err(InvalidId::TrustDomain(text.to_owned())) }
}

fn check_path(path: &str) -> Result<(), InvalidId> {
    let Some(segments) = path.strip_prefix('/') else { return Ok(()) };
    if path.ends_with('/') {
        return Err(InvalidId::TrailingSlash(path.to_owned()));
    }
    for segment in segments.split('/') {
        match segment {
            "" => return Err(InvalidId::EmptySegment(path.to_owned())),
            "." | ".." => return Err(InvalidId::DotSegment(path.to_owned())),
            _ if segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) => {}
            _ => return Err(InvalidId::Path(path.to_owned())),
        }
    }
    Ok(())
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_strictly() {
        for text in [
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/default/sa/default",
            "spiffe://example.org/9eebccd2-12bf-40a6-b262-65fe0487d453",
            "spiffe://a_b-c.d/Payments/Web.FE",
            "spiffe://1.2.3.4/...",
        ] {
            let id: SpiffeId = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(id.to_string(), text);
        }
        for text in [
            "",
            "spiffe://",
            "spiffe:///path",
            "SPIFFE://cluster.local",
            "http://cluster.local",
            "spiffe://Cluster.local",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/a/",
            "spiffe://cluster.local//a",
            "spiffe://cluster.local/./a",
            "spiffe://cluster.local/a/..",
            "spiffe://cluster.local/a%20b",
            "spiffe://cluster.local/a b",
            "spiffe://cluster.local/ä",
            "spiffe://cluster.local:80/a",
            "spiffe://user@cluster.local/a",
            "spiffe://cluster.local/a?b",
            "spiffe://cluster.local?b",
            "spiffe://cluster.local/a#b",
            &format!("spiffe://{}", "a".repeat(256)),
            &format!("spiffe://a/{}", "a".repeat(2048)),
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_form_of_the_mesh_names_an_account() {
        for (text, expected) in [
            ("spiffe://d/ns/a/sa/b", Some(("a", "b"))),
            ("spiffe://d/ns/a/sa/b/c", None),
            ("spiffe://d/ns/a/x/sa/b", None),
            ("spiffe://d/a", None),
            ("spiffe://d", None),
        ] {
            let id: SpiffeId = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(id.account(), expected, "{text}");
        }
        let domain: TrustDomain = "d".parse().expect("a trust domain");
        for (namespace, account) in [("a/b", "c"), ("a", "b/c"), ("", "b"), ("a", ".."), ("A", "b")] {
            assert!(SpiffeId::of_account(&domain, namespace, account).is_err(), "{namespace} {account}");
        }
        assert!(SpiffeId::of_account(&domain, "a", "b.c").is_ok());
        assert!(domain.id().is_member_of(&domain));
    }
}
