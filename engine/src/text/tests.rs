use super::*;
use crate::compile::check;

const HTTP: &str = r#"
static_resources:
  listeners:
  - name: l
    address: { socket_address: { address: 127.0.0.1, port_value: 18080 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          codec_type: AUTO
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                route: { cluster: up }
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: up
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 18081 } } } }] }]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http_protocol_options: {} }
"#;

#[test]
fn what_people_write_for_envoy_is_read_and_compiled() {
    let resources = read_static(HTTP).expect("a configuration");
    assert_eq!(resources.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["up", "l"]);
    for resource in &resources {
        assert_eq!(check(resource.kind, &resource.name, &resource.body), Ok(()), "{}", resource.name);
    }
    assert_eq!(resources, read_static(HTTP).expect("the same"), "versions do not depend on the order of maps");
}

#[test]
fn json_is_read_like_yaml_and_may_be_larger() {
    let json = |count: usize| {
        let one = |nth| format!(r#"{{"name": "c{nth}", "type": "STATIC", "connect_timeout": "5s"}}"#);
        format!(r#"{{"static_resources": {{"clusters": [{}]}}}}"#, (0..count).map(one).collect::<Vec<_>>().join(","))
    };
    let yaml = "{static_resources: {clusters: [{name: c0, type: STATIC, connect_timeout: 5s}]}}";
    assert_eq!(read_static(&json(1)).expect("JSON"), read_static(yaml).expect("YAML's own braces"));
    assert_eq!(read_static(&json(10_000)).expect("much JSON").len(), 10_000);
}

#[test]
fn what_is_shown_can_be_read() {
    for resource in read_static(HTTP).expect("a configuration") {
        let shown = to_json(resource.kind, &resource.body).expect("JSON");
        assert_eq!(from_json(resource.kind, &shown, "here").expect("a resource").version, resource.version);
    }
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    for (text, expected) in [
        ("a: [", "the text cannot be read"),
        ("[]", "the document is not a mapping"),
        ("admin: {}", "the document: `admin` is not in force"),
        ("static_resources: { secrets: [] }", "static_resources: `secrets` is not in force"),
        ("static_resources: { clusters: {} }", "static_resources.clusters is not a list"),
        ("static_resources: { clusters: [{ name: a, typ: STATIC }] }", "static_resources.clusters[0]: "),
        ("static_resources: { clusters: [{ type: STATIC }] }", "static_resources.clusters[0]: `name` is missing"),
        ("endpoints: [{ cluster_name: a, endpoints: 7 }]", "endpoints[0]: "),
    ] {
        let error = read_static(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}
