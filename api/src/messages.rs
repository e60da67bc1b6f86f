//! What the mesh's daemons answer on their debug ports, as the CLI reads it: plain JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer of Pilot's `GET /v1/proxies`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxies {
    /// The Pilot that answers: pod name.
    pub pilot: String,
    /// Version of that Pilot's binary.
    pub version: String,
    /// Pilot's own identity, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<SvidStatus>,
    /// The names of the trust domain by which it configures proxies.
    #[serde(default)]
    pub trust_domains: Vec<String>,
    /// Every proxy connected to it, by id.
    pub proxies: Vec<ProxyStatus>,
}

/// One proxy as Pilot sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// `pod.namespace`.
    pub id: String,
    /// `sidecar` or `gateway`.
    pub role: String,
    /// The proxy's address.
    pub ip: String,
    /// Version of the proxy's binary.
    pub version: String,
    /// When it connected, RFC 3339.
    pub connected_since: String,
    /// Its identity, as far as it has one and tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<SvidStatus>,
    /// How much of its traffic is by mutual TLS, as far as it tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
    /// State per resource type, in the order LDS, RDS, CDS, EDS.
    pub types: Vec<TypeStatus>,
}

/// Requests and opaque connections between workloads that a proxy has seen, on both its sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Those by mutual TLS.
    pub mutual_tls: u64,
    /// Those in clear text.
    pub clear_text: u64,
}

impl TrafficStatus {
    /// The share by mutual TLS in whole percent, rounded down so that 100 is all; `None` without traffic.
    ///
    /// # Examples
    /// ```
    /// use api::messages::TrafficStatus;
    /// let of = |mutual_tls, clear_text| TrafficStatus { mutual_tls, clear_text }.percent();
    /// assert_eq!((of(0, 0), of(999, 1), of(7, 0)), (None, Some(99), Some(100)));
    /// ```
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        let all = u128::from(self.mutual_tls) + u128::from(self.clear_text);
        (u128::from(self.mutual_tls) * 100).checked_div(all).and_then(|percent| u64::try_from(percent).ok())
    }
}

/// Answer of a proxy's `GET /clear_text_callers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearTextCallers {
    /// Who has connected in clear text since the proxy started.
    pub callers: Vec<ClearTextCaller>,
    /// Connections of callers that there was no room for.
    pub others: u64,
}

/// Somebody who connects in clear text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearTextCaller {
    /// The address.
    pub address: String,
    /// The workload at that address, if the mesh knows one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The port of the workload that is called.
    pub port: u16,
    /// How many connections there were.
    pub connections: u64,
    /// When the last of them came, RFC 3339.
    pub last_seen: String,
}

/// A proxy's identity as it tells Pilot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SvidStatus {
    /// SPIFFE ID.
    pub id: String,
    /// The certificate's serial number, in hexadecimal.
    pub serial: String,
    /// When the proxy got it, RFC 3339.
    pub since: String,
    /// When it ends, RFC 3339.
    pub not_after: String,
    /// Short hash of the roots that the proxy trusts.
    pub bundle: String,
    /// Identifier of the key that signed the certificate, in hexadecimal.
    #[serde(default)]
    pub issuer: String,
    /// Whether the stream to Pilot is authenticated by the certificate, and not by a token alone.
    pub is_shown: bool,
}

/// Keys of a proxy's metadata, by which it tells Pilot of its identity.
pub mod node_metadata {
    /// SPIFFE ID.
    pub const SVID: &str = "MESH_SVID";
    /// The certificate's serial number.
    pub const SVID_SERIAL: &str = "MESH_SVID_SERIAL";
    /// When the proxy got it.
    pub const SVID_SINCE: &str = "MESH_SVID_SINCE";
    /// When it ends.
    pub const SVID_NOT_AFTER: &str = "MESH_SVID_NOT_AFTER";
    /// Identifier of the key that signed it.
    pub const SVID_ISSUER: &str = "MESH_SVID_ISSUER";
    /// Type of a response without resources by which Pilot has a proxy renew its identity, and with it what it trusts.
    pub const RENEW: &str = "type.googleapis.com/meshctl.RenewIdentity";
    /// Requests and connections by mutual TLS so far.
    pub const TRAFFIC_MUTUAL_TLS: &str = "MESH_TRAFFIC_MUTUAL_TLS";
    /// Requests and connections in clear text so far.
    pub const TRAFFIC_CLEAR_TEXT: &str = "MESH_TRAFFIC_CLEAR_TEXT";
    /// How the proxy takes part in the mesh's mutual TLS: [`TLS_OWN`] or [`TLS_SDS`]; not there, not at all.
    pub const TLS: &str = "MESH_TLS";
    /// With its own identity, offering by ALPN what is spoken on each connection.
    pub const TLS_OWN: &str = "own";
    /// With the secrets `default` and `ROOTCA`, which it gets by SDS from a cluster of its bootstrap named [`SDS_CLUSTER`].
    pub const TLS_SDS: &str = "sds";
    /// Name of the cluster, in a stock Envoy's bootstrap, of the socket that serves its secrets.
    pub const SDS_CLUSTER: &str = "sds-grpc";
    /// Short hash of the roots that it trusts.
    pub const BUNDLE: &str = "MESH_TRUST_BUNDLE";
}

/// How far one proxy is with one type of resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeStatus {
    /// `LDS`, `RDS`, `CDS` or `EDS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it amounts to.
    pub state: SyncState,
    /// Number of resources that the proxy has acknowledged.
    pub resources: u64,
    /// Short hash over the versions of all resources of the type that the proxy has acknowledged.
    pub version: String,
    /// Resources that the proxy refused, with its own words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

/// Whether a proxy follows what Pilot sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// All that was sent is acknowledged.
    Synced,
    /// Something sent is not acknowledged yet.
    Stale,
    /// The last response was refused at least in part; the old resources stay in force.
    Rejected,
    /// Nothing of this type was sent.
    NotSent,
}

/// A resource that a proxy refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// The resource's name.
    pub resource: String,
    /// The proxy's reason.
    pub error: String,
}

/// Answer of Pilot's `GET /v1/resources?proxy=POD.NAMESPACE`: what one proxy was sent, and what it has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyResources {
    /// Whether the proxy is connected to this Pilot.
    pub connected: bool,
    /// Resources in the order LDS, RDS, CDS, EDS and by name.
    pub resources: Vec<ResourceStatus>,
}

/// One resource of one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// `LDS`, `RDS`, `CDS` or `EDS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The version that was sent last; `None` if the proxy was told that there is none.
    pub sent: Option<String>,
    /// The version that the proxy has acknowledged last.
    pub acknowledged: Option<String>,
    /// Why the proxy refuses what was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Answer of Pilot's `GET /v1/applied?kind=RouteRule&namespace=N&name=N&resourceVersion=V` (for a deletion without
/// `resourceVersion` and with `deleted=true`): how far a change has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Whether Pilot has seen that version of the object (or a later one, or its deletion).
    pub known: bool,
    /// Whether Pilot uses the object; if not, `problems` says why.
    pub accepted: bool,
    /// Why the object is not used, or only in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Number of connected proxies that the change concerns.
    pub proxies: u64,
    /// Number of those that have acknowledged it.
    pub applied: u64,
    /// Ids of those that have not yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// Ids of those that refused it, with their words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

/// Answer of the CA's `GET /v1/authority`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// The CA that answers: pod name.
    pub ca: String,
    /// Version of that CA's binary.
    pub version: String,
    /// `self-made root` or `plugged-in`.
    pub origin: String,
    /// Trust domain of the identities that it issues.
    pub trust_domain: String,
    /// The name in which it issues them now: a former one, until everybody accepts the trust domain's.
    #[serde(default)]
    pub issuing: String,
    /// Other names of the same trust domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// For how long certificates hold unless something else is asked for.
    pub lifetime_seconds: u64,
    /// The longest that may be asked for.
    pub longest_lifetime_seconds: u64,
    /// The certificate whose key signs.
    pub issuer: CertificateFacts,
    /// Identifier of that key, in hexadecimal.
    #[serde(default)]
    pub issuer_key: String,
    /// How far a rotation of the root is.
    #[serde(default)]
    pub rotation: Rotation,
    /// Whether the CA goes on with it, or still waits for acknowledgements of its end.
    #[serde(default)]
    pub is_rotating: bool,
    /// Who has not acknowledged this stage yet, in words; some of them, if they are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// How many that are.
    #[serde(default)]
    pub waiting: u64,
    /// The roots that everybody should trust.
    pub roots: Vec<CertificateFacts>,
    /// Short hash of those roots and of the trust domain's names.
    pub bundle: String,
    /// How many certificates it has issued since it started, by what proved the caller.
    pub issued: BTreeMap<String, u64>,
}

/// How far a rotation of the root is. Each stage holds until everybody has acknowledged it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// None is under way: there is one root.
    #[default]
    None,
    /// A new root is among those to be trusted, and signs nothing yet.
    Added,
    /// The new root signs, and the old one is still trusted.
    Signing,
}

/// What people want to know of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// Its subject.
    pub subject: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of it, in hexadecimal.
    pub fingerprint: String,
    /// When it begins to hold, RFC 3339.
    pub not_before: String,
    /// When it ends, RFC 3339.
    pub not_after: String,
}
