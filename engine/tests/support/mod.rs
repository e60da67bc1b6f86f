//! A model of bookinfo, as discovery and the classic rules would make it.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod envoy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use api::model::*;
use api::problem::Location;
use engine::compile::Compiler;
use engine::generate;
use engine::tables::{Filter, Http, Tables};

pub(crate) const VERSIONS: [(&str, &[&str]); 4] =
    [("details", &["v1"]), ("productpage", &["v1"]), ("ratings", &["v1"]), ("reviews", &["v1", "v2", "v3"])];

pub(crate) fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

pub(crate) fn host(name: &str) -> Host {
    Host::of_service(name, "default", "cluster.local")
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn key(name: &str) -> Key {
    Key { namespace: "default".to_owned(), name: name.to_owned() }
}

pub(crate) fn workload(app: &str, version: &str, address: IpAddr) -> Arc<Workload> {
    Arc::new(Workload {
        key: key(&format!("{app}-{version}-abc12-xyz")),
        owner: format!("{app}-{version}"),
        addresses: vec![address],
        labels: labels(&[("app", app), ("version", version)]),
        service_account: format!("bookinfo-{app}"),
        ports: vec![port(9080)],
        has_sidecar: true,
        takes_tls: true,
    })
}

fn service(name: &str, address: [u8; 4], ports: &[(&str, u16, Protocol)]) -> Service {
    Service {
        host: host(name),
        key: key(name),
        addresses: vec![Ipv4Addr::from(address).into()],
        ports: ports
            .iter()
            .map(|(name, number, protocol)| Port {
                name: (*name).to_owned(),
                number: port(*number),
                protocol: *protocol,
                mtls: None,
            })
            .collect(),
        resolution: Resolution::Virtual,
    }
}

/// Services, endpoints and an Ingress; no rules.
pub(crate) fn bookinfo() -> Model {
    let mut model = Model::default();
    let mut last = 0;
    for (nth, (app, versions)) in VERSIONS.iter().enumerate() {
        let of = service(app, [10, 96, 0, 20 + nth as u8], &[("http", 9080, Protocol::Http)]);
        let endpoints: Vec<_> = versions
            .iter()
            .map(|version| {
                last += 1;
                let address = IpAddr::from([10, 244, 0, last]);
                Endpoint {
                    address,
                    port: port(9080),
                    service_port: port(9080),
                    health: Health::Ready,
                    workload: workload(app, version, address),
                }
            })
            .collect();
        let account = Key { namespace: "default".to_owned(), name: format!("bookinfo-{app}") };
        model.accounts.insert(of.host.clone(), Arc::new([account].into()));
        model.endpoints.insert(of.host.clone(), endpoints.into());
        model.services.insert(of.host.clone(), Arc::new(of));
    }
    let mongo = service("mongodb", [10, 96, 0, 30], &[("mongo", 27017, Protocol::Tcp), ("", 8080, Protocol::Auto)]);
    model.services.insert(mongo.host.clone(), Arc::new(mongo));
    let paths = [
        IngressPath::Exact("/productpage".to_owned()),
        IngressPath::Elements("/api/v1/products".to_owned()),
        IngressPath::Text("/static".to_owned()),
    ];
    let rules = paths.map(|path| IngressRule { host: None, path, service: host("productpage"), port: port(9080) });
    let ingress =
        Ingress { key: key("gateway"), origin: Origin::default(), rules: rules.to_vec(), passthrough: Vec::new() };
    model.ingresses.insert(key("gateway"), Arc::new(ingress));
    model
}

/// A rule that sends everything to one version.
pub(crate) fn rule(name: &str, destination: &str, precedence: i32, versions: &[(&str, u32)]) -> RouteRule {
    RouteRule {
        key: key(name),
        origin: Origin {
            resource_version: "1".to_owned(),
            location: Some(Location { file: format!("{name}.yaml"), line: 3, column: 1 }),
        },
        destination: host(destination),
        precedence,
        source: None,
        conditions: Vec::new(),
        action: Action::Route {
            to: versions
                .iter()
                .map(|(version, weight)| Target {
                    host: host(destination),
                    labels: labels(&[("version", version)]),
                    weight: *weight,
                })
                .collect(),
            rewrite: None,
        },
        fault: Fault::default(),
        timeout: None,
        retries: None,
    }
}

pub(crate) fn cookie_of_jason() -> Condition {
    Condition {
        on: Subject::Header("cookie".to_owned()),
        value: StringMatch::Regex("^(.*?;)?(user=jason)(;.*)?$".to_owned()),
    }
}

/// Bookinfo with the classic rules: all to v1, Jason to reviews v2 and with slow ratings, half of the rest to v3.
pub(crate) fn with_rules() -> Model {
    let mut rules = vec![
        rule("details-default", "details", 1, &[("v1", 100)]),
        rule("productpage-default", "productpage", 1, &[("v1", 100)]),
        rule("ratings-default", "ratings", 1, &[("v1", 100)]),
        rule("reviews-default", "reviews", 1, &[("v1", 50), ("v3", 50)]),
    ];
    let mut jason = rule("reviews-test-v2", "reviews", 2, &[("v2", 100)]);
    jason.conditions.push(cookie_of_jason());
    rules.push(jason);
    let mut slow = rule("ratings-test-delay", "ratings", 2, &[("v1", 100)]);
    slow.conditions.push(cookie_of_jason());
    slow.source = Some(Source { service: Some(host("reviews")), labels: labels(&[("version", "v2")]) });
    slow.fault.delay = Some(Delay { percent: Percent { millionths: 1_000_000 }, fixed: Duration::from_secs(7) });
    rules.push(slow);
    let mut model = bookinfo();
    for rule in rules {
        model.route_rules.insert(rule.key.clone(), Arc::new(rule));
    }
    let policy = DestinationPolicy {
        key: key("reviews-random"),
        origin: Origin::default(),
        destination: host("reviews"),
        labels: Labels::new(),
        source: None,
        balancing: Balancing::Random,
        breaker: Some(CircuitBreaker {
            connections: NonZeroU32::new(100),
            pending: NonZeroU32::new(10).unwrap(),
            requests: NonZeroU32::new(1024).unwrap(),
            retries: None,
            requests_per_connection: NonZeroU32::new(1000),
        }),
        outlier: Some(Outlier {
            consecutive_errors: NonZeroU32::new(5).unwrap(),
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_percent: 50,
        }),
    };
    model.destination_policies.insert(policy.key.clone(), Arc::new(policy));
    model
}

/// The proxy of one workload.
pub(crate) fn sidecar(model: &Model, app: &str, version: &str) -> Node {
    let endpoints = &model.endpoints[&host(app)];
    let endpoint = endpoints.iter().find(|endpoint| endpoint.workload.labels["version"] == version).unwrap();
    Node { role: Role::Sidecar, workload: Arc::clone(&endpoint.workload), services: vec![host(app)], tls: MeshTls::Own }
}

/// The ingress gateway.
pub(crate) fn gateway() -> Node {
    let workload = Workload {
        key: Key { namespace: "mesh-system".to_owned(), name: "mesh-ingressgateway-abc12-xyz".to_owned() },
        owner: "mesh-ingressgateway".to_owned(),
        addresses: vec![IpAddr::from([10, 244, 0, 99])],
        labels: labels(&[("app", "mesh-ingressgateway")]),
        service_account: "mesh-ingressgateway".to_owned(),
        ports: Vec::new(),
        has_sidecar: false,
        takes_tls: false,
    };
    Node { role: Role::Gateway, workload: Arc::new(workload), services: Vec::new(), tls: MeshTls::Own }
}

/// Everything that a node gets, compiled; panics with the name of what is refused.
pub(crate) fn compiled(model: &Model, node: &Node) -> Compiler {
    let mut compiler = Compiler::new();
    for resource in generate::everything(model, node) {
        if let Err(why) = compiler.update(resource.kind, &resource.name, &resource.version, &resource.body) {
            panic!("{:?} {}: {why}", resource.kind, resource.name);
        }
    }
    compiler
}

/// How HTTP is served for connections that were going to a service.
pub(crate) fn http_at(tables: &Tables, service: &Service, port: u16) -> Arc<Http> {
    let accepted = tables.listener("virtual_outbound").unwrap();
    let listener = tables.hand_over(accepted, SocketAddr::new(service.addresses[0], port));
    match &listener.chain(port, Some("http/1.1")).unwrap().filter {
        Filter::Http(http) => Arc::clone(http),
        Filter::Tcp(_) => panic!("{} is opaque", service.host),
    }
}

/// A sequence of numbers that looks random and is the same each time.
pub(crate) fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Rules that together use everything that a rule can say.
pub(crate) fn every_kind_of_rule() -> Vec<RouteRule> {
    let on = |on, value| Condition { on, value };
    let rewritten = |mut rule: RouteRule, uri: Option<&str>, authority: Option<&str>| {
        if let Action::Route { rewrite, .. } = &mut rule.action {
            *rewrite = Some(Rewrite { uri: uri.map(str::to_owned), authority: authority.map(str::to_owned) });
        }
        rule
    };
    let v1 = |name: &str| rule(name, "productpage", 0, &[("v1", 100)]);
    let mut exact = rewritten(v1("exact"), Some("/new"), Some("other"));
    exact.conditions.push(on(Subject::Uri, StringMatch::Exact("/old".to_owned())));
    let mut prefix = rewritten(v1("prefix"), Some("/new"), None);
    prefix.conditions.push(on(Subject::Uri, StringMatch::Prefix("/old/".to_owned())));
    let mut regex = rewritten(v1("regex"), Some(r"/new\1"), None);
    regex.conditions.push(on(Subject::Uri, StringMatch::Regex("/old.*[?]x=1".to_owned())));
    let mut headers = v1("headers");
    headers.conditions = vec![
        on(Subject::Method, StringMatch::Exact("POST".to_owned())),
        on(Subject::Scheme, StringMatch::Exact("http".to_owned())),
        on(Subject::Authority, StringMatch::Prefix("product".to_owned())),
        on(Subject::Header("x-user".to_owned()), StringMatch::Prefix("ja".to_owned())),
        cookie_of_jason(),
    ];
    headers.timeout = Some(Duration::from_millis(1500));
    headers.retries =
        Some(Retries { attempts: NonZeroU32::new(3).unwrap(), per_try_timeout: Some(Duration::from_millis(500)) });
    let share = |percent: u32| Percent { millionths: percent * 10_000 };
    headers.fault = Fault {
        delay: Some(Delay { percent: share(50), fixed: Duration::from_secs(2) }),
        abort: Some(Abort { percent: share(10), status: 503 }),
    };
    let mut redirect = v1("redirect");
    redirect.conditions.push(on(Subject::Uri, StringMatch::Exact("/moved".to_owned())));
    redirect.action =
        Action::Redirect(Redirect { uri: Some("/there".to_owned()), authority: Some("other.example".to_owned()) });
    vec![exact, prefix, regex, headers, redirect]
}

/// Bookinfo with these objects of who may call what, which must all be accepted.
pub(crate) fn model_with(text: &str) -> Model {
    use api::registry::{Registry, Resource};
    let (objects, problems) = api::object::validate_text("test.yaml", text);
    assert!(!problems.iter().any(api::problem::Problem::is_error), "{problems:#?}");
    let mut registry = Registry::new(Mesh::default());
    for object in objects {
        let resource = Resource::of(&object.api_version, &object.kind).unwrap();
        let mut json = object.json.clone();
        json["metadata"].as_object_mut().unwrap().entry("namespace").or_insert("default".into());
        registry.apply(resource, &json);
    }
    let mut model = bookinfo();
    model.access = registry.model().access.clone();
    model
}

/// Files of the samples, as one text.
pub(crate) fn samples(names: &[&str]) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    let read = |name: &&str| std::fs::read_to_string(folder.join(name)).unwrap();
    names.iter().map(read).collect::<Vec<_>>().join("\n---\n")
}

/// Everything that the samples say of who may call what.
pub(crate) const ACCESS: [&str; 7] = [
    "bookinfo/rbac-enable.yaml",
    "bookinfo/rbac-namespace.yaml",
    "bookinfo/rbac-productpage.yaml",
    "bookinfo/rbac-ratings.yaml",
    "auth/strict.yaml",
    "auth/jwt.yaml",
    "auth/rbac-readers.yaml",
];

/// The model with an Ingress that passes TLS for these servers through to ports 443 of these services.
pub(crate) fn with_passthrough(mut model: Model, name: &str, servers: &[(&str, &str)]) -> Model {
    let of = |(server, service): &(&str, &str)| Passthrough {
        server_name: (*server).to_owned(),
        service: host(service),
        port: port(443),
    };
    let passthrough = servers.iter().map(of).collect();
    let ingress = Ingress { key: key(name), origin: Origin::default(), rules: Vec::new(), passthrough };
    model.ingresses.insert(key(name), Arc::new(ingress));
    model
}

/// Bookinfo with another service.
pub(crate) fn with_service(service: Service) -> Model {
    let mut model = with_rules();
    model.services.insert(service.host.clone(), Arc::new(service));
    model
}

/// A service of another port.
pub(crate) fn shop(protocol: Protocol, address: IpAddr) -> Service {
    Service {
        host: host("shop"),
        key: key("shop"),
        addresses: vec![address],
        ports: vec![Port { name: "port".to_owned(), number: port(443), protocol, mtls: None }],
        resolution: Resolution::Virtual,
    }
}
