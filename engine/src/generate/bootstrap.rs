//! The bootstrap with which a stock Envoy is a client of Pilot.

use api::messages::node_metadata as field;
use serde_json::{Value, json};

/// What a bootstrap needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The node's id, as `sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local`.
    pub node_id: String,
    /// The node's cluster, as `reviews-v1.default`.
    pub node_cluster: String,
    /// Where Pilot is: `host:port`.
    pub pilot_address: String,
    /// The name in Pilot's certificate.
    pub pilot_name: String,
    /// File with the root of Pilot's certificate.
    pub root_file: String,
    /// File with the service-account token; it is read again for each call.
    pub token_file: String,
    /// Port of Envoy's own administration, on loopback.
    pub admin_port: u16,
    /// The Unix socket that serves its secrets by SDS; without one it takes no part in mutual TLS.
    pub sds_socket: Option<String>,
}

/// Makes a bootstrap: delta ADS over TLS with a bearer token from a file, everything else by discovery.
///
/// Envoy's Google gRPC client is used because it alone reads a token from a file for each call.
#[must_use]
pub fn envoy_bootstrap(of: &Bootstrap) -> Value {
    let mut node = json!({ "id": of.node_id, "cluster": of.node_cluster });
    let mut clusters = Vec::new();
    if let Some(socket) = &of.sds_socket {
        node["metadata"] = json!({ field::TLS: field::TLS_SDS });
        clusters.push(sds_cluster(socket));
    }
    let by_ads = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": node,
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": of.admin_port } } },
        "static_resources": { "clusters": clusters },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "google_grpc": google_grpc(of) }],
            },
            "cds_config": by_ads,
            "lds_config": by_ads,
        },
    })
}

/// The socket at which the pod's identity is handed out.
fn sds_cluster(socket: &str) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": field::SDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            OPTIONS: {
                "@type": format!("type.googleapis.com/{OPTIONS}"),
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": field::SDS_CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": socket } } } }] }],
        },
    })
}

fn google_grpc(of: &Bootstrap) -> Value {
    const TOKEN_FROM_FILE: &str = "envoy.grpc_credentials.file_based_metadata";
    json!({
        "target_uri": of.pilot_address,
        "stat_prefix": "mesh_pilot",
        "channel_credentials": { "ssl_credentials": { "root_certs": { "filename": of.root_file } } },
        "credentials_factory_name": TOKEN_FROM_FILE,
        "call_credentials": [{
            "from_plugin": {
                "name": TOKEN_FROM_FILE,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
                    "secret_data": { "filename": of.token_file },
                    "header_key": "authorization",
                    "header_prefix": "Bearer ",
                },
            },
        }],
        "channel_args": { "args": {
            "grpc.ssl_target_name_override": { "string_value": of.pilot_name },
            "grpc.keepalive_time_ms": { "int_value": 30_000 },
        } },
    })
}
