//! One test per class of holes that other meshes had (`docs/security-classes.md`): the same request in many spellings, and
//! rules that must see one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use engine::access::admit;
use engine::path::{canonical_authority, canonical_path};
use engine::request::{Caller, Connection, Simple};
use engine::tables::{Filter, PathPolicy, Rbac, Slashes};
use engine::text::from_json;
use engine::trace::NoTrace;
use serde_json::{Value, json};

/// Rules of an HTTP filter chain, as Envoy's configuration writes them.
fn rules(action: &str, permission: &Value, principal: &Value) -> Vec<Rbac> {
    let policy = json!({ "permissions": [permission], "principals": [principal] });
    let rbac = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": { "action": action, "policies": { "p": policy } },
    });
    let router = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": { "virtual_hosts": [] },
        "http_filters": [{ "name": "rbac", "typed_config": rbac }, { "name": "router", "typed_config": router }],
    });
    let listener = json!({
        "name": "l",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    });
    let resource = from_json(engine::Kind::Listener, &listener, "l").unwrap();
    let mut compiler = engine::compile::Compiler::new();
    compiler.update(resource.kind, &resource.name, "1", &resource.body).unwrap();
    let tables = compiler.tables();
    let listener = std::sync::Arc::clone(tables.listener("l").unwrap());
    drop((compiler, tables));
    let mut listener = std::sync::Arc::into_inner(listener).unwrap();
    let Filter::Http(http) = listener.chains.remove(0).filter else { panic!("opaque") };
    std::sync::Arc::into_inner(http).unwrap().access.rbac
}

fn anybody() -> Value {
    json!({ "any": true })
}

fn is_let_in(rbac: &[Rbac], request: &Simple) -> bool {
    admit(rbac, request, &mut NoTrace).denied.is_none()
}

/// A request as the proxy would show it to the rules; `None` if it would be refused before.
fn canonical(authority: &str, path: &str) -> Option<Simple> {
    let path = canonical_path(path, PathPolicy::default()).ok()?;
    let authority = canonical_authority(authority).ok()?;
    Some(Simple::get(&authority, &path))
}

#[test]
fn cve_2019_12243_a_deny_rule_denies_connections_too() {
    let header = json!({ "header": { "name": "x-role", "string_match": { "exact": "guest" } } });
    let path = json!({ "url_path": { "path": { "exact": "/admin" } } });
    for permission in [&header, &path] {
        // What cannot be known of a connection lets it in by no rule, and keeps it out by any.
        let connection = Connection(Caller::default());
        let deny = rules("DENY", permission, &anybody());
        assert!(admit(&deny, &connection, &mut NoTrace).denied.is_some(), "{permission}");
        let allow = rules("ALLOW", permission, &anybody());
        assert!(admit(&allow, &connection, &mut NoTrace).denied.is_some(), "{permission}");
        let not = json!({ "not_rule": permission });
        assert!(
            admit(&rules("ALLOW", &not, &anybody()), &connection, &mut NoTrace).denied.is_some(),
            "not {permission}"
        );
    }
}

#[test]
fn cve_2019_9901_paths_are_compared_in_canonical_form() {
    let deny = rules("DENY", &json!({ "url_path": { "path": { "prefix": "/admin" } } }), &anybody());
    for path in [
        "/admin",
        "/admin/x",
        "/./admin",
        "/x/../admin",
        "/x/./../admin",
        "/../admin",
        "/%61dmin",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/x/%2E./admin",
        r"/x/..\admin",
        r"\admin",
        "/admin%00",
        "/admin\0",
        "//admin",
        "///admin",
        "/admin;x",
        "/admin?x",
    ] {
        let refused = canonical("a", path).is_none_or(|request| !is_let_in(&deny, &request));
        assert!(refused, "{path}");
    }
    // What is not the same path to the router, nor to the application, is not to the rules.
    let other = canonical("a", "/x%2fadmin").unwrap();
    assert!(is_let_in(&deny, &other) && other.path == "/x%2Fadmin");
}

#[test]
fn cve_2020_8595_a_query_or_fragment_passes_no_exact_path() {
    let deny = rules("DENY", &json!({ "url_path": { "path": { "exact": "/admin" } } }), &anybody());
    for path in ["/admin", "/admin?", "/admin?a=b", "/admin?a/b", "/admin#x", "/admin?a#b", "/%61dmin?x"] {
        assert!(canonical("a", path).is_none_or(|request| !is_let_in(&deny, &request)), "{path}");
    }
}

#[test]
fn cve_2020_8843_no_header_makes_an_identity() {
    let id = json!({ "authenticated": { "principal_name": { "prefix": "spiffe://" } } });
    let allow = rules("ALLOW", &json!({ "any": true }), &id);
    let metadata = json!({ "sourced_metadata": { "metadata_matcher": {
        "filter": "envoy.filters.http.jwt_authn", "path": [{ "key": "payload" }, { "key": "sub" }],
        "value": { "present_match": true } } } });
    let by_token = rules("ALLOW", &json!({ "any": true }), &metadata);
    for name in [
        "x-istio-attributes",
        "x-forwarded-client-cert",
        "x-envoy-original-path",
        "x-mesh-peer",
        "x-mesh-identity",
        "forwarded",
        "via",
        "sec-istio-auth-userinfo",
    ] {
        let value = r#"By=spiffe://a;URI="spiffe://cluster.local/ns/default/sa/admin""#;
        let request = Simple::get("a", "/").with_header(name, value);
        assert!(!is_let_in(&allow, &request) && !is_let_in(&by_token, &request), "{name}");
    }
}

#[test]
fn cve_2021_31920_slashes_are_the_same_to_rules_and_router() {
    let deny = rules("DENY", &json!({ "url_path": { "path": { "exact": "/a/admin" } } }), &anybody());
    for (policy, path, expected) in [
        (Slashes::Keep, "/a//admin", false),
        (Slashes::Keep, "/a%2fadmin", true),
        (Slashes::Unescape, "/a%2fadmin", false),
        (Slashes::Unescape, "/a%5cadmin", false),
        (Slashes::Unescape, "/a%2F%2fadmin", false),
        (Slashes::Reject, "/a%2fadmin", false),
        (Slashes::Reject, "/a%5Cadmin", false),
    ] {
        let policy = PathPolicy { merge_slashes: true, escaped_slashes: policy };
        let let_in = canonical_path(path, policy).is_ok_and(|path| is_let_in(&deny, &Simple::get("a", &path)));
        assert_eq!(let_in, expected, "{path} {policy:?}");
    }
}

#[test]
fn cve_2021_39155_hosts_are_compared_in_canonical_form() {
    let host = json!({ "header": { "name": ":authority", "string_match": { "exact": "admin.test" } } });
    let deny = rules("DENY", &host, &anybody());
    for authority in ["admin.test", "ADMIN.test", "Admin.Test.", "admin.test:"] {
        assert!(canonical(authority, "/").is_none_or(|request| !is_let_in(&deny, &request)), "{authority}");
    }
    for authority in ["admin.test#x", "x@admin.test", "admin.test/x", "admin.test\0"] {
        assert!(canonical(authority, "/").is_none(), "{authority}");
    }
}

#[test]
fn cve_2026_26308_every_value_of_a_repeated_header_is_looked_at() {
    let role = |text: &str| json!({ "header": { "name": "x-role", "string_match": { "exact": text } } });
    let with = |values: &[&str]| values.iter().fold(Simple::get("a", "/"), |r, value| r.with_header("x-role", value));
    let allow = rules("ALLOW", &role("admin"), &anybody());
    let deny = rules("DENY", &role("guest"), &anybody());
    let not_guest = rules("ALLOW", &json!({ "not_rule": role("guest") }), &anybody());
    let inverted =
        json!({ "header": { "name": "x-role", "string_match": { "exact": "guest" }, "invert_match": true } });
    let inverted = rules("ALLOW", &inverted, &anybody());
    for (values, by_allow, by_deny, by_not, by_invert) in [
        (&["admin"][..], true, true, true, true),
        (&["guest"], false, false, false, false),
        (&["admin", "admin"], true, true, true, true),
        (&["admin", "guest"], false, false, false, false),
        (&["guest", "admin"], false, false, false, false),
        (&["guest,admin"], false, true, true, true),
        (&["user", "other"], false, true, true, true),
        (&[], false, true, true, false),
    ] {
        let request = with(values);
        let found = [&allow, &deny, &not_guest, &inverted].map(|rules| is_let_in(rules, &request));
        assert_eq!(found, [by_allow, by_deny, by_not, by_invert], "{values:?}");
    }
}

#[test]
fn cve_2026_33186_a_path_without_a_slash_is_no_path() {
    for path in ["admin", "", "http:/admin", "?x", ".", "..", "%2fadmin"] {
        assert!(canonical("a", path).is_none(), "{path:?}");
    }
    // `*` is the server as a whole: no rule about paths takes it for one of them.
    let deny = rules("DENY", &json!({ "url_path": { "path": { "prefix": "/" } } }), &anybody());
    let allow = rules("ALLOW", &json!({ "url_path": { "path": { "prefix": "/" } } }), &anybody());
    assert!(!is_let_in(&allow, &Simple::get("a", "*")) && is_let_in(&deny, &Simple::get("a", "*")));
}

#[test]
fn cve_2026_39350_accounts_are_text_and_not_patterns() {
    let exact = json!({ "authenticated": { "principal_name": { "exact": "spiffe://td.test/ns/a.b/sa/x.y" } } });
    let allow = rules("ALLOW", &json!({ "any": true }), &exact);
    for (id, expected) in [
        ("spiffe://td.test/ns/a.b/sa/x.y", true),
        ("spiffe://tdxtest/ns/a.b/sa/x.y", false),
        ("spiffe://td.test/ns/aXb/sa/x.y", false),
        ("spiffe://td.test/ns/a.b/sa/xzy", false),
        ("spiffe://td.test/ns/a.b/sa/x.yz", false),
    ] {
        let request = Simple::get("a", "/").from_workload(&id.parse().unwrap());
        assert_eq!(is_let_in(&allow, &request), expected, "{id}");
    }
}

#[test]
fn cve_2023_27493_no_identity_has_what_ends_a_field_of_the_header_about_certificates() {
    for bad in [';', ',', '"', '=', '\\', '\n', '\r', '\0', ' ', '%', 'é'] {
        for id in [
            format!("spiffe://td.test/ns/a{bad}b/sa/x"),
            format!("spiffe://td.test/ns/a/sa/x{bad}"),
            format!("spiffe://td{bad}test/ns/a/sa/x"),
        ] {
            assert!(id.parse::<api::spiffe::SpiffeId>().is_err(), "{id:?}");
        }
    }
}

#[test]
fn cve_2024_32475_a_long_host_is_compared_as_a_whole_or_refused() {
    for length in [1, 200, 254] {
        let long = "a".repeat(length);
        let host = json!({ "header": { "name": ":authority", "string_match": { "exact": long } } });
        let deny = rules("DENY", &host, &anybody());
        assert!(!is_let_in(&deny, &canonical(&long.to_uppercase(), "/").unwrap()), "{length}");
        assert!(is_let_in(&deny, &canonical(&format!("{long}a"), "/").unwrap()), "{length}");
    }
    for length in [262, 300, 65_535] {
        assert!(canonical(&"a".repeat(length), "/").is_none(), "{length}");
    }
}

#[test]
fn cve_2024_45806_an_address_proves_nothing_that_a_header_says() {
    let from = json!({ "direct_remote_ip": { "address_prefix": "10.0.0.0", "prefix_len": 8 } });
    let allow = rules("ALLOW", &json!({ "any": true }), &from);
    let by_id = json!({ "authenticated": { "principal_name": { "prefix": "spiffe://" } } });
    let by_id = rules("ALLOW", &json!({ "any": true }), &by_id);
    for (address, expected) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("203.0.113.9", false), ("::1", false)] {
        for header in ["x-forwarded-for", "x-real-ip", "forwarded", "x-envoy-external-address", "x-envoy-internal"] {
            let mut request = Simple::get("a", "/").with_header(header, "10.0.0.1");
            request.address = Some(address.parse().unwrap());
            assert_eq!(is_let_in(&allow, &request), expected, "{address} with {header}");
            assert!(!is_let_in(&by_id, &request), "{address} is nobody's identity");
        }
    }
}

#[test]
fn cve_2026_26310_an_address_with_a_zone_is_no_host() {
    for authority in ["[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]:80", "[fe80::1%2525eth0]", "fe80::1%eth0"] {
        assert!(canonical(authority, "/").is_none(), "{authority}");
    }
    assert_eq!(canonical("[::1]:080", "/").unwrap().authority, "[::1]:80");
}
