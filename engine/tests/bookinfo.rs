//! Model → resources → tables → decision, for bookinfo with its classic rules.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use api::model::{Action as RuleAction, Condition, Model, Node, Protocol, Redirect, Rewrite, StringMatch, Subject};
use engine::Kind;
use engine::decide::{Decision, Outcome, Unrouted, decide};
use engine::generate;
use engine::request::{Request, Simple};
use engine::tables::Seen;
use engine::trace::{NoTrace, Recording, Step};
use support::*;

/// Decides one request from a workload to a service, and gives the cluster or what else comes of it.
fn ask(model: &Model, node: &Node, to: &str, request: &Simple, seed: u64) -> (String, String, Option<Duration>) {
    let tables = compiled(model, node).tables();
    let http = http_at(&tables, &model.services[&host(to)], 9080);
    let mut roll = dice(seed);
    let decision = decide(&tables, &http, request, &mut roll, &mut NoTrace);
    (decision.route_name().to_owned(), outcome(&decision, request), decision.delay.map(|delay| delay.wait))
}

fn outcome(decision: &Decision<'_>, request: &Simple) -> String {
    match &decision.outcome {
        Outcome::Forward(forward) => {
            let path = forward.path(&request.path);
            format!("{} {}{path}", forward.cluster.spec.name, forward.authority(request.authority()))
        }
        Outcome::Redirect(redirect) => format!("{} {}", redirect.status(), redirect.location(request)),
        Outcome::Direct(direct) => direct.status.to_string(),
        Outcome::Abort(abort) => format!("abort {}", abort.status),
        Outcome::Denied(why) => format!("{why:?}"),
        Outcome::Unrouted(why) => format!("{why:?}"),
        Outcome::NoCluster { name, status } => format!("no cluster {name} {status}"),
    }
}

fn jason(path: &str) -> Simple {
    Simple::get("reviews:9080", path).with_header("cookie", "session=1; x=y;user=jason")
}

#[test]
fn without_rules_requests_go_to_all_endpoints() {
    let model = bookinfo();
    let node = sidecar(&model, "productpage", "v1");
    let (route, to, delay) = ask(&model, &node, "reviews", &Simple::get("reviews:9080", "/reviews/0"), 1);
    assert_eq!(route, "default");
    assert_eq!(to, "outbound|9080||reviews.default.svc.cluster.local reviews:9080/reviews/0");
    assert_eq!(delay, None);
}

#[test]
fn a_rule_with_a_condition_goes_before_one_without() {
    let model = with_rules();
    let node = sidecar(&model, "productpage", "v1");
    let (route, to, _) = ask(&model, &node, "reviews", &jason("/reviews/0"), 1);
    assert_eq!(route, "route-rule/default/reviews-test-v2");
    assert!(to.starts_with("outbound|9080|version=v2|reviews"), "{to}");
}

#[test]
fn weights_are_shares_of_requests() {
    let model = with_rules();
    let node = sidecar(&model, "productpage", "v1");
    let tables = compiled(&model, &node).tables();
    let http = http_at(&tables, &model.services[&host("reviews")], 9080);
    let request = Simple::get("reviews:9080", "/reviews/0");
    let (mut counts, mut roll) = (BTreeMap::new(), dice(7));
    for _ in 0..10_000 {
        let decision = decide(&tables, &http, &request, &mut roll, &mut NoTrace);
        let Outcome::Forward(forward) = decision.outcome else { panic!("{decision:?}") };
        *counts.entry(forward.cluster.spec.name.to_string()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 2);
    assert!(counts.values().all(|count| (4800..5200).contains(count)), "{counts:?}");
}

#[test]
fn a_rule_with_a_source_is_for_that_source_alone() {
    let model = with_rules();
    let seven = Some(Duration::from_secs(7));
    for (version, expected) in [("v1", None), ("v2", seven), ("v3", None)] {
        let node = sidecar(&model, "reviews", version);
        assert_eq!(ask(&model, &node, "ratings", &jason("/ratings/0"), 1).2, expected, "from reviews {version}");
    }
    assert!(!generate::is_shared(
        &model,
        api::model::Role::Sidecar,
        Kind::Route,
        "ratings.default.svc.cluster.local:9080"
    ));
    assert!(generate::is_shared(
        &model,
        api::model::Role::Sidecar,
        Kind::Route,
        "reviews.default.svc.cluster.local:9080"
    ));
}

#[test]
fn rewrites_redirects_and_aborts_do_what_the_rule_says() {
    let uri = |value| Condition { on: Subject::Uri, value };
    let rewrite = |uri: Option<&str>, authority: Option<&str>| {
        let mut rule = rule("reviews-default", "reviews", 1, &[("v1", 100)]);
        if let RuleAction::Route { rewrite, .. } = &mut rule.action {
            *rewrite = Some(Rewrite { uri: uri.map(str::to_owned), authority: authority.map(str::to_owned) });
        }
        rule
    };
    let mut prefix = rewrite(Some("/new"), Some("other"));
    prefix.conditions.push(uri(StringMatch::Prefix("/old".to_owned())));
    let mut whole = rewrite(Some("/new"), None);
    whole.conditions.push(uri(StringMatch::Regex("/old/.*".to_owned())));
    let mut redirect = rule("reviews-default", "reviews", 1, &[]);
    redirect.action =
        RuleAction::Redirect(Redirect { uri: Some("/there".to_owned()), authority: Some("other.example".to_owned()) });
    let mut abort = rule("reviews-default", "reviews", 1, &[("v1", 100)]);
    abort.fault.abort = Some(api::model::Abort { percent: api::model::Percent { millionths: 1_000_000 }, status: 418 });
    let v1 = "outbound|9080|version=v1|reviews.default.svc.cluster.local";
    for (rule, expected) in [
        (prefix, format!("{v1} other/new/page?q=1")),
        (whole, format!("{v1} reviews:9080/new?q=1")),
        (rewrite(Some("/new"), None), format!("{v1} reviews:9080/new?q=1")),
        (redirect, "302 http://other.example/there?q=1".to_owned()),
        (abort, "abort 418".to_owned()),
    ] {
        let mut model = bookinfo();
        model.route_rules.insert(rule.key.clone(), Arc::new(rule));
        let node = sidecar(&model, "productpage", "v1");
        let request = Simple::get("reviews:9080", "/old/page?q=1");
        assert_eq!(ask(&model, &node, "reviews", &request, 1).1, expected);
    }
}

#[test]
fn the_gateway_routes_by_path_and_by_the_rules_of_the_service() {
    let mut model = with_rules();
    let mut rule = rule("productpage-old", "productpage", 5, &[("v9", 100)]);
    rule.conditions.push(Condition { on: Subject::Uri, value: StringMatch::Prefix("/static/old".to_owned()) });
    if let RuleAction::Route { rewrite, .. } = &mut rule.action {
        *rewrite = Some(Rewrite { uri: Some("/archive".to_owned()), authority: None });
    }
    model.route_rules.insert(rule.key.clone(), Arc::new(rule));
    let tables = compiled(&model, &gateway()).tables();
    let listener = tables.listener("http").unwrap();
    let engine::tables::Filter::Http(http) = &listener.chain(8080, None).unwrap().filter else { panic!("opaque") };
    assert!(http.is_edge && listener.bind);
    let v1 = "outbound|9080|version=v1|productpage.default.svc.cluster.local";
    for (path, expected) in [
        ("/productpage?u=1", format!("{v1} any.example:8080/productpage?u=1")),
        ("/productpage/", format!("{:?}", Unrouted::NoRoute)),
        ("/static/x.css", format!("{v1} any.example:8080/static/x.css")),
        ("/static/old/x.css", format!("{} any.example:8080/archive/x.css", v1.replace("v1", "v9"))),
        ("/api/v1/products/0", format!("{v1} any.example:8080/api/v1/products/0")),
        ("/api/v1/productsx", format!("{:?}", Unrouted::NoRoute)),
        ("/", format!("{:?}", Unrouted::NoRoute)),
    ] {
        let request = Simple::get("any.example:8080", path);
        let decision = decide(&tables, http, &request, &mut dice(1), &mut NoTrace);
        assert_eq!(outcome(&decision, &request), expected, "{path}");
    }
}

#[test]
fn a_trace_says_why_each_other_rule_lost() {
    let model = with_rules();
    let tables = compiled(&model, &sidecar(&model, "productpage", "v1")).tables();
    let http = http_at(&tables, &model.services[&host("reviews")], 9080);
    let mut trace = Recording::default();
    decide(&tables, &http, &Simple::get("reviews:9080", "/"), &mut dice(1), &mut trace);
    assert_eq!(
        trace.steps[1],
        Step::Lost {
            route: "route-rule/default/reviews-test-v2".to_owned(),
            origin: Some("reviews-test-v2.yaml:3".to_owned()),
            wants: "cookie regex `^(.*?;)?(user=jason)(;.*)?$`".to_owned(),
            has: "no such header".to_owned(),
        }
    );
    assert!(matches!(&trace.steps[2], Step::Won { route, .. } if route == "route-rule/default/reviews-default"));
    assert!(matches!(&trace.steps[3], Step::Cluster { weight: 50, total: 100, .. }));
}

#[test]
fn inbound_ports_go_to_the_application_and_others_pass() {
    let model = with_rules();
    let tables = compiled(&model, &sidecar(&model, "reviews", "v1")).tables();
    let listener = tables.listener("virtual_inbound").unwrap();
    assert!(listener.restores_original_dst && !listener.must_inspect(9080).http);
    let engine::tables::Filter::Http(http) = &listener.chain(9080, None).unwrap().filter else { panic!("opaque") };
    let decision = decide(&tables, http, &jason("/reviews/0"), &mut dice(1), &mut NoTrace);
    assert!(outcome(&decision, &jason("/")).starts_with("inbound|9080 "));
    let Outcome::Forward(forward) = decision.outcome else { panic!("{decision:?}") };
    assert_eq!(forward.timeout(), None);
    assert!(matches!(&listener.chain(22, None).unwrap().filter, engine::tables::Filter::Tcp(_)));
}

#[test]
fn versions_are_the_same_each_time_and_follow_the_content() {
    let model = with_rules();
    let node = sidecar(&model, "reviews", "v2");
    let versions = |model: &Model| -> BTreeMap<(Kind, String), String> {
        generate::everything(model, &node).into_iter().map(|r| ((r.kind, r.name), r.version)).collect()
    };
    let before = versions(&model);
    assert_eq!(before, versions(&with_rules()));
    let mut changed = model.clone();
    let rule = rule("reviews-default", "reviews", 1, &[("v1", 90), ("v3", 10)]);
    changed.route_rules.insert(rule.key.clone(), Arc::new(rule));
    let after = versions(&changed);
    let differing: Vec<_> =
        before.iter().filter(|(key, version)| after[*key] != **version).map(|(key, _)| key).collect();
    assert_eq!(differing, [&(Kind::Route, "reviews.default.svc.cluster.local:9080".to_owned())]);
    let touched = generate::affected(&model, &changed);
    assert_eq!(touched.routes.iter().collect::<Vec<_>>(), [&host("reviews")]);
    assert!(!touched.gateway && touched.listeners.is_empty());
}

#[test]
fn one_resource_by_name_is_the_one_of_the_whole() {
    let model = with_rules();
    for node in [sidecar(&model, "reviews", "v2"), gateway()] {
        for resource in generate::everything(&model, &node) {
            let alone = generate::resource(&model, &node, resource.kind, &resource.name);
            assert_eq!(alone.as_ref(), Some(&resource), "{}", resource.name);
        }
        assert_eq!(generate::resource(&model, &node, Kind::Cluster, "outbound|1||nowhere"), None);
    }
}

#[test]
fn listeners_and_clusters_say_which_routes_and_endpoints_they_want() {
    let model = with_rules();
    let compiler = compiled(&model, &sidecar(&model, "reviews", "v2"));
    let names = |kind| compiler.accepted(kind).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(compiler.wanted(Kind::Route).into_iter().collect::<Vec<_>>(), names(Kind::Route));
    assert_eq!(compiler.wanted(Kind::Endpoints).into_iter().collect::<Vec<_>>(), names(Kind::Endpoints));
}

#[test]
fn no_damaged_resource_makes_the_compiler_panic() {
    let model = with_rules();
    let node = sidecar(&model, "reviews", "v2");
    let mut refused = 0;
    for resource in generate::everything(&model, &node) {
        for at in (0..resource.body.len()).step_by(3) {
            let mut body = resource.body.to_vec();
            body[at] ^= 1 << (at % 8);
            refused += u32::from(engine::compile::check(resource.kind, &resource.name, &body).is_err());
            body.truncate(at);
            refused += u32::from(engine::compile::check(resource.kind, &resource.name, &body).is_err());
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_tls_port_goes_to_its_service_whatever_server_is_named() {
    let model = with_service(shop(Protocol::Https, IpAddr::from([10, 96, 0, 99])));
    let tables = compiled(&model, &sidecar(&model, "productpage", "v1")).tables();
    let listener = tables.listener("10.96.0.99_443").unwrap();
    assert!(listener.must_inspect(443).tls);
    for (server_name, expected) in [
        (Some("shop.default.svc.cluster.local"), "tls"),
        (Some("shop.default.svc"), "tls"),
        (Some("shop.default"), "tls"),
        (Some("shop"), "tls"),
        (Some("other.example"), "tcp"),
        (None, "tcp"),
    ] {
        let seen = Seen { port: 443, server_name, is_tls: true, protocols: &["h2"] };
        let chain = listener.chain_for(&seen).unwrap();
        assert_eq!(&*chain.name, expected, "{server_name:?}");
        let engine::tables::Filter::Tcp(tcp) = &chain.filter else { panic!("HTTP") };
        assert_eq!(tcp.clusters[0].name.as_str(), "outbound|443||shop.default.svc.cluster.local");
    }
}

#[test]
fn tls_at_the_gateway_goes_by_the_server_that_is_named_and_nowhere_without() {
    let before = with_service(shop(Protocol::Https, IpAddr::from([10, 96, 0, 99])));
    let model = with_passthrough(before.clone(), "b", &[("shop.example", "shop"), ("*.shop.example", "below")]);
    let model = with_passthrough(model, "c", &[("shop.example", "loser")]);
    let tables = compiled(&model, &gateway()).tables();
    let listener = tables.listener("https").unwrap();
    assert!(listener.must_inspect(8443).tls && !listener.continue_on_timeout);
    assert_eq!(listener.address, "0.0.0.0:8443".parse().unwrap());
    for (server_name, expected) in [
        (Some("shop.example"), Some("shop")),
        (Some("a.shop.example"), Some("below")),
        (Some("a.b.shop.example"), Some("below")),
        (Some("other.example"), None),
        (None, None),
    ] {
        let seen = Seen { port: 8443, server_name, is_tls: true, protocols: &["h2"] };
        let cluster = listener.chain_for(&seen).map(|chain| {
            let engine::tables::Filter::Tcp(tcp) = &chain.filter else { panic!("HTTP") };
            tcp.clusters[0].name.to_string()
        });
        assert_eq!(cluster, expected.map(|name| format!("outbound|443||{}", host(name))), "{server_name:?}");
    }
    assert!(listener.chain_for(&Seen { port: 8443, ..Seen::default() }).is_none(), "what is no TLS");
    // Where nothing passes through, nobody listens.
    assert!(compiled(&before, &gateway()).tables().listener("https").is_none());
    assert_eq!(generate::listener_names(&before, &gateway()), ["http"]);
    assert_eq!(generate::listener_names(&model, &gateway()), ["http", "https"]);
    assert!(generate::affected(&before, &model).gateway && generate::affected(&model, &before).gateway);
}

#[test]
fn endpoints_say_where_else_their_workloads_may_call_from() {
    let mut model = with_rules();
    let mut endpoint = model.endpoints[&host("ratings")][0].clone();
    let six: IpAddr = "fd00:10:244::7".parse().unwrap();
    Arc::make_mut(&mut endpoint.workload).addresses.push(six);
    model.endpoints.insert(host("ratings"), [endpoint].into());
    let tables = compiled(&model, &sidecar(&model, "reviews", "v2")).tables();
    let others = |name: &str| {
        let cluster = tables.cluster_named(&format!("outbound|9080||{}", host(name))).unwrap();
        cluster.endpoints.as_ref().unwrap().all()[0].others.to_vec()
    };
    assert_eq!((others("ratings"), others("details")), (vec![six], vec![]));
}

#[test]
fn connect_goes_to_the_service_itself_and_to_no_other_route() {
    let model = with_rules();
    let node = sidecar(&model, "reviews", "v1");
    let tables = compiled(&model, &node).tables();
    let connect = Simple::get("far.example:443", "").with_method("CONNECT");
    let http = http_at(&tables, &model.services[&host("reviews")], 9080);
    let decision = decide(&tables, &http, &connect, &mut dice(1), &mut NoTrace);
    assert_eq!(decision.route_name(), "connect");
    let Outcome::Forward(forward) = decision.outcome else { panic!("{decision:?}") };
    assert_eq!(forward.cluster.spec.name.as_str(), "outbound|9080||reviews.default.svc.cluster.local");
    assert!(http.upgrades.connect && http.upgrades.allows(b"WebSocket") && !http.upgrades.allows(b"h2c"));
    let inbound = tables.listener("virtual_inbound").unwrap();
    let engine::tables::Filter::Http(http) = &inbound.chain(9080, None).unwrap().filter else { panic!("opaque") };
    assert_eq!(decide(&tables, http, &connect, &mut dice(1), &mut NoTrace).route_name(), "connect");

    let tables = compiled(&model, &gateway()).tables();
    let listener = tables.listener("http").unwrap();
    let engine::tables::Filter::Http(http) = &listener.chain(8080, None).unwrap().filter else { panic!("opaque") };
    assert!(!http.upgrades.connect && http.upgrades.allows(b"websocket"));
    let decision = decide(&tables, http, &connect, &mut dice(1), &mut NoTrace);
    assert!(matches!(decision.outcome, Outcome::Unrouted(_)), "{decision:?}");
}

#[test]
fn proxies_listen_where_there_are_addresses_of_ipv6_and_only_there() {
    let before = with_rules();
    let address: IpAddr = "fd00:10:96::99".parse().unwrap();
    let after = with_service(shop(Protocol::Http, address));
    let additional = |model: &Model, node: &Node, name: &str| {
        compiled(model, node).tables().listener(name).unwrap().additional_addresses.clone()
    };
    let of_one = sidecar(&before, "reviews", "v1");
    let mut workload = (*of_one.workload).clone();
    workload.addresses.push(address);
    let of_both = Node { workload: Arc::new(workload), ..of_one.clone() };
    for (name, port) in [("virtual_outbound", 15001), ("virtual_inbound", 15006)] {
        assert_eq!(additional(&before, &of_one, name), []);
        assert_eq!(additional(&before, &of_both, name), [(Ipv6Addr::UNSPECIFIED, port).into()]);
    }
    assert_eq!(additional(&before, &gateway(), "http"), []);
    assert_eq!(additional(&after, &gateway(), "http"), [(Ipv6Addr::UNSPECIFIED, 8080).into()]);
    assert!(generate::affected(&before, &after).everything && generate::affected(&after, &before).everything);
    let node = sidecar(&after, "reviews", "v1");
    let tables = compiled(&after, &node).tables();
    let outbound = tables.listener("virtual_outbound").unwrap();
    assert_eq!(tables.hand_over(outbound, (address, 443).into()).name.as_str(), "fd00:10:96::99_443");
}
