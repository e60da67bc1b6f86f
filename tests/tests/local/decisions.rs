//! `engine::decide` on the configuration that a proxy shows, offline, gives what the same proxy gave on the wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_tests::access_log::{self, Line};
use mesh_tests::mesh::Mesh;
use mesh_tests::offline::{Asked, Decided, Proxy, What, dice};
use mesh_tests::programs::{Scratch, eventually};

use crate::shares::are_alike;

/// Whose proxy decides: where requests come from.
#[derive(Clone, Copy)]
struct Client {
    pod: &'static str,
    namespace: &'static str,
    listener: &'static str,
}

const PAGE: Client = Client { pod: "deploy/productpage-v1", namespace: "default", listener: "virtual_outbound" };
const REVIEWS: Client = Client { pod: "deploy/reviews-v2", namespace: "default", listener: "virtual_outbound" };
const GATEWAY: Client = Client { pod: "deploy/mesh-ingressgateway", namespace: "mesh-system", listener: "http" };

impl Client {
    /// Its proxy's configuration.
    fn proxy(self, mesh: &Mesh) -> Proxy {
        Proxy::of(&mesh.json(&["proxy-config", self.pod, "all", "-n", self.namespace, "-o", "json"]))
    }

    /// Its proxy's log of the requests whose id begins so, once there are as many as were sent.
    fn log(self, mesh: &Mesh, ids: &str, count: usize) -> Vec<Line> {
        let tail = (count + 500).to_string();
        let logs = ["local", "logs", self.pod, "-n", self.namespace, "-c", "mesh-proxy", "--tail", &tail];
        eventually(Duration::from_secs(10), || {
            let log = mesh.meshctl(&logs).ok().stdout;
            let lines: Vec<Line> = access_log::lines(&log).filter(|line| line.request_id.starts_with(ids)).collect();
            if lines.len() == count { Ok(lines) } else { Err(format!("{} of {count} in the log:\n{log}", lines.len())) }
        })
    }

    /// Sends each request once, with the id `<ids>-<nth>`; gives the status and `location` of each answer.
    fn send(self, mesh: &Mesh, ids: &str, requests: &[Asked]) -> Vec<(u16, String)> {
        if self.pod == GATEWAY.pod {
            let mut browser = mesh.browser();
            let sent = requests.iter().enumerate().map(|(nth, asked)| {
                let id = format!("{ids}-{nth}");
                let mut headers: Vec<_> = asked.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                headers.push(("x-request-id", &id));
                let answer = browser.ask(&asked.method, &asked.path, &headers).expect("the gateway answers");
                (answer.status, answer.header("location").unwrap_or_default().to_owned())
            });
            return sent.collect();
        }
        let texts: Vec<Vec<String>> =
            requests.iter().enumerate().map(|(nth, asked)| curl(&format!("{ids}-{nth}"), nth, asked)).collect();
        let joined = texts.join(&"--next".to_owned());
        let command: Vec<&str> =
            ["curl", "-Z", "--parallel-max", "8"].into_iter().chain(joined.iter().map(String::as_str)).collect();
        let printed = mesh.exec(self.pod, &command).ok().stdout;
        let mut answers = vec![(0, String::new()); requests.len()];
        for line in printed.lines().filter_map(|line| line.strip_prefix("answer ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let [nth, status, location] = words.as_slice() else { panic!("{line}") };
            let nth: usize = nth.parse().expect("a number");
            answers[nth] = (status.parse().expect("a status"), (*location).to_owned());
        }
        answers
    }
}

/// The arguments with which curl sends a request and prints one line about its answer.
fn curl(id: &str, nth: usize, asked: &Asked) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["-s", "-S", "-m", "60", "--path-as-is", "-o", "/dev/null", "-X", &asked.method, "-H"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(format!("x-request-id: {id}"));
    for (name, value) in &asked.headers {
        arguments.extend(["-H".to_owned(), format!("{name}: {value}")]);
    }
    arguments.extend(["-w".to_owned(), format!("answer {nth} %{{http_code}} %{{redirect_url}}\\n")]);
    arguments.push(format!("http://{}{}", asked.authority, asked.path));
    arguments
}

/// Where a connection for a request is going: the service's address, or the gateway's port.
fn destination(mesh: &Mesh, client: Client, asked: &Asked) -> SocketAddr {
    if client.pod == GATEWAY.pod {
        return SocketAddr::from(([0, 0, 0, 0], 8080));
    }
    let (name, port) = asked.authority.split_once(':').expect("name and port");
    let service = mesh.json(&["get", "service", name, "-n", "default", "-o", "json"]);
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    SocketAddr::new(address.parse().expect("an address"), port.parse().expect("a port"))
}

/// Sends the requests, decides them offline, and compares one by one.
fn agree(mesh: &Mesh, what: &str, client: Client, requests: &[Asked]) {
    let proxy = client.proxy(mesh);
    let ids = format!("{what}-{}", client.pod.trim_start_matches("deploy/"));
    let answers = client.send(mesh, &format!("{ids}-at"), requests);
    let lines = client.log(mesh, &format!("{ids}-at-"), requests.len());
    assert_eq!(client.proxy(mesh).version, proxy.version, "the configuration changed under the requests");
    let mut destinations: BTreeMap<&str, SocketAddr> = BTreeMap::new();
    for (nth, asked) in requests.iter().enumerate() {
        let id = format!("{ids}-at-{nth}");
        let line = lines.iter().find(|line| line.request_id == id).unwrap_or_else(|| panic!("{id} is in no line"));
        let (status, location) = &answers[nth];
        assert_eq!(line.status, *status, "{asked:?}: the log and the client do not agree");
        let to = *destinations.entry(&asked.authority).or_insert_with(|| destination(mesh, client, asked));
        let possible = proxy.possible(proxy.http(client.listener, to), asked);
        assert!(
            possible.iter().any(|decided| decided.is_what_happened(line, location)),
            "{what}: {asked:?}\noffline: {possible:#?}\non the wire: {line:#?} {location}"
        );
    }
    println!("  {what}: {} requests from {} went as decided offline", requests.len(), client.pod);
}

/// Requests between pods that the classic files tell apart, and some that they do not.
fn between_pods() -> Vec<Asked> {
    let mut requests = Vec::new();
    for cookie in ["", "user=jason", "a=b;user=jason;c=d", "user=jasonX", "a=b; user=jason"] {
        let headers: &[(&str, &str)] = if cookie.is_empty() { &[] } else { &[("cookie", cookie)] };
        for (authority, path) in [
            ("reviews:9080", "/reviews/0"),
            ("ratings:9080", "/ratings/0"),
            ("details:9080", "/details/0?a=b"),
            ("reviews:9080", "//reviews/./%30"),
        ] {
            requests.push(Asked::get(authority, path, headers));
        }
    }
    requests.push(Asked::get("ratings:9080", "/nothing", &[]).by("PUT"));
    requests
}

/// Requests from outside.
fn from_outside(gateway: &str) -> Vec<Asked> {
    let mut requests = vec![Asked::get(gateway, "/nowhere", &[]), Asked::get(gateway, "/productpage/x", &[])];
    for headers in [&[][..], &[("cookie", "user=jason")], &[("end-user", "jason")]] {
        for path in ["/productpage", "/api/v1/products", "/api/v1/products/0?x=y", "/logout"] {
            requests.push(Asked::get(gateway, path, headers));
        }
    }
    requests
}

fn files(mesh: &Mesh, verb: &str, files: &[&str]) {
    for file in files {
        let _ = mesh.meshctl(&[verb, "-f", &Mesh::sample(file), "--wait"]).ok();
    }
}

pub(crate) fn for_each_sample_file_decide_offline_gives_what_the_wire_gave(mesh: &Mesh) {
    mesh.without_rules();
    agree(mesh, "none", PAGE, &between_pods());
    agree(mesh, "none", GATEWAY, &from_outside(mesh.gateway()));
    let delay = "route-rule-ratings-test-delay.yaml";
    for (what, more) in [
        ("all-v1", &[][..]),
        ("test-v2", &["route-rule-reviews-test-v2.yaml"]),
        ("50-v3", &["route-rule-reviews-50-v3.yaml"]),
        ("90-10", &["route-rule-reviews-90-10.yaml"]),
        ("80-20", &["route-rule-reviews-80-20.yaml"]),
        ("v2-v3", &["route-rule-reviews-v2-v3.yaml"]),
        ("v3", &["route-rule-reviews-v3.yaml"]),
        ("timeout", &["route-rule-reviews-timeout.yaml"]),
        ("abort", &["route-rule-ratings-test-abort.yaml"]),
        ("delay", &[delay, "destination-policy-reviews.yaml"]),
    ] {
        mesh.without_rules();
        files(mesh, "apply", &[&["route-rule-all-v1.yaml"], more].concat());
        agree(mesh, what, PAGE, &between_pods());
    }
    agree(mesh, "delay", GATEWAY, &from_outside(mesh.gateway()));
}

/// Rules that use every condition and every action that is in force.
const EVERY_PART: &str = r#"
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: moved}
spec:
  destination: {name: details}
  precedence: 9
  match: {request: {headers: {uri: {exact: /old}}}}
  redirect: {uri: /details/1}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: moved-away}
spec:
  destination: {name: details}
  precedence: 8
  match: {request: {headers: {uri: {prefix: /away}, x-to: {prefix: e}}}}
  redirect: {authority: elsewhere.example}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: renamed}
spec:
  destination: {name: details}
  precedence: 7
  match: {request: {headers: {uri: {prefix: /books/}}}}
  rewrite: {uri: /details/}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: by-regex}
spec:
  destination: {name: details}
  precedence: 6
  match: {request: {headers: {uri: {regex: "/details/[0-9]+"}, method: {exact: POST}}}}
  httpFault: {abort: {percent: 100, httpStatus: 418}}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: by-authority}
spec:
  destination: {name: details}
  precedence: 5
  match: {request: {headers: {authority: {prefix: "details.default"}}}}
  httpReqTimeout: {simpleTimeout: {timeout: 3s}}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: by-source}
spec:
  destination: {name: ratings}
  precedence: 5
  match: {source: {name: reviews, labels: {version: v2}}}
  route: [{labels: {version: v1}}]
  httpFault: {delay: {percent: 50, fixedDelay: 0.3s}, abort: {percent: 50, httpStatus: 555}}
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: to-nobody}
spec:
  destination: {name: ratings}
  precedence: 4
  match: {request: {headers: {x-version: {exact: v9}}}}
  route: [{labels: {version: v9}}]
---
apiVersion: config.meshctl.io/v1alpha2
kind: RouteRule
metadata: {name: page-closed}
spec:
  destination: {name: productpage}
  precedence: 4
  match: {request: {headers: {end-user: {regex: "j.*n"}, uri: {prefix: /api}}}}
  httpFault: {abort: {percent: 100, httpStatus: 503}}
"#;

pub(crate) fn for_every_part_of_a_rule_decide_offline_gives_what_the_wire_gave(mesh: &Mesh) {
    mesh.without_rules();
    let rules = Scratch::file("every-part.yaml", EVERY_PART);
    let _ = mesh.meshctl(&["create", "-f", rules.path(), "--wait"]).ok();
    let get = |path: &str, headers: &[(&str, &str)]| Asked::get("details:9080", path, headers);
    let mut requests = vec![
        get("/old", &[]),
        get("/old?x=1", &[]),
        get("/old/", &[]),
        get("/away/a/b?x=1", &[("x-to", "east")]),
        get("/away/a/b?x=1", &[("x-to", "west")]),
        get("/away/a/b", &[]),
        get("/books/7?x=1", &[]),
        get("/books", &[]),
        get("/details/7", &[]).by("POST"),
        get("/details/7", &[]),
        get("/details/x", &[]).by("POST"),
        get("/details/7?x=1", &[]).by("POST"),
        Asked::get("details.default.svc.cluster.local:9080", "/details/7", &[]),
        Asked::get("ratings:9080", "/ratings/0", &[("x-version", "v9")]),
        Asked::get("ratings:9080", "/ratings/0", &[("X-Version", "v9"), ("x-other", "1")]),
        Asked::get("ratings:9080", "/ratings/0", &[("x-version", "v90")]),
    ];
    requests.extend((0..20).map(|nth| Asked::get("ratings:9080", &format!("/ratings/{nth}"), &[])));
    // The name of a service with its domain has the same address as its short name.
    let here: Vec<Asked> = requests.iter().filter(|asked| !asked.authority.contains("svc")).cloned().collect();
    agree(mesh, "parts", PAGE, &here);
    agree(mesh, "parts", REVIEWS, &here);
    agree(mesh, "parts", GATEWAY, &from_outside(mesh.gateway()));
}

const MANY: usize = 1000;

pub(crate) fn a_thousand_decisions_and_a_thousand_requests_have_the_same_distribution(mesh: &Mesh) {
    let three = ["create", "route-rule", "three", "--destination", "reviews", "--precedence", "2", "--wait"];
    let shares = ["--route", "version=v1:60", "--route", "version=v2:30", "--route", "version=v3:10"];
    let abort = ["--abort", "503:25"];
    for what in ["50-v3", "90-10", "80-20", "v2-v3", "three"] {
        mesh.without_rules();
        if what == "three" {
            let _ = mesh.meshctl(&[&three[..], &shares, &abort].concat()).ok();
        } else {
            files(mesh, "apply", &[&format!("route-rule-reviews-{what}.yaml")]);
        }
        let asked = Asked::get("reviews:9080", "/reviews/0", &[]);
        let proxy = PAGE.proxy(mesh);
        let http = proxy.http(PAGE.listener, destination(mesh, PAGE, &asked));
        let mut dice = dice(what.len() as u64);
        let mut offline: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..MANY {
            *offline.entry(word(&proxy.decide(http, &asked, &mut dice))).or_default() += 1;
        }
        let id = format!("many-{what}");
        let header = format!("x-request-id: {id}");
        let url = format!("http://reviews:9080/reviews/0?n=[1-{MANY}]");
        let _ = mesh.exec(PAGE.pod, &["curl", "-s", "-S", "-o", "/dev/null", "-H", &header, &url]).ok();
        let mut wire: BTreeMap<String, usize> = BTreeMap::new();
        for line in PAGE.log(mesh, &id, MANY) {
            let word = if line.code == "fault_abort" { line.status.to_string() } else { line.cluster };
            *wire.entry(word).or_default() += 1;
        }
        assert!(are_alike(&offline, &wire), "{what}: offline {offline:?}, on the wire {wire:?}");
        println!("  {what}: offline {offline:?}, on the wire {wire:?}");
    }
}

fn word(decided: &Decided) -> String {
    match &decided.what {
        What::Forward(cluster, _) => cluster.clone(),
        What::Abort(status) => status.to_string(),
        other => format!("{other:?}"),
    }
}
