//! The bootstrap with which a stock Envoy is a client of Pilot.

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
}

/// Makes a bootstrap: delta ADS over TLS with a bearer token from a file, everything else by discovery.
///
/// Envoy's Google gRPC client is used because it alone reads a token from a file for each call.
#[must_use]
pub fn envoy_bootstrap(of: &Bootstrap) -> Value {
    let by_ads = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": { "id": of.node_id, "cluster": of.node_cluster },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": of.admin_port } } },
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
