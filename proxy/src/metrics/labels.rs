//! Istio's standard labels. Every value is the mesh's own word: nothing of a request is one, but its status.

use api::spiffe::SpiffeId;
use engine::tables::{ClusterSpec, Endpoint};

use super::{Kind, Protocol};
use crate::headers::Edge;
use crate::peers::Who;

/// Labels of one series, in the order in which they are told.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Who the proxy stands beside, or is; empty is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of what owns the pod.
    pub workload: String,
    /// The namespace.
    pub namespace: String,
    /// The label `app`.
    pub app: String,
    /// The label `version`.
    pub version: String,
    /// The cluster that the proxy is in, which is that of everything that Pilot tells it of.
    pub cluster: String,
}

/// Who the two ends of a connection by mutual TLS have proved to be, as far as there is room for it.
#[derive(Clone, Copy)]
pub(super) struct Proved<'a> {
    pub(super) own: Option<&'a SpiffeId>,
    pub(super) other: Option<&'a SpiffeId>,
}

/// One side of a request.
#[derive(Clone, Copy, Default)]
struct Side<'a> {
    workload: &'a str,
    namespace: &'a str,
    principal: &'a str,
    app: &'a str,
    version: &'a str,
    cluster: &'a str,
}

const SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];
const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];
const SERVICE: [&str; 3] = ["destination_service", "destination_service_name", "destination_service_namespace"];

impl<'a> Side<'a> {
    fn own(identity: &'a Identity) -> Self {
        Side {
            workload: &identity.workload,
            namespace: &identity.namespace,
            principal: "",
            app: &identity.app,
            version: &identity.version,
            cluster: &identity.cluster,
        }
    }

    fn endpoint(endpoint: &'a Endpoint, cluster: &'a str) -> Self {
        Side {
            workload: &endpoint.workload,
            namespace: &endpoint.namespace,
            principal: "",
            app: &endpoint.app,
            version: &endpoint.version,
            cluster,
        }
    }

    fn peer(who: &'a Who, cluster: &'a str) -> Self {
        Side {
            workload: &who.workload,
            namespace: &who.namespace,
            principal: "",
            app: &who.app,
            version: &who.version,
            cluster,
        }
    }

    /// As Istio: the canonical service is the application, else the workload; its revision the version, else the latest.
    fn values(self) -> [String; 8] {
        let is_known = !(self.app.is_empty() && self.workload.is_empty());
        let revision = if self.version.is_empty() && is_known { "latest" } else { self.version };
        let service = if self.app.is_empty() { self.workload } else { self.app };
        let Side { workload, namespace, principal, app, version, cluster } = self;
        [workload, namespace, principal, app, version, cluster, service, revision].map(known)
    }
}

/// The labels of a kind of traffic as the proxy of `identity` sees it.
pub(super) fn of(identity: &Identity, kind: &Kind<'_>, source: Option<&Who>, proved: Option<Proved<'_>>) -> Labels {
    let own_principal = proved.and_then(|proved| proved.own).map_or("", SpiffeId::as_str);
    let principal = proved.and_then(|proved| proved.other).map_or("", SpiffeId::as_str);
    let own = Side { principal: own_principal, ..Side::own(identity) };
    let other = match kind.edge {
        Edge::Inbound => source.map(|who| Side::peer(who, &identity.cluster)),
        Edge::Outbound | Edge::Gateway => kind.endpoint.map(|endpoint| Side::endpoint(endpoint, &identity.cluster)),
    };
    // Whose address says nothing has at least the namespace of its certificate.
    let account = proved.and_then(|proved| proved.other?.account());
    let other = other.unwrap_or_else(|| Side { namespace: account.map_or("", |(name, _)| name), ..Side::default() });
    let other = Side { principal, ..other };
    let (reporter, source, destination) = match kind.edge {
        Edge::Inbound => ("destination", other, own),
        Edge::Outbound | Edge::Gateway => ("source", own, other),
    };
    let mut labels = Vec::with_capacity(25);
    labels.push(("reporter", reporter.to_owned()));
    labels.extend(SOURCE.into_iter().zip(source.values()));
    labels.extend(DESTINATION.into_iter().zip(destination.values()));
    labels.extend(SERVICE.into_iter().zip(service(kind.cluster.map(|cluster| &**cluster))));
    let (protocol, grpc) = match kind.protocol {
        Protocol::Http => ("http", None),
        Protocol::Grpc(status) => ("grpc", Some(status)),
        Protocol::Tcp => ("tcp", None),
    };
    labels.push(("request_protocol", protocol.to_owned()));
    if kind.protocol != Protocol::Tcp {
        labels.push(("response_code", kind.status.to_string()));
        // gRPC has seventeen; whatever else an upstream makes up is one more.
        let grpc =
            grpc.map(|status| status.filter(|status| *status <= 16).map_or("unknown".to_owned(), |s| s.to_string()));
        labels.push(("grpc_response_status", grpc.unwrap_or_default()));
    }
    labels.push(("response_flags", kind.flag.to_owned()));
    // What is in clear text here may be an application's own TLS where it goes on.
    let security = match (kind.edge, proved) {
        (_, Some(_)) => "mutual_tls",
        (Edge::Inbound, None) => "none",
        (Edge::Outbound | Edge::Gateway, None) => "unknown",
    };
    labels.push(("connection_security_policy", security.to_owned()));
    labels
}

fn service(cluster: Option<&ClusterSpec>) -> [String; 3] {
    match cluster.and_then(|cluster| cluster.service.as_ref()) {
        Some(service) => [&*service.host, &*service.name, &*service.namespace].map(known),
        None => [""; 3].map(known),
    }
}

fn known(value: &str) -> String {
    if value.is_empty() { "unknown".to_owned() } else { value.to_owned() }
}
