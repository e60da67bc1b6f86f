//! Who is let in, on the wire: rules, tokens, and what the application gets of them.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::Kind;
use engine::text::from_json;
use mesh_proxy::{Edge, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::mesh::*;

#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#[path = "../../../engine/tests/support/issuer.rs"]
mod issuer;

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
const JWT: &str = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";

/// The filter of rules that let in by one policy, for anybody.
fn allow(permission: &Value) -> Value {
    let policy = json!({ "permissions": [permission], "principals": [{ "any": true }] });
    json!({ "name": "rules", "typed_config": { "@type": RBAC, "rules": { "policies": { "the policy": policy } } } })
}

/// The filter that asks for tokens of a key.
fn tokens(keys: &str, needs: &Value) -> Value {
    let provider = json!({
        "issuer": issuer::ISSUER,
        "local_jwks": { "inline_string": keys },
        "forward": true,
        "payload_in_metadata": "payload",
        "claim_to_headers": [{ "header_name": "x-user", "claim_name": "sub" }],
    });
    let rule = json!({ "match": { "prefix": "/" }, "requires": needs });
    json!({ "name": "envoy.filters.http.jwt_authn", "typed_config": { "@type": JWT, "providers": { "p": provider }, "rules": [rule] } })
}

/// A listener with these filters before the router, or before the cluster `up` if it is opaque.
fn listener(filters: &[Value], is_http: bool) -> Value {
    let last = if is_http {
        let mut all = filters.to_vec();
        all.push(json!({ "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }));
        let route = json!({ "name": "all", "match": { "prefix": "/" }, "route": { "cluster": "up" } });
        vec![json!({ "name": "http", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http", "normalize_path": true, "merge_slashes": true, "http_filters": all,
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] } } })]
    } else {
        let mut all = filters.to_vec();
        all.push(json!({ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp", "cluster": "up" } }));
        all
    };
    json!({ "name": "in", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": last }] })
}

/// Puts a listener in force, under the name `in`.
fn put(mesh: &Mesh, listener: &Value) {
    let resource = from_json(Kind::Listener, listener, "in").expect("a listener");
    mesh.put_body(Kind::Listener, "in", resource.body.to_vec());
}

/// Serves a listener, in front of an upstream that says what it got.
async fn serve(mesh: &Mesh, listener: &Value) -> SocketAddr {
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    upstream.serve(&mesh.tasks, |request| {
        let shown = |name: &str| request.header(name).unwrap_or("-").to_owned();
        ok(&format!("{} {} {}", request.first, shown("x-user"), shown("x_user")))
    });
    put(mesh, listener);
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let serving = Arc::clone(&mesh.path).serve_listener("in".to_owned(), Edge::Inbound, socket, mesh.tasks.clone());
    mesh.tasks.spawn("listener", async move { serving.await.expect("the listener serves") });
    address
}

fn request(path: &str, headers: &[(&str, &str)]) -> String {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_request_that_no_policy_allows_is_answered_403_and_the_caller_learns_no_more() {
    let mesh = Mesh::new();
    let address =
        serve(&mesh, &listener(&[allow(&json!({ "url_path": { "path": { "prefix": "/open" } } }))], true)).await;
    let mut peer = Peer::connect(address).await;
    let answer = peer.ask(request("/open/x", &[])).await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /open/x HTTP/1.1 - -"));
    for path in ["/", "/opened/../closed", "/%6fpen/../closed", "/closed?/open"] {
        let answer = peer.ask(request(path, &[])).await;
        assert_eq!(answer.status(), 403, "{path}");
        assert_eq!(answer.header("x-mesh-failure"), Some("policy_denied"));
        assert_eq!(answer.text(), "policy_denied: RBAC: access denied\n", "{path}");
    }
    let answer = peer.ask(request("/x/.././open//", &[])).await;
    assert_eq!(answer.status(), 200, "rules see the canonical path, as the router does");
    let counted = mesh.metrics();
    assert!(counted.contains(r#"mesh_policy_denied_total{rules="rules"} 4"#), "{counted}");
}

#[tokio::test]
async fn an_operator_may_have_callers_told_by_what_they_are_refused() {
    let mesh = Mesh::with(Settings { explain_denials: true, ..Settings::default() });
    let filter = allow(&json!({ "header": { "name": "x-role", "string_match": { "exact": "admin" } } }));
    let address = serve(&mesh, &listener(&[filter], true)).await;
    let mut peer = Peer::connect(address).await;
    let answer = peer.ask(request("/", &[])).await;
    assert_eq!(answer.text(), "policy_denied: RBAC: access denied, by rules[none]\n");
}

#[tokio::test]
async fn cve_2019_18802_white_space_around_a_value_is_no_part_of_it() {
    let mesh = Mesh::new();
    let not_guest = json!({ "not_rule": { "header": { "name": "x-role", "string_match": { "exact": "guest" } } } });
    let address = serve(&mesh, &listener(&[allow(&not_guest)], true)).await;
    for (headers, expected) in [
        (&[("x-role", "guest")][..], 403),
        (&[("x-role", "guest ")], 403),
        (&[("x-role", "\t guest\t")], 403),
        (&[("X-Role", "guest")], 403),
        (&[("x-role", "admin"), ("x-role", "guest")], 403),
        (&[("x-role", "admin")], 200),
        (&[], 200),
    ] {
        let mut peer = Peer::connect(address).await;
        assert_eq!(peer.ask(request("/", headers)).await.status(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn rules_of_now_are_asked_on_connections_of_before() {
    let mesh = Mesh::new();
    let address = serve(&mesh, &listener(&[], true)).await;
    let mut peer = Peer::connect(address).await;
    assert_eq!(peer.ask(request("/", &[])).await.status(), 200);
    put(&mesh, &listener(&[allow(&json!({ "url_path": { "path": { "exact": "/never" } } }))], true));
    assert_eq!(peer.ask(request("/", &[])).await.status(), 403);
}

#[tokio::test]
async fn rules_on_trial_let_in_and_count() {
    let mesh = Mesh::new();
    let policy =
        json!({ "permissions": [{ "url_path": { "path": { "exact": "/a" } } }], "principals": [{ "any": true }] });
    let filter = json!({ "name": "on trial", "typed_config": { "@type": RBAC, "shadow_rules": { "policies": { "p": policy } } } });
    let address = serve(&mesh, &listener(&[filter], true)).await;
    let mut peer = Peer::connect(address).await;
    for path in ["/a", "/b", "/b"] {
        assert_eq!(peer.ask(request(path, &[])).await.status(), 200);
    }
    let counted = mesh.metrics();
    assert!(counted.contains(r#"mesh_policy_dry_run_denied_total{rules="on trial"} 2"#), "{counted}");
    assert!(!counted.contains("mesh_policy_denied_total"), "{counted}");
}

#[tokio::test]
async fn a_connection_that_no_policy_allows_is_closed_before_a_byte_is_passed() {
    let mesh = Mesh::new();
    let filter = |principal: &Value| {
        let policy = json!({ "permissions": [{ "any": true }], "principals": [principal] });
        json!({ "name": "rules", "typed_config": { "@type": NETWORK_RBAC, "stat_prefix": "x", "rules": { "policies": { "p": policy } } } })
    };
    let from = |prefix: &str| json!({ "direct_remote_ip": { "address_prefix": prefix, "prefix_len": 8 } });
    let address = serve(&mesh, &listener(&[filter(&from("10.0.0.0"))], false)).await;
    let mut refused = Peer::connect(address).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut refused.stream, request("/", &[]).as_bytes()).await;
    assert_eq!(refused.rest().await.0, b"");
    put(&mesh, &listener(&[filter(&from("127.0.0.0"))], false));
    let mut peer = Peer::connect(address).await;
    assert_eq!(peer.ask(request("/", &[])).await.status(), 200);
}

#[tokio::test]
async fn an_end_user_is_let_in_by_a_good_token_and_the_application_is_told_who_it_is() {
    let mesh = Mesh::new();
    let key = issuer::Key::of("ES256");
    let mut claims = issuer::claims();
    claims["exp"] = json!(4_000_000_000_u64);
    let token = key.token("ES256", &claims);
    let needs = json!({ "requires_any": { "requirements": [{ "provider_name": "p" }, { "allow_missing": {} }] } });
    let address = serve(&mesh, &listener(&[tokens(&key.set(), &needs)], true)).await;
    let mut peer = Peer::connect(address).await;
    let bearer = format!("Bearer {token}");
    // Twice: the second time it is remembered.
    for _ in 0..2 {
        let posing = [("x-user", "admin"), ("X_USER", "admin"), ("authorization", &*bearer)];
        let answer = peer.ask(request("/", &posing)).await;
        assert_eq!(answer.text(), "GET / HTTP/1.1 jason -", "a client does not say who it is");
    }
    let answer = peer.ask(request("/", &[("x-user", "admin")])).await;
    assert_eq!((answer.status(), answer.text()), (200, "GET / HTTP/1.1 - -"), "nor without a token");
    claims["sub"] = json!("mallory");
    let forged = format!("Bearer {}", issuer::Key::of("ES256").token("ES256", &claims));
    let answer = peer.ask(request("/", &[("authorization", &forged)])).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (401, Some("unauthenticated")));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    put(&mesh, &listener(&[tokens(&key.set(), &json!({ "provider_name": "p" }))], true));
    let answer = peer.ask(request("/", &[])).await;
    assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Bearer")));
    let counted = mesh.metrics();
    assert!(counted.contains(r#"mesh_tokens_refused_total{provider="p",reason="signature"} 1"#), "{counted}");
}
