use serde_json::{Value, json};

use crate::compile::Compiler;
use crate::proto::Kind;
use crate::tables::{SocketMatch, Tables};
use crate::text::from_json;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// What both sides say, with names for the server.
fn common() -> Value {
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
        "tls_certificate_sds_secret_configs": [{ "name": "default", "sds_config": { "ads": {} } }],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": "spiffe://cluster.local/ns/default/sa/reviews" } },
            ] },
            "validation_context_sds_secret_config": { "name": "ROOTCA", "sds_config": { "ads": {} } },
        },
        "alpn_protocols": ["mesh-h2", "mesh"],
    })
}

fn cluster(common: &Value) -> Value {
    json!({
        "name": "c", "type": "STATIC",
        "load_assignment": { "cluster_name": "c", "endpoints": [{ "lb_endpoints": [
            endpoint(1, &json!({ "tlsMode": "mesh" })), endpoint(2, &json!({ "other": "word" })),
        ] }] },
        "transport_socket_matches": [
            { "name": "mesh-tls", "match": { "tlsMode": "mesh" }, "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": { "@type": format!("{TLS}.UpstreamTlsContext"), "sni": "reviews", "common_tls_context": common },
            } },
            { "name": "plain", "match": {}, "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" },
            } },
        ],
    })
}

fn endpoint(port: u16, words: &Value) -> Value {
    json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } } },
        "metadata": { "filter_metadata": { "envoy.transport_socket_match": words } },
    })
}

fn listener(context: &Value) -> Value {
    json!({
        "name": "l", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 15006 } },
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "c", "cluster": "c",
            } }],
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": context },
        }],
    })
}

fn downstream(common: &Value) -> Value {
    let mut common = common.clone();
    let fields = common.as_object_mut().expect("an object");
    fields.remove("combined_validation_context");
    fields.insert("validation_context_sds_secret_config".to_owned(), json!({ "name": "ROOTCA" }));
    json!({ "@type": format!("{TLS}.DownstreamTlsContext"), "require_client_certificate": true, "common_tls_context": common })
}

fn put(kind: Kind, value: &Value) -> Result<Tables, String> {
    let mut compiler = Compiler::new();
    let resource = from_json(kind, value, "here").expect("text of its type");
    let done = compiler.update(kind, &resource.name, "1", &resource.body);
    done.map(|()| compiler.tables()).map_err(|refusal| refusal.to_string())
}

#[test]
fn an_endpoint_gets_the_first_socket_whose_words_it_has() {
    let tables = put(Kind::Cluster, &cluster(&common())).expect("a cluster");
    let cluster = tables.cluster_named("c").expect("the cluster");
    let endpoints = cluster.endpoints.as_ref().expect("endpoints").all();
    let tls = cluster.spec.tls_for(&endpoints[0]).expect("TLS");
    assert_eq!(tls.servers, ["spiffe://cluster.local/ns/default/sa/reviews".into()]);
    assert_eq!((&*tls.server_name, tls.alpn.as_slice()), ("reviews", ["mesh-h2".into(), "mesh".into()].as_slice()));
    assert_eq!(cluster.spec.tls_for(&endpoints[1]), None);
    let [mesh, plain] = cluster.spec.sockets.as_slice() else { panic!("two sockets") };
    assert_eq!(*plain, SocketMatch { name: "plain".into(), wanted: Vec::new(), tls: None });
    assert_eq!(mesh.wanted, [("tlsMode".into(), "mesh".into())]);
}

#[test]
fn handshakes_build_on_earlier_ones_unless_no_session_is_kept() {
    let resumes = |sessions: Value| {
        let mut cluster = cluster(&common());
        cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"]["max_session_keys"] = sessions;
        let tables = put(Kind::Cluster, &cluster).expect("a cluster");
        tables.cluster_named("c").expect("the cluster").spec.sockets[0].tls.as_ref().expect("TLS").resumes
    };
    assert!(resumes(Value::Null) && resumes(json!(1)));
    assert!(!resumes(json!(0)));
}

#[test]
fn a_filter_chain_ends_tls_with_the_proxys_own_certificate() {
    let tables = put(Kind::Listener, &listener(&downstream(&common()))).expect("a listener");
    let chain = &tables.listener("l").expect("the listener").chains[0];
    assert_eq!(chain.tls.as_ref().map(|tls| tls.alpn.clone()), Some(vec!["mesh-h2".into(), "mesh".into()]));
}

#[test]
fn tls_that_proves_less_than_the_mesh_wants_is_refused() {
    let changed = |pointer: &str, to: Value| {
        let mut common = common();
        *common.pointer_mut(pointer).expect("is there") = to;
        put(Kind::Cluster, &cluster(&common)).expect_err(pointer)
    };
    let names = "/combined_validation_context/default_validation_context/match_typed_subject_alt_names";
    for (error, expected) in [
        (changed(names, json!([])), "any workload of the mesh could answer"),
        (changed(&format!("{names}/0/san_type"), json!("DNS")), "san_type"),
        (changed(&format!("{names}/0/matcher"), json!({ "prefix": "spiffe://" })), "anything but exact"),
        (changed("/tls_params", json!({ "tls_minimum_protocol_version": "TLSv1_2" })), "tls_minimum_protocol_version"),
        (changed("/tls_params", json!({ "cipher_suites": ["x"] })), "`cipher_suites` is not in force"),
        (changed("/tls_certificate_sds_secret_configs", json!([{ "name": "other" }])), "the secret is `other`"),
        (changed("/tls_certificate_sds_secret_configs", json!([])), "one certificate is needed"),
        (
            changed(
                "/combined_validation_context/default_validation_context",
                json!({ "allow_expired_certificate": true }),
            ),
            "`allow_expired_certificate` is not in force",
        ),
    ] {
        assert!(error.starts_with("transport_socket_matches[0].transport_socket.common_tls_context"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let mut anybody = downstream(&common());
    anybody["require_client_certificate"] = json!(false);
    let error = put(Kind::Listener, &listener(&anybody)).expect_err("no certificate of the caller");
    assert!(error.contains("require_client_certificate"), "{error}");
    let number =
        json!({ "cluster_name": "e", "endpoints": [{ "lb_endpoints": [endpoint(1, &json!({ "tlsMode": 1 }))] }] });
    let error = put(Kind::Endpoints, &number).expect_err("a number is no word");
    assert!(error.contains("envoy.transport_socket_match"), "{error}");
}
