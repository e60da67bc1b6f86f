//! What the mesh's daemons answer on their debug ports, as the CLI reads it: plain JSON.

use serde::{Deserialize, Serialize};

/// Answer of Pilot's `GET /v1/proxies`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxies {
    /// The Pilot that answers: pod name.
    pub pilot: String,
    /// Version of that Pilot's binary.
    pub version: String,
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
    /// State per resource type, in the order LDS, RDS, CDS, EDS.
    pub types: Vec<TypeStatus>,
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
