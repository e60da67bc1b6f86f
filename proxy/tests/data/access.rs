//! Who is let in, on the wire: rules, tokens, and what the application gets of them.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::Kind;
use engine::text::from_json;
use mesh_proxy::access_log::Format;
use mesh_proxy::{Edge, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::mesh::*;
use super::peers::H2Client;
use super::telemetry::Logged;

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
    listen(mesh).await
}

/// Serves the listener `in`.
async fn listen(mesh: &Mesh) -> SocketAddr {
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
async fn tokens_stand_where_the_policy_says_and_the_application_gets_what_it_says() {
    let mesh = Mesh::new();
    let key = issuer::Key::of("ES256");
    let mut claims = issuer::claims();
    claims["exp"] = json!(4_000_000_000_u64);
    let token = key.token("ES256", &claims);
    let payload = token.split('.').nth(1).expect("a token has three parts");
    let provider = json!({
        "issuer": issuer::ISSUER,
        "local_jwks": { "inline_string": key.set() },
        "forward": false,
        "from_headers": [{ "name": "x-token", "value_prefix": "" }],
        "from_params": ["token"],
        "from_cookies": ["session"],
        "forward_payload_header": "x-payload",
    });
    let rule = json!({ "match": { "prefix": "/" }, "requires": { "provider_name": "p" } });
    let filter = json!({ "name": "envoy.filters.http.jwt_authn",
        "typed_config": { "@type": JWT, "providers": { "p": provider }, "rules": [rule] } });
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    upstream.serve(&mesh.tasks, |request| {
        let shown = |name: &str| request.header(name).unwrap_or("-").to_owned();
        ok(&format!("{} | {} | {} | {}", request.first, shown("x-token"), shown("cookie"), shown("x-payload")))
    });
    put(&mesh, &listener(&[filter], true));
    let address = listen(&mesh).await;
    let mut peer = Peer::connect(address).await;
    let cookie = format!("a=b; session={token}; c=d");
    let query = format!("/x?a=b&token={token}&c=d");
    let alone = format!("/x?token={token}");
    for (path, headers, expected) in [
        ("/x", &[("x-token", &*token)][..], format!("GET /x HTTP/1.1 | - | - | {payload}")),
        ("/x", &[("x-token", &*token), ("x-payload", "forged")][..], format!("GET /x HTTP/1.1 | - | - | {payload}")),
        // Out of a cookie nothing is cut.
        ("/x", &[("cookie", &*cookie)][..], format!("GET /x HTTP/1.1 | - | {cookie} | {payload}")),
        (&*query, &[][..], format!("GET /x?a=b&c=d HTTP/1.1 | - | - | {payload}")),
        (&*alone, &[][..], format!("GET /x HTTP/1.1 | - | - | {payload}")),
    ] {
        let answer = peer.ask(request(path, headers)).await;
        assert_eq!((answer.status(), answer.text()), (200, expected.as_str()), "{path} {headers:?}");
    }
    let bearer = format!("Bearer {token}");
    for headers in [&[("authorization", &*bearer)][..], &[("cookie", "session=")], &[("cookie", "sessions=x")], &[]] {
        let answer = peer.ask(request("/x", headers)).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (401, Some("unauthenticated")), "{headers:?}");
    }
    assert_eq!(peer.ask(request(&format!("/x?access_token={token}"), &[])).await.status(), 401);
}

#[tokio::test]
async fn cve_2023_27488_bytes_that_are_no_text_pass_no_rule() {
    let guest = |action: &str, text: &Value| {
        let policy = json!({ "permissions": [{ "header": { "name": "x-role", "string_match": text } }], "principals": [{ "any": true }] });
        json!({ "name": "rules", "typed_config": { "@type": RBAC, "rules": { "action": action, "policies": { "p": policy } } } })
    };
    let bytes = b"GET / HTTP/1.1\r\nHost: test\r\nx-role: guest\xff\xfe\r\n\r\n";
    for (action, text, expected) in [
        ("DENY", json!({ "prefix": "guest" }), 403),
        ("DENY", json!({ "contains": "gue" }), 403),
        ("ALLOW", json!({ "exact": "guest" }), 403),
        ("ALLOW", json!({ "prefix": "admin" }), 403),
    ] {
        let mesh = Mesh::new();
        let address = serve(&mesh, &listener(&[guest(action, &text)], true)).await;
        let mut peer = Peer::connect(address).await;
        assert_eq!(peer.ask(bytes).await.status(), expected, "{action} {text}");
    }
    let mesh = Mesh::new();
    let address = serve(&mesh, &listener(&[guest("ALLOW", &json!({ "exact": "guest" }))], true)).await;
    let mut peer = Peer::connect(address).await;
    assert_eq!(peer.ask(request("/", &[("x-role", "guest")])).await.status(), 200);
}

#[tokio::test]
async fn cve_2023_35944_what_a_client_says_of_its_scheme_passes_no_rule() {
    let mesh = Mesh::new();
    let policy = json!({ "permissions": [{ "header": { "name": ":scheme", "string_match": { "exact": "http" } } }], "principals": [{ "any": true }] });
    let deny = json!({ "name": "rules", "typed_config": { "@type": RBAC, "rules": { "action": "DENY", "policies": { "p": policy } } } });
    let address = serve(&mesh, &listener(&[deny], true)).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    for uri in ["http://test/", "https://test/"] {
        let answer = client.ask(http::Request::get(uri).body(()).expect("a request")).await;
        assert_eq!(answer.status, 403, "{uri}");
    }
    let mut peer = Peer::connect(address).await;
    assert_ne!(peer.ask("GET HTTPS://test/ HTTP/1.1\r\nHost: test\r\n\r\n").await.status(), 200);
}

#[tokio::test]
async fn cve_2024_28248_rules_of_now_are_asked_on_connections_of_before() {
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

/// The fields of a line of the default format, with what is in quotes as several.
fn fields(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[tokio::test]
async fn the_log_names_rules_and_policy_of_a_denied_request_call_and_connection() {
    let (logged, log) = Logged::start(Format::default());
    let mesh = Mesh::with(Settings { access_log: Some(log), ..Settings::default() });
    let denier = json!({ "name": "rule/default/no", "typed_config": { "@type": RBAC, "rules": { "action": "DENY", "policies": {
        "denier/default/handler: Not allowed": { "permissions": [{ "url_path": { "path": { "prefix": "/secret" } } }], "principals": [{ "any": true }] } } } } });
    let filters = [denier, allow(&json!({ "header": { "name": ":method", "string_match": { "exact": "GET" } } }))];
    let address = serve(&mesh, &listener(&filters, true)).await;
    let mut peer = Peer::connect(address).await;
    assert_eq!(peer.ask(request("/secret", &[])).await.status(), 403);
    let call = http::Request::post("http://test/shop.Cart/Add").header("content-type", "application/grpc").body(());
    let answer = H2Client::connect(address, &mesh.tasks).await.ask(call.expect("a call")).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("7")), "PERMISSION_DENIED");
    assert_eq!(answer.header("x-mesh-failure"), Some("policy_denied"));
    assert_eq!(answer.header("grpc-message"), Some("policy_denied: RBAC: access denied"));
    let closed = json!({ "name": "tcp rules", "typed_config": { "@type": NETWORK_RBAC, "stat_prefix": "x", "rules": { "policies": {
        "p": { "permissions": [{ "any": true }], "principals": [{ "header": { "name": "x", "present_match": true } }] } } } } });
    put(&mesh, &listener(&[closed], false));
    let mut refused = Peer::connect(address).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut refused.stream, request("/", &[]).as_bytes()).await;
    assert_eq!(refused.rest().await.0, b"");
    let mut lines = logged.lines(3).await;
    lines.sort_by_key(|line| (line.contains("\"- - -\""), line.contains("POST")));
    // [time] "method path protocol" status flag word details
    let shown: Vec<Vec<&str>> = lines.iter().map(|line| fields(line)[1..8].to_vec()).collect();
    let denied = "rule/default/no[denier/default/handler:_Not_allowed]";
    assert_eq!(shown[0], ["\"GET", "/secret", "HTTP/1.1\"", "403", "-", "policy_denied", denied]);
    assert_eq!(shown[1], ["\"POST", "/shop.Cart/Add", "HTTP/2\"", "200", "-", "policy_denied", "rules[none]"]);
    assert_eq!(shown[2][3..], ["0", "-", "policy_denied", "tcp_rules[none]"]);
}

#[tokio::test]
async fn a_connection_on_trial_is_served_and_counted() {
    let mesh = Mesh::new();
    let never = json!({ "permissions": [{ "any": true }], "principals": [{ "direct_remote_ip": { "address_prefix": "10.0.0.0", "prefix_len": 8 } }] });
    let filter = json!({ "name": "on trial", "typed_config": { "@type": NETWORK_RBAC, "stat_prefix": "x", "shadow_rules": { "policies": { "p": never } } } });
    let address = serve(&mesh, &listener(&[filter], false)).await;
    for nth in 1..=2 {
        let mut peer = Peer::connect(address).await;
        assert_eq!(peer.ask(request("/", &[])).await.status(), 200);
        let counted = mesh.metrics();
        let wanted = format!(r#"mesh_policy_dry_run_denied_total{{rules="on trial"}} {nth}"#);
        assert!(counted.contains(&wanted) && !counted.contains("mesh_policy_denied_total"), "{counted}");
    }
}

#[tokio::test]
async fn a_policy_on_trial_lets_nobody_in_and_says_whom_it_would() {
    let mesh = Mesh::new();
    let at = |path: &str| json!({ "permissions": [{ "url_path": { "path": { "exact": path } } }], "principals": [{ "any": true }] });
    // As it is generated where one of two bindings is on trial.
    let filter = json!({ "name": "rules", "typed_config": { "@type": RBAC,
        "rules": { "policies": { "a": at("/a") } }, "shadow_rules": { "policies": { "a": at("/a"), "b": at("/b") } } } });
    let address = serve(&mesh, &listener(&[filter], true)).await;
    let mut peer = Peer::connect(address).await;
    for (path, status, would_deny) in [("/a", 200, ""), ("/b", 403, ""), ("/c", 403, r#"_total{rules="rules"} 1"#)] {
        assert_eq!(peer.ask(request(path, &[])).await.status(), status, "{path}");
        let counted = mesh.metrics();
        let line = counted.lines().find(|line| line.starts_with("mesh_policy_dry_run_denied_total"));
        assert!(line.unwrap_or_default().ends_with(would_deny), "{path}: {line:?}");
        assert_eq!(line.is_some(), !would_deny.is_empty(), "{path}: {line:?}");
    }
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
