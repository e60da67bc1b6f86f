//! What a decision costs, by the size of the table; and what new endpoints cost, by the number of clusters.

use bytes::Bytes;
use divan::{Bencher, black_box};
use engine::Kind;
use engine::compile::Compiler;
use engine::decide::decide;
use engine::path::canonical_path;
use engine::proto::route::{self as pb, route_match::PathSpecifier};
use engine::request::Simple;
use engine::tables::{Filter, Http, PathPolicy, Tables};
use engine::text::read_static;
use engine::trace::NoTrace;
use prost::Message;

fn main() {
    divan::main();
}

const LISTENER: &str = r#"
static_resources:
  listeners:
  - name: l
    address: { socket_address: { address: 127.0.0.1, port_value: 1 } }
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          rds: { config_source: { ads: {}, resource_api_version: V3 }, route_config_name: t }
          http_filters:
          - name: r
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: up
"#;

/// A compiler with the listener `l` and a route table `t` of `count` exact paths, then everything to `up`.
fn compiler(count: usize) -> Compiler {
    let mut compiler = Compiler::new();
    for resource in read_static(LISTENER).expect("a configuration") {
        compiler.update(resource.kind, &resource.name, "1", &resource.body).expect(&resource.name);
    }
    let route = |path| pb::Route {
        r#match: Some(pb::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(pb::route::Action::Route(pb::RouteAction {
            cluster_specifier: Some(pb::route_action::ClusterSpecifier::Cluster("up".to_owned())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut routes: Vec<_> = (0..count).map(|nth| route(PathSpecifier::Path(format!("/p/{nth}")))).collect();
    routes.push(route(PathSpecifier::Prefix("/".to_owned())));
    let host = pb::VirtualHost { name: "v".to_owned(), domains: vec!["*".to_owned()], routes, ..Default::default() };
    let table = pb::RouteConfiguration { name: "t".to_owned(), virtual_hosts: vec![host], ..Default::default() };
    compiler.update(Kind::Route, "t", "1", &table.encode_to_vec().into()).expect("a table");
    compiler
}

fn http(tables: &Tables) -> &Http {
    match &tables.listener("l").expect("it").chains[0].filter {
        Filter::Http(http) => http,
        Filter::Tcp(_) => unreachable!("the listener speaks HTTP"),
    }
}

/// A request that no exact path is for.
#[divan::bench(args = [0, 10, 1_000, 10_000])]
fn decision(bencher: Bencher<'_, '_>, routes: usize) {
    let tables = compiler(routes).tables();
    let http = http(&tables);
    let request = Simple::get("reviews:9080", "/reviews/0?a=b");
    bencher.bench_local(|| decide(&tables, http, black_box(&request), &mut || 7u64, &mut NoTrace).route_name().len());
}

/// New endpoints for one cluster of many, with the tables before still in use.
#[divan::bench(args = [10, 10_000], sample_count = 20, sample_size = 50)]
fn new_endpoints(bencher: Bencher<'_, '_>, clusters: usize) {
    let mut compiler = compiler(0);
    for nth in 0..clusters {
        let name = format!("c{nth}");
        compiler.update(Kind::Cluster, &name, "1", &by_discovery(&name)).expect(&name);
        compiler.update(Kind::Endpoints, &name, "1", &assignment(&name, 0, 0)).expect(&name);
    }
    let one = assignment("c3", 0, 0);
    bencher.bench_local(|| {
        let before = compiler.tables();
        compiler.update(Kind::Endpoints, "c3", "2", &one).expect("endpoints");
        (before, compiler.tables())
    });
}

/// One endpoint of ten thousand in the mesh is another: each cluster has so many of them, and the tables before are still
/// in use.
#[divan::bench(args = [10, 100, 10_000], sample_count = 20, sample_size = 20)]
fn one_endpoint_of_ten_thousand(bencher: Bencher<'_, '_>, of_each: u32) {
    let mut compiler = compiler(0);
    for nth in 0..10_000 / of_each {
        let name = format!("c{nth}");
        compiler.update(Kind::Cluster, &name, "1", &by_discovery(&name)).expect(&name);
        compiler.update(Kind::Endpoints, &name, "1", &assignment(&name, of_each, 0)).expect(&name);
    }
    let bodies = [assignment("c0", of_each, 1), assignment("c0", of_each, 0)];
    let mut turn = 0;
    bencher.bench_local(|| {
        let before = compiler.tables();
        turn = 1 - turn;
        compiler.update(Kind::Endpoints, "c0", "2", &bodies[turn]).expect("endpoints");
        (before, compiler.tables())
    });
}

/// A cluster whose endpoints come by themselves.
fn by_discovery(name: &str) -> Bytes {
    use engine::proto::{cluster, core};
    let ads = core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    };
    let message = cluster::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(3)),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(ads),
            service_name: String::new(),
        }),
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// So many endpoints, the first of which is at a port of its own.
fn assignment(cluster: &str, count: u32, port: u32) -> Bytes {
    use engine::proto::{core, endpoint};
    let at = |nth: u32| {
        let address = core::SocketAddress {
            address: std::net::Ipv4Addr::from(0x0a00_0000 + nth).to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
                9080 + if nth == 0 { port } else { 0 },
            )),
            ..Default::default()
        };
        let address = core::Address { address: Some(core::address::Address::SocketAddress(address)) };
        let endpoint = endpoint::Endpoint { address: Some(address), ..Default::default() };
        endpoint::LbEndpoint {
            host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        }
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: (0..count).map(at).collect(), ..Default::default() };
    let endpoints = if count == 0 { Vec::new() } else { vec![locality] };
    let message = endpoint::ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints, ..Default::default() };
    message.encode_to_vec().into()
}

#[divan::bench(args = ["/reviews/0?a=b", "/a/./b/../%63//d"])]
fn path(text: &str) -> usize {
    canonical_path(black_box(text), PathPolicy::default()).map_or(0, |path| path.len())
}
