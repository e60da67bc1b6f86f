//! The same requests to the same routes, through a stock Envoy and through `decide`: they take the same route.
//!
//! Needs Envoy: `ENVOY=/path/to/envoy`, or what `scripts/get-envoy` fetches, or `envoy` in `PATH`. Without it the test
//! says so and passes, except where `CI` is set.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use engine::Kind;
use engine::compile::Compiler;
use engine::decide::{Outcome, decide};
use engine::path::{canonical_authority, canonical_path};
use engine::request::Simple;
use engine::tables::{Filter, Seen, Tables};
use engine::text::{read_static, to_json};
use engine::trace::NoTrace;
use serde_json::{Value, json};
use support::envoy::{Envoy, ask, program};
use support::{bookinfo, compiled, dice, gateway, host, with_passthrough};

const PATHS: &[&str] = &[
    "/",
    "/exact",
    "/exact?x",
    "/exact/",
    "/api",
    "/api/v1",
    "/apis",
    "/r",
    "/r12",
    "/r12x",
    "/cAsEx",
    "/a%2Fb",
    "//exact",
    "/x/../exact",
    "/x/%2e%2E/exact",
    "/%65xact",
    "/./exact",
    "/exact/.",
    "/exact/..",
    "/a//../exact",
    "/absent",
    "/not",
    "/empty",
    "/gone",
    "/q?a=b",
    "/q?a=bc",
    "/q",
    "/m",
    "/auth",
    "/red/host/a?b=c",
    "/red/path/a?b=c",
    "/red/query?b=c",
    "/red/pre/a?b=c",
    "/red/tls?b",
    "/red/port",
    "/..",
    "/api;x/y",
    r"/x\..\exact",
    "/api/%zz/..",
    "/exact%20",
    "/../../exact",
    "/exact#x",
    "/exact?a#b",
];

const VALUES: &[&str] = &[
    "a",
    "b",
    "prefix",
    "SUFFIX",
    "contain",
    "9",
    "10",
    "-1",
    "1a",
    "",
    "user=jason",
    "u=1;user=jason; z",
    "user=jasons",
];

/// A request as it is sent.
#[derive(Debug)]
struct Asked {
    method: &'static str,
    authority: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

fn requests() -> Vec<Asked> {
    let asked = |method, authority, path| Asked { method, authority, path, headers: Vec::new() };
    let mut all: Vec<_> = PATHS.iter().map(|path| asked("GET", "reviews:9080", *path)).collect();
    all.extend([asked("POST", "other", "/m"), asked("GET", "other", "/auth")]);
    for authority in [
        "www.example.com",
        "WWW.Example.com",
        "a.example.com",
        "example.com",
        "www.other",
        "www.example.com:80",
        "www.",
    ] {
        all.push(asked("GET", authority, "/"));
    }
    for authority in ["plain:80", "plain:443", "plain"] {
        all.extend(["/red/tls", "/red/port", "/red/host"].map(|path| asked("GET", authority, path)));
    }
    for value in VALUES {
        for path in ["/h/", "/absent", "/not", "/empty", "/gone"] {
            all.push(Asked { headers: vec![("x", value)], ..asked("GET", "reviews", path) });
        }
    }
    for headers in [[("x", "b"), ("x", "c")], [("x", "a"), ("x", "c")], [("y", "b"), ("X", "a")]] {
        for path in ["/h/", "/not"] {
            all.push(Asked { headers: headers.to_vec(), ..asked("GET", "reviews", path) });
        }
    }
    all
}

#[test]
fn envoy_takes_the_same_route_for_the_same_request() {
    let Some(program) = program() else { return };
    let mut compiler = Compiler::new();
    let ours_of = json!({ "static_resources": { "listeners": [listener(&routes(), 1)] } });
    for resource in read_static(&ours_of.to_string()).unwrap() {
        compiler.update(resource.kind, &resource.name, &resource.version, &resource.body).unwrap();
    }
    let tables = compiler.tables();
    let envoy = Envoy::start(&program, "same", &json!({ "listeners": [listener(&routes(), 0)] }));
    let address = envoy.listener("l");
    let mut differing = Vec::new();
    for asked in requests() {
        // What could be read in two ways we refuse, whatever Envoy makes of it. (Escapes get upper-case digits and hosts
        // lose a trailing dot with us alone; no such request is asked here.)
        let (ours, theirs) = (ours(&tables, &asked), theirs(address, &asked));
        if ours != theirs && ours != "400" {
            differing.push(format!("{asked:?}: ours {ours}, theirs {theirs}"));
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
fn envoy_passes_the_same_tls_to_the_same_service() {
    let Some(program) = program() else { return };
    let servers = [("shop.example", "exact"), ("*.shop.example", "below"), ("*.b.shop.example", "closer")];
    let model = with_passthrough(bookinfo(), "tls", &servers);
    let tables = compiled(&model, &gateway()).tables();
    let generated = engine::generate::listener(&model, &gateway(), "https").unwrap();
    let mut listener = to_json(Kind::Listener, &generated.body).unwrap();
    listener["address"] = json!({ "socketAddress": { "address": "127.0.0.1", "portValue": 0 } });
    // Each service says its name to who comes.
    let services = servers.map(|(_, service)| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = socket.accept() {
                // Bytes that nobody has read when a connection is closed would make a reset of it.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(service.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        let name = format!("outbound|443||{}", host(service));
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
        let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
        json!({ "name": name, "type": "STATIC", "load_assignment": { "cluster_name": name, "endpoints": endpoints } })
    });
    let envoy = Envoy::start(&program, "tls", &json!({ "listeners": [listener], "clusters": services }));
    let address = envoy.listener("https");
    for server_name in [
        Some("shop.example"),
        Some("SHOP.example"),
        Some("a.shop.example"),
        Some("a.b.shop.example"),
        Some("b.shop.example"),
        Some("other.example"),
        Some("shop.example.org"),
        None,
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        stream.write_all(&client_hello(server_name)).unwrap();
        let mut theirs = String::new();
        // A connection that is closed with the hello unread may end with a reset.
        let _ = stream.read_to_string(&mut theirs);
        let lower = server_name.map(str::to_ascii_lowercase);
        let seen = Seen { port: 8443, server_name: lower.as_deref(), is_tls: true, ..Seen::default() };
        let chain = tables.listener("https").unwrap().chain_for(&seen);
        let ours = chain.map(|chain| servers.iter().find(|(name, _)| *name == &*chain.name).unwrap().1);
        assert_eq!(theirs, ours.unwrap_or_default(), "{server_name:?}");
    }
}

/// A ClientHello that asks for a server.
fn client_hello(server_name: Option<&str>) -> Vec<u8> {
    fn prefixed(size: usize, content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes()[4 - size..], content].concat()
    }
    let versions = [&[0, 43][..], &prefixed(2, &prefixed(1, &[3, 4]))].concat();
    let name = |name: &str| {
        let list = prefixed(2, &[&[0][..], &prefixed(2, name.as_bytes())].concat());
        [&[0, 0][..], &prefixed(2, &list)].concat()
    };
    let extensions = [versions, server_name.map(name).unwrap_or_default()].concat();
    let suites = prefixed(2, &[0x13, 1]);
    let hello = [&[3, 3][..], &[7; 32], &prefixed(1, &[]), &suites, &prefixed(1, &[0]), &prefixed(2, &extensions)];
    let message = [&[1][..], &prefixed(3, &hello.concat())].concat();
    [&[22, 3, 1][..], &prefixed(2, &message)].concat()
}

/// A listener whose routes answer with their own names, for both.
fn listener(routes: &[(&str, Value)], port: u16) -> Value {
    let mut list = Vec::new();
    for (name, on) in routes {
        let mut route =
            json!({ "name": name, "direct_response": { "status": 200, "body": { "inline_string": name } } });
        let route_of = route.as_object_mut().unwrap();
        match on.get("redirect") {
            Some(redirect) => {
                route_of.remove("direct_response");
                route_of.insert("redirect".to_owned(), redirect.clone());
                route_of.insert("match".to_owned(), on["match"].clone());
            }
            None => {
                route_of.insert("match".to_owned(), on.clone());
            }
        }
        list.push(route);
    }
    let host = |name: &str, domains: &[&str]| json!({ "name": name, "domains": domains, "routes": list });
    let only = |name: &str, domains: &[&str]| {
        let direct = json!({ "status": 200, "body": { "inline_string": name } });
        json!({ "name": name, "domains": domains, "routes": [{ "name": name, "match": { "prefix": "/" }, "direct_response": direct }] })
    };
    json!({
        "name": "l",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "h", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "h",
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "route_config": { "virtual_hosts": [
                host("any", &["*"]),
                only("suffix", &["*.example.com"]),
                only("prefix", &["www.*"]),
                only("exact", &["www.example.com"]),
            ] },
            "http_filters": [
                { "name": "r", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
        } }] }],
    })
}

/// What our own engine answers.
fn ours(tables: &Tables, asked: &Asked) -> String {
    let Filter::Http(http) = &tables.listener("l").unwrap().chains[0].filter else { panic!("opaque") };
    let (Ok(path), Ok(authority)) = (canonical_path(asked.path, http.path), canonical_authority(asked.authority))
    else {
        return "400".to_owned();
    };
    let bare = Simple::get(&authority, &path).with_method(asked.method);
    let request = asked.headers.iter().fold(bare, |request, (name, value)| request.with_header(name, value));
    let decision = decide(tables, http, &request, &mut dice(1), &mut NoTrace);
    match decision.outcome {
        Outcome::Direct(direct) => format!("{} {}", direct.status, String::from_utf8_lossy(&direct.body)),
        Outcome::Redirect(redirect) => format!("{} {}", redirect.status(), redirect.location(&request)),
        Outcome::Unrouted(_) => "404".to_owned(),
        other => format!("{other:?}"),
    }
}

fn theirs(envoy: SocketAddr, asked: &Asked) -> String {
    let Asked { method, authority, path, headers } = asked;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let answer = ask(envoy, &(request + "\r\n"));
    match (answer.status, answer.location) {
        (status, Some(location)) => format!("{status} {location}"),
        (200, None) => format!("200 {}", answer.body),
        (status, None) => status.to_string(),
    }
}

fn routes() -> Vec<(&'static str, Value)> {
    let header = |mut matcher: Value| {
        matcher["name"] = json!("x");
        json!({ "prefix": "/h/", "headers": [matcher] })
    };
    vec![
        ("exact", json!({ "path": "/exact" })),
        ("elements", json!({ "path_separated_prefix": "/api" })),
        ("regex", json!({ "safe_regex": { "regex": "/r[0-9]+|/r" } })),
        ("any case", json!({ "prefix": "/Case", "case_sensitive": false })),
        ("escaped", json!({ "path": "/a%2Fb" })),
        ("absent", json!({ "prefix": "/absent", "headers": [{ "name": "x", "present_match": false }] })),
        (
            "not a",
            json!({ "prefix": "/not", "headers": [{ "name": "x", "string_match": { "exact": "a" }, "invert_match": true }] }),
        ),
        (
            "not a or none",
            json!({ "prefix": "/empty", "headers": [{ "name": "x", "string_match": { "exact": "a" }, "invert_match": true, "treat_missing_header_as_empty": true }] }),
        ),
        (
            "not there",
            json!({ "prefix": "/gone", "headers": [{ "name": "x", "present_match": true, "invert_match": true }] }),
        ),
        (
            "query",
            json!({ "prefix": "/q", "headers": [{ "name": ":path", "string_match": { "safe_regex": { "regex": ".*[?]a=b" } } }] }),
        ),
        ("h exact", header(json!({ "string_match": { "exact": "a" } }))),
        ("h both", header(json!({ "string_match": { "exact": "b,c" } }))),
        ("h prefix", header(json!({ "string_match": { "prefix": "pre" } }))),
        ("h suffix", header(json!({ "string_match": { "suffix": "fix", "ignore_case": true } }))),
        ("h contains", header(json!({ "string_match": { "contains": "tain" } }))),
        ("h range", header(json!({ "range_match": { "start": 1, "end": 10 } }))),
        ("h cookie", header(json!({ "string_match": { "safe_regex": { "regex": "^(.*?;)?(user=jason)(;.*)?$" } } }))),
        ("post", json!({ "prefix": "/m", "headers": [{ "name": ":method", "string_match": { "exact": "POST" } }] })),
        (
            "authority",
            json!({ "prefix": "/auth", "headers": [{ "name": ":authority", "string_match": { "prefix": "rev" } }] }),
        ),
        ("to host", json!({ "match": { "prefix": "/red/host" }, "redirect": { "host_redirect": "new.example" } })),
        (
            "to path",
            json!({ "match": { "prefix": "/red/path" }, "redirect": { "path_redirect": "/x", "response_code": "FOUND" } }),
        ),
        ("to query", json!({ "match": { "prefix": "/red/query" }, "redirect": { "path_redirect": "/x?y" } })),
        (
            "to prefix",
            json!({ "match": { "prefix": "/red/pre" }, "redirect": { "prefix_rewrite": "/x", "strip_query": true } }),
        ),
        ("to tls", json!({ "match": { "prefix": "/red/tls" }, "redirect": { "https_redirect": true } })),
        (
            "to port",
            json!({ "match": { "prefix": "/red/port" }, "redirect": { "port_redirect": 81, "response_code": "PERMANENT_REDIRECT" } }),
        ),
        ("root", json!({ "path": "/" })),
    ]
}
