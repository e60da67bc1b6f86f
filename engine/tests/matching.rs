//! What people write for Envoy, compiled and asked: domains, paths, headers, actions, large tables.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use engine::Kind;
use engine::compile::Compiler;
use engine::decide::{Outcome, decide};
use engine::request::Simple;
use engine::tables::{Filter, Tables};
use engine::text::{from_json, read_static};
use engine::trace::{NoTrace, Recording, Step};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use support::dice;

/// A listener `l` whose routes are `virtual_hosts`, with the cluster `up`.
fn tables_of(virtual_hosts: &Value) -> Tables {
    tables_with(virtual_hosts, &json!({}))
}

fn tables_with(virtual_hosts: &Value, more: &Value) -> Tables {
    let mut manager = json!({ "route_config": { "virtual_hosts": virtual_hosts } });
    manager.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    compiler_of(&manager).tables()
}

/// A listener `l` that speaks HTTP in this way, with the cluster `up`.
fn compiler_of(more: &Value) -> Compiler {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h",
        "http_filters": [
            { "name": "f", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault" } },
            { "name": "r", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
        ],
    });
    manager.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = json!({ "static_resources": {
        "listeners": [{
            "name": "l",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
            "filter_chains": [{ "filters": [{ "name": "h", "typed_config": manager }] }],
        }],
        "clusters": [{ "name": "up", "type": "STATIC", "load_assignment": { "cluster_name": "up" } }],
    } });
    let mut compiler = Compiler::new();
    for resource in read_static(&config.to_string()).unwrap() {
        compiler.update(resource.kind, &resource.name, &resource.version, &resource.body).unwrap();
    }
    compiler
}

/// The route that takes a request, or what becomes of it without one.
fn taken(tables: &Tables, request: &Simple) -> String {
    let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
    let decision = decide(tables, http, request, &mut dice(1), &mut NoTrace);
    match decision.outcome {
        Outcome::Unrouted(why) => format!("{why:?}"),
        _ => decision.route_name().to_owned(),
    }
}

fn host(name: &str, domains: &[&str], routes: &Value) -> Value {
    json!({ "name": name, "domains": domains, "routes": routes })
}

#[test]
fn domains_are_looked_up_exact_first_then_the_longest_suffix_then_the_longest_prefix() {
    let to = |name: &str| json!([{ "name": name, "match": { "prefix": "/" }, "route": { "cluster": "up" } }]);
    let tables = tables_of(&json!([
        host("any", &["*"], &to("any")),
        host("prefix", &["www.*"], &to("prefix")),
        host("suffix", &["*.example.com"], &to("suffix")),
        host("longer", &["*-x.example.com"], &to("longer")),
        host("exact", &["Www.Example.com", "www.example.com:80"], &to("exact")),
    ]));
    for (authority, expected) in [
        ("www.example.com", "exact"),
        ("www.example.com:80", "exact"),
        ("www.example.com:81", "prefix"),
        ("a.example.com", "suffix"),
        ("a-x.example.com", "longer"),
        (".example.com", "any"),
        ("example.com", "any"),
        ("www.", "any"),
        ("www.other", "prefix"),
    ] {
        assert_eq!(taken(&tables, &Simple::get(authority, "/")), expected, "{authority}");
    }
}

#[test]
fn paths_are_matched_without_the_query_and_in_order() {
    let to = |name: &str, on: Value| json!({ "name": name, "match": on, "route": { "cluster": "up" } });
    let tables = tables_of(&json!([host(
        "v",
        &["*"],
        &json!([
            to("exact", json!({ "path": "/exact" })),
            to("elements", json!({ "path_separated_prefix": "/api" })),
            to("regex", json!({ "safe_regex": { "regex": "/r[0-9]+" } })),
            to("any case", json!({ "prefix": "/Case", "case_sensitive": false })),
            to("prefix", json!({ "prefix": "/pre" })),
        ])
    )]));
    for (path, expected) in [
        ("/exact", "exact"),
        ("/exact?a=b", "exact"),
        ("/exact/", "NoRoute"),
        ("/api", "elements"),
        ("/api/v1?x", "elements"),
        ("/apis", "NoRoute"),
        ("/r12?x=1", "regex"),
        ("/r12/", "NoRoute"),
        ("/cAsE/x", "any case"),
        ("/prefix", "prefix"),
        ("/", "NoRoute"),
    ] {
        assert_eq!(taken(&tables, &Simple::get("a", path)), expected, "{path}");
    }
}

#[test]
fn header_conditions_hold_as_in_envoy() {
    let get = || Simple::get("reviews:9080", "/a?b=c");
    let with = |values: &[&str]| values.iter().fold(get(), |request, value| request.with_header("x", value));
    let text = |pattern: Value| json!({ "name": "X", "string_match": pattern });
    for (condition, request, expected) in [
        (text(json!({ "exact": "a" })), with(&["a"]), true),
        (text(json!({ "exact": "a" })), with(&["A"]), false),
        (text(json!({ "exact": "a", "ignore_case": true })), with(&["A"]), true),
        (text(json!({ "prefix": "a" })), with(&["ab"]), true),
        (text(json!({ "suffix": "b" })), with(&["ab"]), true),
        (text(json!({ "contains": "b" })), with(&["abc"]), true),
        (text(json!({ "safe_regex": { "regex": "a|ab" } })), with(&["ab"]), true),
        (text(json!({ "safe_regex": { "google_re2": {}, "regex": "a" } })), with(&["ab"]), false),
        // Every value of a repeated header is looked at by itself.
        (text(json!({ "exact": "a" })), with(&["a", "b"]), true),
        (text(json!({ "exact": "b" })), with(&["a", "b"]), true),
        (text(json!({ "exact": "a,b" })), with(&["a", "b"]), false),
        (json!({ "name": "x", "string_match": { "exact": "b" }, "invert_match": true }), with(&["a", "b"]), false),
        (json!({ "name": "x", "string_match": { "exact": "c" }, "invert_match": true }), with(&["a", "b"]), true),
        (text(json!({ "exact": "a" })), get(), false),
        (json!({ "name": "x", "string_match": { "exact": "a" }, "invert_match": true }), with(&["b"]), true),
        (json!({ "name": "x", "string_match": { "exact": "a" }, "invert_match": true }), get(), false),
        (
            json!({ "name": "x", "string_match": { "exact": "a" }, "invert_match": true, "treat_missing_header_as_empty": true }),
            get(),
            true,
        ),
        (json!({ "name": "x", "present_match": true }), with(&[""]), true),
        (json!({ "name": "x", "present_match": true }), get(), false),
        (json!({ "name": "x", "present_match": false }), get(), true),
        (json!({ "name": "x", "present_match": true, "invert_match": true }), get(), true),
        (json!({ "name": "x" }), with(&["a"]), true),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), with(&["9"]), true),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), with(&["10"]), false),
        (json!({ "name": "x", "range_match": { "start": 1, "end": 10 } }), with(&["1a"]), false),
        (json!({ "name": "x", "exact_match": "a" }), with(&["a"]), true),
        (json!({ "name": "x", "prefix_match": "a" }), with(&["ab"]), true),
        (json!({ "name": "x", "safe_regex_match": { "regex": "a." } }), with(&["ab"]), true),
        (json!({ "name": ":method", "string_match": { "exact": "GET" } }), get(), true),
        (json!({ "name": ":path", "string_match": { "exact": "/a?b=c" } }), get(), true),
        (json!({ "name": ":authority", "string_match": { "prefix": "reviews" } }), get(), true),
        (json!({ "name": "Host", "string_match": { "exact": "reviews:9080" } }), get(), true),
        (json!({ "name": ":scheme", "string_match": { "exact": "https" } }), get(), false),
    ] {
        let tables = tables_of(&json!([host(
            "v",
            &["*"],
            &json!([
                { "name": "yes", "match": { "prefix": "/", "headers": [condition] }, "route": { "cluster": "up" } },
                { "name": "no", "match": { "prefix": "/" }, "route": { "cluster": "up" } },
            ])
        )]));
        let expected = if expected { "yes" } else { "no" };
        assert_eq!(taken(&tables, &request), expected, "{condition} on {request:?}");
    }
}

#[test]
fn actions_do_what_they_say() {
    let request = Simple::get("old.example:8080", "/a/b?q=1");
    for (route, expected) in [
        (json!({ "direct_response": { "status": 418, "body": { "inline_string": "tea" } } }), "418 tea"),
        (json!({ "redirect": { "host_redirect": "new.example" } }), "301 http://new.example/a/b?q=1"),
        (
            json!({ "redirect": { "https_redirect": true, "port_redirect": 443 } }),
            "301 https://old.example:443/a/b?q=1",
        ),
        (
            json!({ "redirect": { "path_redirect": "/x?y", "response_code": "FOUND" } }),
            "302 http://old.example:8080/x?y",
        ),
        (json!({ "redirect": { "prefix_rewrite": "/x", "strip_query": true } }), "301 http://old.example:8080/x/b"),
        (json!({ "route": { "cluster": "up" } }), "up old.example:8080/a/b?q=1 Some(15s)"),
        (json!({ "route": { "cluster": "up", "timeout": "0s" } }), "up old.example:8080/a/b?q=1 None"),
        (
            json!({ "route": { "cluster": "up", "prefix_rewrite": "/x", "timeout": "0.5s" } }),
            "up old.example:8080/x/b?q=1 Some(500ms)",
        ),
        (
            json!({ "route": { "cluster": "up", "host_rewrite_literal": "new",
                "regex_rewrite": { "pattern": { "regex": "/(.*)/b" }, "substitution": r"/\1/c" } } }),
            "up new/a/c?q=1 Some(15s)",
        ),
        (json!({ "route": { "cluster": "gone" } }), "no gone 503"),
        (json!({ "route": { "cluster": "gone", "cluster_not_found_response_code": "NOT_FOUND" } }), "no gone 404"),
    ] {
        let mut whole = json!({ "match": { "prefix": "/a" } });
        whole.as_object_mut().unwrap().extend(route.as_object().unwrap().clone());
        let tables = tables_of(&json!([host("v", &["*"], &json!([whole]))]));
        let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
        let decision = decide(&tables, http, &request, &mut dice(1), &mut NoTrace);
        let found = match decision.outcome {
            Outcome::Direct(direct) => format!("{} {}", direct.status, String::from_utf8_lossy(&direct.body)),
            Outcome::Redirect(redirect) => format!("{} {}", redirect.status(), redirect.location(&request)),
            Outcome::Forward(to) => {
                let (authority, path) = (to.authority(&request.authority), to.path(&request.path));
                format!("{} {authority}{path} {:?}", to.cluster.spec.name, to.timeout())
            }
            Outcome::NoCluster { name, status } => format!("no {name} {status}"),
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{route}");
    }
}

#[test]
fn shares_of_faults_and_of_routes_are_drawn() {
    let fault = json!({ "envoy.filters.http.fault": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": { "fixed_delay": "2s", "percentage": { "numerator": 25 } },
        "abort": { "http_status": 503, "percentage": { "numerator": 100_000, "denominator": "MILLION" } },
    } });
    let tables = tables_of(&json!([host(
        "v",
        &["*"],
        &json!([
            { "name": "some", "match": { "prefix": "/", "runtime_fraction": { "default_value": { "numerator": 30 } } },
              "route": { "cluster": "up" } },
            { "name": "rest", "match": { "prefix": "/" }, "route": { "cluster": "up" }, "typed_per_filter_config": fault },
        ])
    )]));
    let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
    let (mut some, mut delayed, mut aborted, mut roll) = (0, 0, 0, dice(3));
    for _ in 0..100_000 {
        let decision = decide(&tables, http, &Simple::get("a", "/"), &mut roll, &mut NoTrace);
        some += u32::from(decision.route_name() == "some");
        delayed += u32::from(decision.delay.is_some());
        aborted += u32::from(matches!(decision.outcome, Outcome::Abort(abort) if abort.status == 503));
    }
    assert!((29_500..30_500).contains(&some), "{some}");
    assert!((17_000..18_000).contains(&delayed), "{delayed}");
    assert!((6_700..7_300).contains(&aborted), "{aborted}");
}

#[test]
fn a_table_of_ten_thousand_routes_finds_the_first_that_matches() {
    use engine::proto::route::{self as pb, route_match::PathSpecifier};
    let to_up = |name: String, path| pb::Route {
        name,
        r#match: Some(pb::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(pb::route::Action::DirectResponse(pb::DirectResponseAction { status: 200, ..Default::default() })),
        ..Default::default()
    };
    let mut routes: Vec<_> =
        (0..10_000).map(|nth| to_up(format!("r{nth}"), PathSpecifier::Path(format!("/p/{nth}")))).collect();
    routes.insert(5_000, to_up("prefix".to_owned(), PathSpecifier::Prefix("/p/7".to_owned())));
    let table = pb::RouteConfiguration {
        name: "t".to_owned(),
        virtual_hosts: vec![pb::VirtualHost {
            name: "v".to_owned(),
            domains: vec!["*".to_owned()],
            routes,
            ..Default::default()
        }],
        ..Default::default()
    };
    let rds = json!({ "config_source": { "ads": {}, "resource_api_version": "V3" }, "route_config_name": "t" });
    let mut compiler = compiler_of(&json!({ "rds": rds }));
    assert_eq!(taken(&compiler.tables(), &Simple::get("a", "/")), "NoTable");
    compiler.update(Kind::Route, "t", "1", &table.encode_to_vec().into()).unwrap();
    let tables = compiler.tables();
    for (path, expected) in [("/p/9999", "r9999"), ("/p/42", "r42"), ("/p/70", "r70"), ("/p/7000", "prefix")] {
        assert_eq!(taken(&tables, &Simple::get("a", path)), expected, "{path}");
    }
}

fn any_route() -> impl Strategy<Value = Value> {
    let path = "(/[ab]?){1,3}";
    let on = prop_oneof![
        path.prop_map(|path| json!({ "path": path })),
        path.prop_map(|path| json!({ "prefix": path })),
        "(/[ab]){1,2}".prop_map(|path| json!({ "path_separated_prefix": path })),
        Just(json!({ "safe_regex": { "regex": "/a.*" } })),
        path.prop_map(|path| json!({ "prefix": path, "headers": [{ "name": "x", "string_match": { "exact": "1" } }] })),
        path.prop_map(|path| json!({ "path": path.to_uppercase(), "case_sensitive": false })),
    ];
    on.prop_map(|on| json!({ "match": on, "route": { "cluster": "up" } }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_index_finds_what_asking_each_route_finds(
        mut routes in prop::collection::vec(any_route(), 12..40),
        asked in prop::collection::vec(("(/[ab]?){1,4}", any::<bool>()), 20),
    ) {
        for (nth, route) in routes.iter_mut().enumerate() {
            route["name"] = json!(format!("r{nth}"));
        }
        let tables = tables_of(&json!([host("v", &["*"], &Value::Array(routes))]));
        let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
        for (path, header) in asked {
            let mut request = Simple::get("a", &path);
            if header {
                request = request.with_header("x", "1");
            }
            let indexed = decide(&tables, http, &request, &mut dice(1), &mut NoTrace).route_name();
            let mut trace = Recording::default();
            let linear = decide(&tables, http, &request, &mut dice(1), &mut trace).route_name();
            prop_assert_eq!(indexed, linear, "{}", path);
            let lost = trace.steps.iter().filter(|step| matches!(step, Step::Lost { .. })).count();
            let expected = format!("r{lost}");
            prop_assert!(indexed.is_empty() || indexed == expected);
        }
    }
}

#[test]
fn a_path_policy_comes_from_the_listener() {
    use engine::tables::Slashes;
    let hosts = json!([host("v", &["*"], &json!([]))]);
    for (more, merges, slashes) in [
        (json!({}), false, Slashes::Keep),
        (json!({ "merge_slashes": true, "normalize_path": true }), true, Slashes::Keep),
        (json!({ "path_with_escaped_slashes_action": "REJECT_REQUEST" }), false, Slashes::Reject),
    ] {
        let tables = tables_with(&hosts, &more);
        let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
        assert_eq!((http.path.merge_slashes, http.path.escaped_slashes), (merges, slashes), "{more}");
    }
    assert!(from_json(Kind::Listener, &json!({ "name": "l" }), "here").is_ok());
}
