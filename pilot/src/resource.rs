//! One xDS resource, encoded once and shared by every proxy that gets it.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use engine::generate;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Field number of `resources` in `DeltaDiscoveryResponse`.
const RESOURCES_FIELD: u32 = 2;

/// The types of resources that Pilot serves, in the order in which additions are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Cluster`, CDS.
    Cluster,
    /// `ClusterLoadAssignment`, EDS.
    Endpoints,
    /// `Listener`, LDS.
    Listener,
    /// `RouteConfiguration`, RDS.
    Route,
}

impl Kind {
    /// Every kind, in the order in which additions are pushed (make before break); removals go the other way.
    pub const ALL: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];

    /// The type URL on the wire.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Kind::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind with this type URL.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The name by which people know it: `CDS`, `EDS`, `LDS`, `RDS`.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Kind::Cluster => "CDS",
            Kind::Endpoints => "EDS",
            Kind::Listener => "LDS",
            Kind::Route => "RDS",
        }
    }

    /// The engine's word for it.
    #[must_use]
    pub const fn to_engine(self) -> engine::proto::Kind {
        match self {
            Kind::Cluster => engine::proto::Kind::Cluster,
            Kind::Endpoints => engine::proto::Kind::Endpoints,
            Kind::Listener => engine::proto::Kind::Listener,
            Kind::Route => engine::proto::Kind::Route,
        }
    }

    /// From the engine's word for it.
    #[must_use]
    pub const fn of_engine(kind: engine::proto::Kind) -> Self {
        match kind {
            engine::proto::Kind::Cluster => Kind::Cluster,
            engine::proto::Kind::Endpoints => Kind::Endpoints,
            engine::proto::Kind::Listener => Kind::Listener,
            engine::proto::Kind::Route => Kind::Route,
        }
    }

    /// Whether a first subscription without names means all resources (`true`), or nothing yet.
    #[must_use]
    pub const fn may_be_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }
}

/// Hash over what a resource says; equal on all replicas and after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Reads what a peer says that it holds; `None` for text that no Pilot has given out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Version)).flatten()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A resource in its final form: name, version, and the bytes that go into a response as they are.
#[derive(Debug)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name, unique within its kind for one proxy.
    pub name: Arc<str>,
    /// Hash over its content.
    pub version: Version,
    /// Name of the load assignment that a client asks for once it has this cluster.
    pub endpoints_name: Option<Arc<str>>,
    /// A whole `resources` entry of a `DeltaDiscoveryResponse`: key, length and message.
    entry: Bytes,
}

impl Resource {
    /// Wraps an encoded message (the bytes of the `Cluster`, the `Listener`, …).
    #[must_use]
    pub fn new(kind: Kind, name: Arc<str>, version: Version, message: &[u8]) -> Self {
        let entry = encode_entry(kind, &name, version, message);
        Resource { kind, name, version, endpoints_name: None, entry }
    }

    /// Encodes what the engine has generated.
    #[must_use]
    pub fn of_engine(generated: &generate::Resource) -> Self {
        let kind = Kind::of_engine(generated.kind);
        let mut resource = Resource::new(kind, generated.name.as_str().into(), version_of(generated), &generated.body);
        if kind == Kind::Cluster && generate::ClusterName::parse(&generated.name).is_some() {
            resource.endpoints_name = Some(resource.name.clone());
        }
        resource
    }

    /// The bytes of the whole entry in a response.
    #[must_use]
    pub fn entry(&self) -> &Bytes {
        &self.entry
    }
}

/// The version of what the engine has generated: its own hash over the content, shortened.
#[must_use]
pub fn version_of(generated: &generate::Resource) -> Version {
    Version(crate::hash::of(generated.version.as_str()))
}

/// Encodes `Resource {version = 1, resource: Any = 2, name = 3}` as an entry of the `resources` field.
fn encode_entry(kind: Kind, name: &str, version: Version, message: &[u8]) -> Bytes {
    let version = version.to_string();
    let any_len = field_len(kind.type_url().len()) + field_len(message.len());
    let resource_len = field_len(version.len()) + field_len(any_len) + field_len(name.len());
    let mut entry = BytesMut::with_capacity(field_len(resource_len));
    put_header(RESOURCES_FIELD, resource_len, &mut entry);
    put_field(1, version.as_bytes(), &mut entry);
    put_header(2, any_len, &mut entry);
    put_field(1, kind.type_url().as_bytes(), &mut entry);
    put_field(2, message, &mut entry);
    put_field(3, name.as_bytes(), &mut entry);
    entry.freeze()
}

/// Length of a length-delimited field whose number is below 16.
pub(crate) fn field_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

/// Writes key and length of a length-delimited field.
pub(crate) fn put_header(field: u32, len: usize, buffer: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

/// Writes a length-delimited field.
pub(crate) fn put_field(field: u32, content: &[u8], buffer: &mut impl BufMut) {
    put_header(field, content.len(), buffer);
    buffer.put_slice(content);
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
    use prost::Message;

    use super::*;

    #[test]
    fn an_entry_is_what_prost_would_have_written() {
        let cluster = Cluster { name: "outbound|9080||reviews".to_owned(), ..Cluster::default() };
        let resource = Resource::new(Kind::Cluster, cluster.name.as_str().into(), Version(7), &cluster.encode_to_vec());
        let response = DeltaDiscoveryResponse::decode(resource.entry().clone()).expect("decodes");
        let [entry] = response.resources.as_slice() else { panic!("one resource: {response:?}") };
        assert_eq!(entry.name, cluster.name);
        assert_eq!(Version::parse(&entry.version), Some(Version(7)));
        let any = entry.resource.as_ref().expect("has content");
        assert_eq!(Kind::from_type_url(&any.type_url), Some(Kind::Cluster));
        assert_eq!(Cluster::decode(any.value.as_slice()).expect("decodes"), cluster);
    }

    #[test]
    fn only_our_own_versions_are_versions() {
        for text in ["", "1", "zzzzzzzzzzzzzzzz", "00000000000000001"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
