//! Resources as texts.

use engine::Kind;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;

/// The resources in a text, as discovery responses carry them, all with the given version.
pub fn resources(version: &str, text: &str) -> Vec<Resource> {
    let made = engine::text::read_static(text).expect("the test's text is good");
    let to_resource = |made: &engine::generate::Resource| Resource {
        name: made.name.to_string(),
        version: version.to_owned(),
        resource: Some(made.to_any()),
        ..Default::default()
    };
    made.iter().map(to_resource).collect()
}

/// A resource whose bytes are no message.
pub fn garbage(kind: Kind, name: &str, version: &str) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any { type_url: kind.type_url().to_owned(), value: vec![0xff; 7] }),
        ..Default::default()
    }
}

/// A listener on a free port with routes by name.
pub fn listener(name: &str, port: u16, routes: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: {name}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          rds: {{ route_config_name: {routes}, config_source: {{ ads: {{}}, resource_api_version: V3 }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
    )
}

/// A route configuration that sends everything to a cluster.
pub fn routes(name: &str, cluster: &str) -> String {
    format!(
        "route_configs:
- name: {name}
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
    - name: default
      match: {{ prefix: / }}
      route: {{ cluster: {cluster} }}
"
    )
}

/// A cluster with endpoints by EDS.
pub fn cluster(name: &str) -> String {
    format!(
        "static_resources:
  clusters:
  - name: {name}
    type: EDS
    connect_timeout: 1s
    eds_cluster_config: {{ eds_config: {{ ads: {{}}, resource_api_version: V3 }} }}
"
    )
}

/// The endpoint of a cluster.
pub fn endpoint(cluster: &str, port: u16) -> String {
    format!(
        "endpoints:
- cluster_name: {cluster}
  endpoints:
  - lb_endpoints:
    - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"
    )
}

/// A cluster with endpoints by EDS, all of which are called by mutual TLS.
pub fn tls_cluster(name: &str) -> String {
    format!(
        "{}    transport_socket_matches:
    - name: mesh-tls
      match: {{}}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            alpn_protocols: [mesh-h2, mesh]
            tls_certificate_sds_secret_configs: [{{ name: default }}]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names:
                - {{ san_type: URI, matcher: {{ exact: 'spiffe://cluster.local/ns/shop/sa/reviews' }} }}
              validation_context_sds_secret_config: {{ name: ROOTCA }}
",
        cluster(name)
    )
}
