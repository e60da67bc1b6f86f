//! The same rules and tokens, through a stock Envoy and through our own code: they let in the same requests.
//!
//! Needs Envoy, as `differential.rs` does. Where values of a repeated header differ ours is the stricter, by design:
//! no such request is asked here.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/issuer.rs"]
mod issuer;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use engine::compile::Compiler;
use engine::decide::{Outcome, decide};
use engine::path::{canonical_authority, canonical_path};
use engine::request::Simple;
use engine::tables::{Filter, Http, Tables};
use engine::text::read_static;
use engine::token::{authenticate, verify};
use engine::trace::NoTrace;
use issuer::Key;
use serde_json::{Value, json};
use support::dice;
use support::envoy::{Envoy, ask, program};

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// A request as it is sent.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
}

fn asked(method: &'static str, path: &str) -> Asked {
    Asked { method, path: path.to_owned(), headers: Vec::new() }
}

impl Asked {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Rules by name, each asked on a listener of its own.
fn rules() -> Vec<(&'static str, Value)> {
    let claim = |path: &[&str], value: Value| {
        let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({ "key": key })).collect();
        let matcher = json!({ "filter": "envoy.filters.http.jwt_authn", "path": path, "value": value });
        json!({ "sourced_metadata": { "metadata_matcher": matcher } })
    };
    let string = |text: &str| json!({ "string_match": { "exact": text } });
    let policy =
        |permission: Value, principal: Value| json!({ "permissions": [permission], "principals": [principal] });
    let any = json!({ "any": true });
    let path = |matcher: Value| json!({ "url_path": { "path": matcher } });
    let header = |name: &str, matcher: Value| json!({ "header": { "name": name, "string_match": matcher } });
    let allow = |policies: Value| json!({ "action": "ALLOW", "policies": policies });
    vec![
        ("none", allow(json!({}))),
        ("exact", allow(json!({ "p": policy(path(json!({ "exact": "/admin" })), any.clone()) }))),
        ("prefix", allow(json!({ "p": policy(path(json!({ "prefix": "/adm" })), any.clone()) }))),
        ("suffix", allow(json!({ "p": policy(path(json!({ "suffix": "/admin" })), any.clone()) }))),
        (
            "deny",
            json!({ "action": "DENY", "policies": { "p": policy(path(json!({ "prefix": "/admin" })), any.clone()) } }),
        ),
        ("method", allow(json!({ "p": policy(header(":method", json!({ "exact": "GET" })), any.clone()) }))),
        ("header", allow(json!({ "p": policy(header("x-role", json!({ "prefix": "adm" })), any.clone()) }))),
        (
            "not",
            allow(
                json!({ "p": policy(json!({ "not_rule": header("x-role", json!({ "exact": "guest" })) }), any.clone()) }),
            ),
        ),
        (
            "both",
            allow(json!({ "p": policy(json!({ "and_rules": { "rules": [
            path(json!({ "prefix": "/a" })), header("x-role", json!({ "exact": "admin" })) ] } }), any.clone()) })),
        ),
        (
            "either",
            allow(json!({ "p": policy(json!({ "or_rules": { "rules": [
            path(json!({ "exact": "/b" })), header(":method", json!({ "exact": "POST" })) ] } }), any.clone()) })),
        ),
        (
            "network",
            allow(
                json!({ "p": policy(any.clone(), json!({ "direct_remote_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 } })) }),
            ),
        ),
        (
            "other network",
            allow(
                json!({ "p": policy(any.clone(), json!({ "direct_remote_ip": { "address_prefix": "10.0.0.0", "prefix_len": 8 } })) }),
            ),
        ),
        ("identity", allow(json!({ "p": policy(any.clone(), json!({ "authenticated": {} })) }))),
        ("nobody", allow(json!({ "p": policy(any.clone(), json!({ "not_id": { "authenticated": {} } })) }))),
        ("subject", allow(json!({ "p": policy(any.clone(), claim(&["sub"], string("jason"))) }))),
        (
            "group",
            allow(
                json!({ "p": policy(any.clone(), claim(&["groups"], json!({ "list_match": { "one_of": string("readers") } }))) }),
            ),
        ),
        (
            "nested",
            allow(json!({ "p": policy(any.clone(), claim(&["realm", "role"], json!({ "or_match": { "value_matchers": [
            string("x"), string("boss") ] } }))) })),
        ),
        ("present", allow(json!({ "p": policy(any, claim(&["sub"], json!({ "present_match": true }))) }))),
    ]
}

fn requests(token: &dyn Fn(&Value, &str) -> String) -> Vec<Asked> {
    let mut all = Vec::new();
    for path in [
        "/",
        "/admin",
        "/admin/",
        "/admin?x=/b",
        "//admin",
        "/x/../admin",
        "/%61dmin",
        "/adm",
        "/Admin",
        "/x/admin",
        "/b",
        "/admin;x",
    ] {
        all.push(asked("GET", path));
        all.push(asked("POST", path).with("x-role", "admin"));
    }
    for role in ["admin", "guest", "adm", "", "Admin"] {
        all.push(asked("GET", "/a").with("x-role", role));
    }
    let good = issuer::claims();
    let with = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        claims
    };
    for claims in [
        good.clone(),
        with("sub", json!("other")),
        with("groups", json!(["readers", "x"])),
        with("groups", json!("readers")),
        with("groups", json!([])),
        with("realm", json!({ "role": "boss" })),
        with("realm", json!("role")),
        with("sub", json!(1)),
        with("exp", json!(1_000_000)),
        with("nbf", json!(3_999_999_999_u64)),
        with("aud", json!("other")),
        with("aud", json!(["other", "bookinfo"])),
        with("iss", json!("https://other.test")),
    ] {
        let bearer = format!("Bearer {}", token(&claims, "good"));
        all.push(asked("GET", "/admin").with("authorization", &bearer));
    }
    let bearer = |kind: &str| format!("Bearer {}", token(&good, kind));
    // Not a token by a symmetric algorithm: Envoy lets it pass as if it were none, and this engine lets nothing pass that
    // it cannot verify.
    for kind in ["forged", "none", "cut"] {
        all.push(asked("GET", "/admin").with("authorization", &bearer(kind)));
    }
    all.push(asked("GET", &format!("/admin?access_token={}", token(&good, "good"))));
    all.push(asked("GET", "/admin?access_token=x"));
    all.push(asked("GET", "/admin").with("authorization", "Basic abc"));
    all.push(asked("GET", "/admin").with("authorization", "Bearer x.y.z"));
    all
}

/// A listener with these rules, after tokens of a key where they are optional.
fn listener(name: &str, rules: &Value, keys: &str, port: u16) -> Value {
    let provider = json!({
        "issuer": issuer::ISSUER, "audiences": ["bookinfo"], "local_jwks": { "inline_string": keys }, "forward": true,
        "payload_in_metadata": "payload", "require_expiration": true,
        "from_headers": [{ "name": "authorization", "value_prefix": "Bearer " }], "from_params": ["access_token"],
    });
    let needs = json!({ "requires_any": { "requirements": [{ "provider_name": "p" }, { "allow_missing": {} }] } });
    let tokens = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": { "p": provider }, "rules": [{ "match": { "prefix": "/" }, "requires": needs }],
    });
    let direct = json!({ "name": "ok", "match": { "prefix": "/" }, "direct_response": { "status": 200 } });
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "h", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "h", "normalize_path": true, "merge_slashes": true,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [direct] }] },
            "http_filters": [
                { "name": "envoy.filters.http.jwt_authn", "typed_config": tokens },
                { "name": "rules", "typed_config": { "@type": RBAC, "rules": rules } },
                { "name": "r", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
        } }] }],
    })
}

#[test]
fn envoy_lets_in_the_same_requests() {
    let Some(program) = program() else { return };
    let (key, other) = (Key::of("ES256"), Key::of("ES256"));
    let token = |claims: &Value, kind: &str| {
        let mut claims = claims.clone();
        if claims["exp"] == json!(2000) {
            claims["exp"] = json!(4_000_000_000_u64);
        }
        match kind {
            "forged" => other.token("ES256", &claims),
            "none" => key.token_of(r#"{"alg":"none"}"#, &claims.to_string()),
            "HS256" => key.token_of(r#"{"alg":"HS256"}"#, &claims.to_string()),
            "cut" => key.token("ES256", &claims).rsplit_once('.').map(|(signed, _)| format!("{signed}.AAAA")).unwrap(),
            _ => key.token("ES256", &claims),
        }
    };
    let keys = key.set();
    let listeners: Vec<Value> = rules().iter().map(|(name, rules)| listener(name, rules, &keys, 0)).collect();
    let envoy = Envoy::start(&program, "access", &json!({ "listeners": listeners }));
    let requests = requests(&token);
    let mut differing = Vec::new();
    for (nth, (name, rules)) in rules().iter().enumerate() {
        let ours_of = json!({ "static_resources": { "listeners": [listener(name, rules, &keys, 1 + nth as u16)] } });
        let mut compiler = Compiler::new();
        for resource in read_static(&ours_of.to_string()).unwrap() {
            compiler.update(resource.kind, &resource.name, &resource.version, &resource.body).unwrap();
        }
        let tables = compiler.tables();
        let address = envoy.listener(name);
        for asked in &requests {
            let (ours, theirs) = (ours(&tables, name, asked), theirs(address, asked));
            if ours != theirs {
                differing.push(format!(
                    "{name}: {} {} {:?}: ours {ours}, theirs {theirs}",
                    asked.method, asked.path, asked.headers
                ));
            }
        }
    }
    assert!(differing.is_empty(), "{} differ: {differing:#?}", differing.len());
}

fn ours(tables: &Tables, name: &str, asked: &Asked) -> u16 {
    let Filter::Http(http) = &tables.listener(name).unwrap().chains[0].filter else { panic!("opaque") };
    let http: &Http = http;
    let (Ok(path), Ok(authority)) = (canonical_path(&asked.path, http.path), canonical_authority("a")) else {
        return 400;
    };
    let mut request = Simple::get(&authority, &path).with_method(asked.method);
    for (name, value) in &asked.headers {
        request = request.with_header(name, value);
    }
    request.address = Some([127, 0, 0, 1].into());
    let tokens = http.access.tokens.as_ref().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    match authenticate(tokens, &request, &mut |provider, token| verify(provider, token, now).map(Arc::new)) {
        Err(_) => return 401,
        Ok(found) => request.tokens = found.tokens,
    }
    match decide(tables, http, &request, &mut dice(1), &mut NoTrace).outcome {
        Outcome::Direct(direct) => direct.status,
        Outcome::Denied(_) => 403,
        other => panic!("{other:?}"),
    }
}

fn theirs(envoy: SocketAddr, asked: &Asked) -> u16 {
    let Asked { method, path, headers } = asked;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let answer = ask(envoy, &(request + "\r\n"));
    // What Envoy says of an audience is 403, from the filter that says 401 of everything else.
    if answer.status == 403 && answer.body.contains("Audiences") { 401 } else { answer.status }
}
