use std::sync::atomic::Ordering;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::balance::{pick, pick_other};
use crate::tables::{Lb, Limits, RetryLimit};
use crate::text::from_json;

fn put(compiler: &mut Compiler, kind: Kind, value: &Value) -> Result<(), String> {
    let resource = from_json(kind, value, "here").expect("text of its type");
    compiler.update(kind, &resource.name, &resource.version, &resource.body).map_err(|refusal| refusal.to_string())
}

fn endpoint(port: u16, status: &str) -> Value {
    json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } } },
        "health_status": status,
    })
}

fn assignment(endpoints: &[Value]) -> Value {
    json!({ "cluster_name": "e", "endpoints": [{ "lb_endpoints": endpoints }] })
}

fn eds(name: &str) -> Value {
    json!({
        "name": name, "type": "EDS", "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" }, "service_name": "e" },
    })
}

fn route(route: &Value) -> Value {
    json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [route] }] })
}

#[test]
fn what_is_not_in_force_is_refused_by_the_name_of_the_field() {
    let anywhere = json!({ "prefix": "/" });
    let to = |more: Value| {
        let mut action = json!({ "cluster": "c" });
        action.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        route(&json!({ "match": anywhere, "route": action }))
    };
    for (kind, value, at, field) in [
        (Kind::Cluster, json!({ "name": "a", "type": "STRICT_DNS" }), "", "type: STRICT_DNS"),
        (Kind::Cluster, json!({ "name": "a", "outlier_detection": {} }), "outlier_detection", "enforcing_success_rate"),
        (Kind::Cluster, json!({ "name": "a", "lb_policy": "MAGLEV" }), "", "lb_policy: MAGLEV"),
        (
            Kind::Cluster,
            json!({ "name": "a", "circuit_breakers": { "thresholds": [{ "priority": "HIGH" }] } }),
            "circuit_breakers.thresholds[0]",
            "priority",
        ),
        (
            Kind::Route,
            to(json!({ "retry_policy": { "retry_on": "5xx,cancelled" } })),
            "virtual_hosts[0].routes[0].route.retry_policy",
            "retry_on: cancelled",
        ),
        (
            Kind::Route,
            to(json!({ "retry_policy": { "retry_on": "5xx", "per_try_idle_timeout": "1s" } })),
            "virtual_hosts[0].routes[0].route.retry_policy",
            "per_try_idle_timeout",
        ),
        (Kind::Route, to(json!({ "priority": "HIGH" })), "virtual_hosts[0].routes[0].route", "priority"),
        (
            Kind::Route,
            route(
                &json!({ "match": { "prefix": "/", "query_parameters": [{ "name": "x" }] }, "route": { "cluster": "c" } }),
            ),
            "virtual_hosts[0].routes[0].match",
            "query_parameters",
        ),
        (
            Kind::Route,
            json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "require_tls": "ALL" }] }),
            "virtual_hosts[0]",
            "require_tls",
        ),
        (Kind::Endpoints, json!({ "cluster_name": "e", "endpoints": [{ "priority": 1 }] }), "endpoints[0]", "priority"),
        (Kind::Listener, json!({ "name": "l", "address": { "pipe": { "path": "/x" } } }), "address", "pipe"),
    ] {
        let resource = from_json(kind, &value, "here").expect("text of its type");
        let refusal = check(kind, &resource.name, &resource.body).expect_err(field);
        assert_eq!((refusal.path().as_str(), &refusal.why), (at, &Why::NotInForce(field.to_owned())), "{refusal}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let weights = |a: u32, b: u32| {
        let clusters = json!([{ "name": "a", "weight": a }, { "name": "b", "weight": b }]);
        route(&json!({ "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": clusters } } }))
    };
    let regex = route(&json!({ "match": { "safe_regex": { "regex": "(" } }, "route": { "cluster": "c" } }));
    let clash = json!({ "name": "r", "virtual_hosts": [
        { "name": "v", "domains": ["A.example"] }, { "name": "w", "domains": ["a.Example"] },
    ] });
    for (kind, value, expected) in [
        (Kind::Route, weights(0, 0), "add up to 0"),
        (Kind::Route, weights(u32::MAX, 1), "too much"),
        (Kind::Route, regex, "not a regex that can be used"),
        (Kind::Route, clash, "claimed twice"),
        (Kind::Route, route(&json!({ "match": { "prefix": "/" } })), "has no action"),
        (Kind::Cluster, json!({ "name": "a", "type": "ORIGINAL_DST" }), "CLUSTER_PROVIDED"),
        (Kind::Cluster, json!({ "name": "a", "connect_timeout": "-1s" }), "negative"),
        (Kind::Listener, json!({ "name": "l" }), "the address is missing"),
        (
            Kind::Listener,
            json!({ "name": "l", "address": { "socket_address": { "address": "localhost", "port_value": 1 } } }),
            "not an IP address",
        ),
    ] {
        let error = put(&mut Compiler::new(), kind, &value).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_refused_resource_leaves_the_old_one_in_force() {
    let mut compiler = Compiler::new();
    let good = route(&json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" } }));
    put(&mut compiler, Kind::Route, &good).expect("a good one");
    let before = compiler.accepted(Kind::Route).next().expect("it").1.clone();
    let bad = route(&json!({ "match": { "prefix": "/" }, "route": { "cluster": "c", "hash_policy": [{}] } }));
    put(&mut compiler, Kind::Route, &bad).expect_err("a bad one");
    assert_eq!(compiler.rejected().map(|(kind, name, _)| (kind, name)).collect::<Vec<_>>(), [(Kind::Route, "r")]);
    assert_eq!(compiler.accepted(Kind::Route).next().expect("still").1, &before);
    assert_eq!(compiler.tables().route_tables().count(), 1);
    put(&mut compiler, Kind::Route, &good).expect("a good one again");
    assert_eq!(compiler.rejected().count(), 0);
    assert!(compiler.remove(Kind::Route, "r") && !compiler.remove(Kind::Route, "r"));
    assert_eq!(compiler.tables().route_tables().count(), 0);
}

#[test]
fn fields_that_the_schema_does_not_have_are_refused() {
    let mut body = crate::proto::cluster::Cluster { name: "a".to_owned(), ..Default::default() }.encode_to_vec();
    assert_eq!(check(Kind::Cluster, "a", &body), Ok(()));
    prost::encoding::string::encode(9999, &"x".to_owned(), &mut body);
    let refusal = check(Kind::Cluster, "a", &body).expect_err("an unknown field");
    assert!(matches!(refusal.why, Why::UnknownFields { unread: 5.., .. }), "{refusal}");
    assert!(check(Kind::Cluster, "b", &crate::proto::cluster::Cluster::default().encode_to_vec()).is_err());
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let mut compiler = Compiler::new();
    let listener = |name: &str, port: u16| {
        json!({
            "name": name, "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "t", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "t", "cluster": "c",
            } }] }],
        })
    };
    put(&mut compiler, Kind::Listener, &listener("a", 1)).expect("the first");
    put(&mut compiler, Kind::Listener, &listener("b", 1)).expect_err("the second");
    put(&mut compiler, Kind::Listener, &listener("a", 2)).expect("the first elsewhere");
    put(&mut compiler, Kind::Listener, &listener("b", 1)).expect("the second after it");
    assert_eq!(bound_addresses(&compiler.tables()).len(), 2);
}

#[test]
fn endpoints_keep_their_counters_and_find_their_clusters() {
    let mut compiler = Compiler::new();
    put(&mut compiler, Kind::Endpoints, &assignment(&[endpoint(1, "UNKNOWN")])).expect("endpoints first");
    put(&mut compiler, Kind::Cluster, &eds("c")).expect("a cluster");
    put(&mut compiler, Kind::Cluster, &eds("d")).expect("another");
    let before = compiler.tables();
    let of =
        |tables: &Tables, name: &str| tables.cluster_named(name).expect("it").endpoints.clone().expect("endpoints");
    of(&before, "c").all()[0].load.in_flight.store(7, Ordering::Relaxed);
    put(
        &mut compiler,
        Kind::Endpoints,
        &assignment(&[endpoint(2, "HEALTHY"), endpoint(1, "DRAINING"), endpoint(2, "UNKNOWN")]),
    )
    .expect("more endpoints");
    let after = compiler.tables();
    for name in ["c", "d"] {
        let endpoints = of(&after, name);
        assert_eq!(endpoints.all().len(), 2, "an address counts once");
        assert_eq!(endpoints.all()[1].load.in_flight(), 7);
        assert_eq!(endpoints.candidates().len(), 1, "one of them drains");
    }
    assert_eq!(of(&before, "c").all().len(), 1, "what was handed out does not change");
    assert_eq!(compiler.wanted(Kind::Endpoints).into_iter().collect::<Vec<_>>(), ["e"]);
    compiler.remove(Kind::Cluster, "c");
    compiler.remove(Kind::Cluster, "d");
    assert!(compiler.wanted(Kind::Endpoints).is_empty());
}

#[test]
fn endpoints_are_picked_by_policy() {
    let mut compiler = Compiler::new();
    put(&mut compiler, Kind::Cluster, &eds("c")).expect("a cluster");
    let three = [endpoint(1, "UNKNOWN"), endpoint(2, "UNKNOWN"), endpoint(3, "DRAINING"), endpoint(4, "UNKNOWN")];
    put(&mut compiler, Kind::Endpoints, &assignment(&three)).expect("endpoints");
    let tables = compiler.tables();
    let endpoints = tables.cluster_named("c").and_then(|c| c.endpoints.clone()).expect("endpoints");
    let mut state = 1u64;
    let mut dice = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    };
    let mut ports =
        |lb| -> Vec<u16> { (0..3000).map(|_| pick(&endpoints, lb, &mut dice).expect("one").address.port()).collect() };
    assert_eq!(ports(Lb::RoundRobin)[..4], [1, 2, 4, 1]);
    for lb in [Lb::Random, Lb::LeastRequest] {
        for port in [1, 2, 4] {
            let share = ports(lb).iter().filter(|picked| **picked == port).count();
            assert!((850..1150).contains(&share), "{share} of 3000 to {port} by {lb:?}");
        }
    }
    endpoints.all()[0].load.in_flight.store(9, Ordering::Relaxed);
    let busy = ports(Lb::LeastRequest).iter().filter(|picked| **picked == 1).count();
    assert_eq!(busy, 0, "the busiest of three never wins a draw of two");
    put(&mut compiler, Kind::Endpoints, &assignment(&[endpoint(3, "DRAINING")])).expect("endpoints");
    let last = compiler.tables().cluster_named("c").and_then(|c| c.endpoints.clone()).expect("endpoints");
    assert_eq!(pick(&last, Lb::Random, &mut || 0u64).expect("one").address.port(), 3, "better than none");
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in any_kind(), bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = check(kind, "n", &bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let resource = from_json(Kind::Cluster, &eds("c"), "here").expect("a cluster");
        let mut body = resource.body.to_vec();
        *at.get_mut(&mut body) = to;
        let _ = check(Kind::Cluster, "c", &body);
        body.truncate(cut.index(body.len()));
        let _ = check(Kind::Cluster, "c", &body);
    }
}

#[test]
fn a_retry_policy_is_compiled_with_its_defaults() {
    let mut compiler = Compiler::new();
    let mut retry = |policy: Value| {
        let value = route(&json!({ "match": { "prefix": "/" }, "route": { "cluster": "c", "retry_policy": policy } }));
        put(&mut compiler, Kind::Route, &value).expect("understood");
        let tables = compiler.tables();
        let table = Arc::clone(tables.routes.get_str("r").expect("there"));
        match &table.virtual_hosts[0].routes[0].action {
            crate::tables::Action::Forward(forward) => format!("{:?}", forward.retry),
            other => panic!("{other:?}"),
        }
    };
    let full = retry(json!({
        "retry_on": "5xx, connect-failure,refused-stream", "num_retries": 3, "per_try_timeout": "0.5s",
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
        "host_selection_retry_max_attempts": "5",
        "retry_back_off": { "base_interval": "0.1s", "max_interval": "2s" },
    }));
    for part in ["server_errors: true", "attempts: 3", "Some(500ms)", "base: 100ms", "max: 2s", "avoids_tried: true"] {
        assert!(full.contains(part), "{part} in {full}");
    }
    let short = retry(json!({ "retry_on": "retriable-status-codes", "retriable_status_codes": [504, 404] }));
    for part in
        ["[404, 504]", "attempts: 1", "per_try_timeout: None", "base: 25ms", "max: 250ms", "avoids_tried: false"]
    {
        assert!(short.contains(part), "{part} in {short}");
    }
    assert_eq!(retry(json!({ "retry_on": "refused-stream" })), "None", "nothing that happens here is tried again");
    assert_eq!(retry(json!({ "retry_on": "5xx", "num_retries": 0 })), "None");
}

#[test]
fn ejections_grow_stay_within_their_share_and_are_skipped_by_the_balance_unless_most_are_ejected() {
    let mut compiler = Compiler::new();
    let endpoints: Vec<_> = (1..=4).map(|port| endpoint(port, "HEALTHY")).collect();
    let mut value = json!({ "name": "c", "load_assignment": assignment(&endpoints), "outlier_detection": {
        "consecutive_5xx": 2, "interval": "10s", "base_ejection_time": "30s", "max_ejection_percent": 75,
        "enforcing_success_rate": 0, "always_eject_one_host": true } });
    put(&mut compiler, Kind::Cluster, &value).expect("understood");
    let tables = compiler.tables();
    let cluster = tables.clusters.get_str("c").expect("there");
    let (outlier, endpoints) = (cluster.spec.outlier.expect("there"), cluster.endpoints.as_ref().expect("listed"));
    let fail = |nth: usize, now: u64| {
        let at = (&*endpoints.all()[nth], endpoints.all());
        endpoints.ejections.observe(&outlier, at, true, || now)
            | endpoints.ejections.observe(&outlier, at, true, || now)
    };
    let until = |nth: usize, now: u64| endpoints.all()[nth].load.health.ejected_until(now);
    let picked = |now: u64| {
        let mut dice = || 0u64;
        let picks = (0..4).map(|_| pick_other(endpoints, Lb::RoundRobin, &[], || now, &mut dice).expect("some"));
        picks.map(|endpoint| endpoint.address.port()).collect::<BTreeSet<_>>()
    };
    assert!(fail(0, 1000));
    assert_eq!((until(0, 1000), until(0, 31_000)), (Some(31_000), None));
    assert_eq!(picked(1000), [2, 3, 4].into());
    assert!(fail(1, 1000), "half of them");
    assert_eq!(picked(1000), [3, 4].into());
    assert!(fail(2, 1000), "three quarters");
    assert_eq!(picked(1000), [1, 2, 3, 4].into(), "a guess beats a refusal");
    assert!(!fail(3, 1000), "the last one stays, whatever it does");
    assert_eq!(picked(31_000), [1, 2, 3, 4].into());
    assert!(!endpoints.ejections.may_be(), "nobody asks for the time any more");

    assert!(fail(0, 32_000));
    assert_eq!(until(0, 32_000), Some(92_000), "the second time is twice as long");
    assert!(fail(0, 92_000 + 10_000));
    assert_eq!(until(0, 102_000), Some(162_000), "an interval in order makes it shorter again");
    assert_eq!(endpoints.ejections.total(), 5);

    let at = (&*endpoints.all()[1], endpoints.all());
    for is_error in [true, false, true, false, true] {
        assert!(!endpoints.ejections.observe(&outlier, at, is_error, || 200_000), "not in a row");
    }
    value["outlier_detection"]["max_ejection_percent"] = json!(1);
    put(&mut compiler, Kind::Cluster, &value).expect("understood");
    let tables = compiler.tables();
    let changed = tables.clusters.get_str("c").expect("there");
    let (outlier, endpoints) = (changed.spec.outlier.expect("there"), changed.endpoints.as_ref().expect("listed"));
    let at = |nth: usize| (&*endpoints.all()[nth], endpoints.all());
    assert!(
        endpoints.ejections.observe(&outlier, at(1), true, || 200_000),
        "counted on over the update; one always may"
    );
    let mut twice = (0..2).map(|_| endpoints.ejections.observe(&outlier, at(2), true, || 200_000));
    assert!(!twice.any(|ejected| ejected));
}

#[test]
fn the_limits_of_a_cluster_are_compiled_and_its_counters_survive_an_update() {
    let mut compiler = Compiler::new();
    let mut value = json!({ "name": "c", "circuit_breakers": { "thresholds": [{
        "max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4 }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": { "max_requests_per_connection": 5 },
            "explicit_http_config": { "http_protocol_options": {} } } } });
    put(&mut compiler, Kind::Cluster, &value).expect("understood");
    let tables = compiler.tables();
    let cluster = tables.clusters.get_str("c").expect("there");
    let expected = Limits { connections: 1, pending: 2, requests: 3, retries: RetryLimit::AtMost(4) };
    assert_eq!((cluster.spec.limits, cluster.spec.requests_per_connection.map(|most| most.get())), (expected, Some(5)));
    cluster.usage.requests.fetch_add(7, Ordering::Relaxed);
    value["circuit_breakers"]["thresholds"][0] = json!({ "retry_budget": { "budget_percent": { "value": 12.5 } } });
    put(&mut compiler, Kind::Cluster, &value).expect("understood");
    let tables = compiler.tables();
    let cluster = tables.clusters.get_str("c").expect("there");
    assert_eq!(cluster.spec.limits.retries, RetryLimit::Share { per_myriad: 1250, at_least: 3 });
    assert_eq!(cluster.usage.requests.load(Ordering::Relaxed), 7);
}
