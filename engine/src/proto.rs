//! The xDS v3 messages that the engine speaks, under short names.

pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
pub use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub use envoy_types::pb::envoy::config::route::v3 as route;
pub use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
pub use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
pub use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_authn;
pub use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
pub use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
pub use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts;
pub use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::envoy::r#type::v3 as types;
pub use envoy_types::pb::google::protobuf;

/// A type of top-level resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
}

impl Kind {
    /// All kinds, in the order in which a proxy shows them.
    pub const ALL: [Kind; 4] = [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];

    /// The type URL that stands in discovery requests and in `Any`.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Kind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Kind::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Kind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    /// The kind that a type URL means.
    #[must_use]
    pub fn of_type_url(url: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// `LDS`, `RDS`, `CDS` or `EDS`.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Kind::Listener => "LDS",
            Kind::Route => "RDS",
            Kind::Cluster => "CDS",
            Kind::Endpoints => "EDS",
        }
    }
}

/// Type URLs and names of the extensions that the engine generates and understands.
pub mod extension {
    /// Prefix of every type URL.
    pub const PREFIX: &str = "type.googleapis.com/";
    /// Network filter that speaks HTTP.
    pub const HCM: (&str, &str) = (
        "envoy.filters.network.http_connection_manager",
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    );
    /// Network filter that passes bytes.
    pub const TCP_PROXY: (&str, &str) = (
        "envoy.filters.network.tcp_proxy",
        "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    );
    /// HTTP filter that ends the chain.
    pub const ROUTER: (&str, &str) =
        ("envoy.filters.http.router", "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router");
    /// HTTP filter that delays and aborts.
    pub const FAULT: (&str, &str) =
        ("envoy.filters.http.fault", "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault");
    /// HTTP filter that lets in those who may.
    pub const RBAC: (&str, &str) =
        ("envoy.filters.http.rbac", "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC");
    /// Network filter that lets in those who may.
    pub const NETWORK_RBAC: (&str, &str) =
        ("envoy.filters.network.rbac", "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC");
    /// HTTP filter that verifies tokens.
    pub const JWT: (&str, &str) = (
        "envoy.filters.http.jwt_authn",
        "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    );
    /// Listener filter that finds out where an intercepted connection was going.
    pub const ORIGINAL_DST: (&str, &str) = (
        "envoy.filters.listener.original_dst",
        "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    );
    /// Listener filter that recognises HTTP by its first bytes.
    pub const HTTP_INSPECTOR: (&str, &str) = (
        "envoy.filters.listener.http_inspector",
        "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    );
    /// Listener filter that recognises TLS and reads its server name.
    pub const TLS_INSPECTOR: (&str, &str) = (
        "envoy.filters.listener.tls_inspector",
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    );
    /// Transport socket without encryption.
    pub const RAW_BUFFER: (&str, &str) = (
        "envoy.transport_sockets.raw_buffer",
        "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    );
    /// Transport socket of TLS, to a cluster's endpoints.
    pub const UPSTREAM_TLS: (&str, &str) = (
        "envoy.transport_sockets.tls",
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    );
    /// Transport socket of TLS, in a filter chain.
    pub const DOWNSTREAM_TLS: (&str, &str) = (
        "envoy.transport_sockets.tls",
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    );
    /// Retries go to endpoints that were not tried.
    pub const PREVIOUS_HOSTS: (&str, &str) = (
        "envoy.retry_host_predicates.previous_hosts",
        "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    );
    /// Upstream protocol of a cluster.
    pub const HTTP_OPTIONS: (&str, &str) = (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    );
}
