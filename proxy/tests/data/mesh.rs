//! What the tests stand on: a data path with listeners, an upstream server and a client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::compile::Compiler;
use engine::proto::{
    Kind, cluster, core, endpoint, extension, fault, hcm, http_inspector, listener, protobuf, route, router, tcp_proxy,
    tls_inspector,
};
use mesh_proxy::{DataPath, Edge, Settings};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use prost::Message;
use runtime::{Drain, Tasks};
use tokio::net::TcpListener;

#[allow(dead_code, reason = "not every test speaks TLS")]
#[path = "mutual.rs"]
pub mod mutual;
#[path = "peer.rs"]
mod peer;

#[allow(unused_imports, reason = "not every test reads messages")]
pub use peer::{Frame, Message1, Peer, Upstream};

/// How long a test waits for a fact before it fails.
pub const SOON: Duration = Duration::from_secs(10);

/// A data path that serves listeners on loopback.
pub struct Mesh {
    pub path: Arc<DataPath>,
    pub drain: Drain,
    pub tasks: Tasks,
    tables: Arc<ArcSwap<engine::tables::Tables>>,
    compiler: Mutex<Compiler>,
}

impl Mesh {
    pub fn new() -> Self {
        Mesh::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let tables = Arc::new(ArcSwap::default());
        let (drain, tasks) = (Drain::new(), Tasks::new());
        let path = DataPath::new(Arc::clone(&tables), settings, drain.clone());
        tasks.spawn("sweep", {
            let (path, token) = (Arc::clone(&path), tasks.token().clone());
            async move {
                tokio::select! { () = path.sweep() => {}, () = token.cancelled() => {} }
            }
        });
        Mesh { path, drain, tasks, tables, compiler: Mutex::default() }
    }

    fn put(&self, kind: Kind, name: &str, message: &impl Message) {
        self.put_body(kind, name, message.encode_to_vec());
    }

    /// Puts an encoded resource in force.
    pub fn put_body(&self, kind: Kind, name: &str, body: Vec<u8>) {
        let mut compiler = self.compiler.lock().expect("unpoisoned");
        let put = compiler.update(kind, name, "1", &body.into());
        put.unwrap_or_else(|why| panic!("{name} is refused: {why}"));
        self.tables.store(Arc::new(compiler.tables()));
    }

    /// A cluster with these endpoints.
    pub fn cluster(&self, name: &str, endpoints: &[SocketAddr]) {
        self.cluster_with(name, endpoints, |_| {});
    }

    /// A cluster with these endpoints that is different in some way.
    pub fn cluster_with(&self, name: &str, endpoints: &[SocketAddr], change: impl FnOnce(&mut cluster::Cluster)) {
        let mut message = cluster(name, endpoints.iter().map(|address| lb_endpoint(*address)).collect());
        change(&mut message);
        self.put(Kind::Cluster, name, &message);
    }

    /// A cluster of endpoints that have proxies beside them.
    pub fn beside_proxies(&self, name: &str, addresses: &[SocketAddr]) {
        let metadata = || Some(metadata(&[("proxy", "h2")]));
        let endpoints = addresses
            .iter()
            .map(|address| endpoint::LbEndpoint { metadata: metadata(), ..lb_endpoint(*address) })
            .collect();
        self.put(Kind::Cluster, name, &cluster(name, endpoints));
    }

    /// A cluster whose endpoints are in these states.
    pub fn endpoints(&self, name: &str, endpoints: &[(SocketAddr, core::HealthStatus)]) {
        let endpoints = endpoints
            .iter()
            .map(|(address, health)| endpoint::LbEndpoint { health_status: (*health).into(), ..lb_endpoint(*address) })
            .collect();
        self.put(Kind::Cluster, name, &cluster(name, endpoints));
    }

    /// A cluster of a service whose endpoints say who they are.
    pub fn service(&self, name: &str, address: SocketAddr) {
        let mut endpoint = lb_endpoint(address);
        let who = [("workload", "reviews-v1"), ("namespace", "shop"), ("app", "reviews"), ("version", "v1")];
        endpoint.metadata = Some(metadata(&who));
        let service = [("host", "reviews.shop.svc.cluster.local"), ("name", "reviews"), ("namespace", "shop")];
        let message = cluster::Cluster { metadata: Some(metadata(&service)), ..cluster(name, vec![endpoint]) };
        self.put(Kind::Cluster, name, &message);
    }

    /// The metrics as a scraper reads them.
    pub fn metrics(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self.path.metrics())));
        registry.register_collector(Box::new(self.path.admissions()));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("encodes");
        out
    }

    /// A cluster that connects to where connections were going.
    pub fn original_destination(&self, name: &str) {
        let message = cluster::Cluster {
            name: name.to_owned(),
            connect_timeout: Some(seconds(1.0)),
            lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
                cluster::cluster::DiscoveryType::OriginalDst.into(),
            )),
            ..Default::default()
        };
        self.put(Kind::Cluster, name, &message);
    }

    /// A listener as compiled.
    pub fn listener(&self, name: &str) -> Arc<engine::tables::Listener> {
        Arc::clone(self.tables.load().listener(name).expect("the listener is there"))
    }

    /// Number of connections that are being served.
    pub fn connections(&self) -> usize {
        self.tasks.running().into_iter().find(|(name, _)| *name == "connection").map_or(0, |(_, count)| count)
    }

    /// Routes under a name, for `http`.
    pub fn routes(&self, name: &str, routes: Vec<route::Route>) {
        let message = route::RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts: vec![route::VirtualHost {
                name: "all".to_owned(),
                domains: vec!["*".to_owned()],
                routes,
                ..Default::default()
            }],
            ..Default::default()
        };
        self.put(Kind::Route, name, &message);
    }

    /// Serves HTTP on a port of its own by the routes under `name`.
    pub async fn http(&self, name: &str, edge: Edge) -> SocketAddr {
        self.http_with(name, edge, |_| {}).await
    }

    /// Serves HTTP in a way.
    pub async fn http_with(
        &self,
        name: &str,
        edge: Edge,
        change: impl FnOnce(&mut hcm::HttpConnectionManager),
    ) -> SocketAddr {
        let chain = chain(vec![], vec![manager_with(name, change)]);
        self.listen(
            edge,
            listener::Listener { name: name.to_owned(), filter_chains: vec![chain], ..Default::default() },
        )
        .await
    }

    /// Serves HTTP by routes, and what is not HTTP by a cluster, on one port.
    pub async fn auto(&self, name: &str, routes: &str, cluster: &str) -> SocketAddr {
        let http = ["http/1.0", "http/1.1"].map(str::to_owned).to_vec();
        let chains = vec![chain(http, vec![manager(routes)]), chain(vec![], vec![proxy(cluster)])];
        let message = listener::Listener {
            name: name.to_owned(),
            filter_chains: chains,
            listener_filters: vec![listener_filter(
                extension::HTTP_INSPECTOR,
                &http_inspector::HttpInspector::default(),
            )],
            listener_filters_timeout: Some(seconds(0.05)),
            continue_on_listener_filters_timeout: true,
            ..Default::default()
        };
        self.listen(Edge::Outbound, message).await
    }

    /// Passes bytes from a port of its own to a cluster.
    pub async fn tcp(&self, name: &str, cluster: &str) -> SocketAddr {
        let chain = chain(vec![], vec![proxy(cluster)]);
        let message = listener::Listener { name: name.to_owned(), filter_chains: vec![chain], ..Default::default() };
        self.listen(Edge::Outbound, message).await
    }

    /// Passes bytes by the server name of TLS, to a cluster for each list of names; the empty list is for the rest.
    pub async fn tls(&self, name: &str, clusters: &[(&[&str], &str)]) -> SocketAddr {
        let by_name = |(names, cluster): &(&[&str], &str)| {
            let server_names = names.iter().map(|name| (*name).to_owned()).collect();
            let matches = listener::FilterChainMatch { server_names, ..Default::default() };
            let matches = Some(matches).filter(|m| !m.server_names.is_empty());
            listener::FilterChain { filter_chain_match: matches, ..chain(vec![], vec![proxy(cluster)]) }
        };
        let message = listener::Listener {
            name: name.to_owned(),
            filter_chains: clusters.iter().map(by_name).collect(),
            listener_filters: vec![listener_filter(extension::TLS_INSPECTOR, &tls_inspector::TlsInspector::default())],
            listener_filters_timeout: Some(seconds(2.0)),
            continue_on_listener_filters_timeout: true,
            ..Default::default()
        };
        self.listen(Edge::Outbound, message).await
    }

    #[allow(dead_code, reason = "for the tests in a namespace")]
    /// Passes the bytes of redirected connections to where they were going, from these addresses.
    pub fn intercepting(&self, name: &str, cluster: &str, addresses: &[&str]) {
        let parsed = addresses.iter().map(|address| address.parse::<SocketAddr>().expect("an address"));
        let additional =
            |address| listener::AdditionalAddress { address: Some(socket_address(address)), ..Default::default() };
        let message = listener::Listener {
            name: name.to_owned(),
            address: parsed.clone().next().map(socket_address),
            additional_addresses: parsed.skip(1).map(additional).collect(),
            use_original_dst: Some(protobuf::BoolValue { value: true }),
            filter_chains: vec![chain(vec![], vec![proxy(cluster)])],
            ..Default::default()
        };
        self.put(Kind::Listener, name, &message);
        for address in [self.listener(name).address].iter().chain(&self.listener(name).additional_addresses) {
            let socket = mesh_proxy::sockets::bind(*address).expect("binds");
            let serving =
                Arc::clone(&self.path).serve_listener(name.to_owned(), Edge::Outbound, socket, self.tasks.clone());
            self.tasks.spawn("listener", async move { serving.await.expect("the listener serves") });
        }
    }

    async fn listen(&self, edge: Edge, mut message: listener::Listener) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        message.address = Some(socket_address(address));
        self.put(Kind::Listener, &message.name.clone(), &message);
        let serving = Arc::clone(&self.path).serve_listener(message.name, edge, socket, self.tasks.clone());
        self.tasks.spawn("listener", async move { serving.await.expect("the listener serves") });
        address
    }

    /// The usual: one upstream behind one catch-all route.
    pub async fn simple(upstream: SocketAddr) -> (Mesh, SocketAddr) {
        let mesh = Mesh::new();
        mesh.cluster("up", &[upstream]);
        mesh.routes("http", vec![forward("up")]);
        let address = mesh.http("http", Edge::Outbound).await;
        (mesh, address)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

fn chain(application_protocols: Vec<String>, filters: Vec<listener::Filter>) -> listener::FilterChain {
    let filter_chain_match = Some(listener::FilterChainMatch { application_protocols, ..Default::default() })
        .filter(|m| !m.application_protocols.is_empty());
    listener::FilterChain { filter_chain_match, filters, ..Default::default() }
}

/// Speaks HTTP by the routes under a name.
fn manager(routes: &str) -> listener::Filter {
    manager_with(routes, |_| {})
}

fn manager_with(routes: &str, change: impl FnOnce(&mut hcm::HttpConnectionManager)) -> listener::Filter {
    let mut manager = hcm::HttpConnectionManager {
        stat_prefix: routes.to_owned(),
        http_filters: vec![
            http_filter(extension::FAULT, &fault::HttpFault::default()),
            http_filter(extension::ROUTER, &router::Router::default()),
        ],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            route_config_name: routes.to_owned(),
            config_source: Some(ads()),
        })),
        normalize_path: Some(protobuf::BoolValue { value: true }),
        merge_slashes: true,
        ..Default::default()
    };
    change(&mut manager);
    network_filter(extension::HCM, &manager)
}

/// Passes bytes to a cluster.
fn proxy(cluster: &str) -> listener::Filter {
    let proxy = tcp_proxy::TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    network_filter(extension::TCP_PROXY, &proxy)
}

fn listener_filter((name, url): (&str, &str), message: &impl Message) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(url, message))),
        ..Default::default()
    }
}

fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    }
}

fn any(url: &str, message: &impl Message) -> protobuf::Any {
    protobuf::Any { type_url: url.to_owned(), value: message.encode_to_vec() }
}

fn http_filter((name, url): (&str, &str), message: &impl Message) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(url, message))),
        ..Default::default()
    }
}

fn network_filter((name, url): (&str, &str), message: &impl Message) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(url, message))),
    }
}

fn socket_address(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
            ..Default::default()
        })),
    }
}

fn cluster(name: &str, lb_endpoints: Vec<endpoint::LbEndpoint>) -> cluster::Cluster {
    let assignment = endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    };
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: Some(seconds(1.0)),
        load_assignment: Some(assignment),
        ..Default::default()
    }
}

fn lb_endpoint(address: SocketAddr) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(socket_address(address)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Metadata of the mesh's own.
pub fn metadata(fields: &[(&str, &str)]) -> core::Metadata {
    let value = |text: &str| protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(text.to_owned())) };
    let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
    core::Metadata {
        filter_metadata: HashMap::from([("mesh".to_owned(), protobuf::Struct { fields })]),
        ..Default::default()
    }
}

pub fn seconds(seconds: f64) -> protobuf::Duration {
    let duration = Duration::from_secs_f64(seconds);
    protobuf::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

/// A route for every path that does this.
pub fn route(action: route::route::Action) -> route::Route {
    route::Route {
        name: "all".to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    }
}

/// Forwards CONNECT to a cluster.
pub fn tunnel(cluster: &str) -> route::Route {
    let mut route = forward(cluster);
    if let Some(matches) = &mut route.r#match {
        let connect = route::route_match::ConnectMatcher {};
        matches.path_specifier = Some(route::route_match::PathSpecifier::ConnectMatcher(connect));
    }
    route
}

/// Lets clients switch to these protocols.
pub fn upgrades(protocols: &[&str]) -> impl FnOnce(&mut hcm::HttpConnectionManager) {
    let upgrade = |protocol: &&str| hcm::http_connection_manager::UpgradeConfig {
        upgrade_type: (*protocol).to_owned(),
        ..Default::default()
    };
    let configs = protocols.iter().map(upgrade).collect();
    move |manager| manager.upgrade_configs = configs
}

/// Forwards every path to a cluster.
pub fn forward(cluster: &str) -> route::Route {
    forward_with(cluster, |_| {})
}

/// Forwards every path to a cluster, in a way.
pub fn forward_with(cluster: &str, change: impl FnOnce(&mut route::RouteAction)) -> route::Route {
    let mut action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    change(&mut action);
    route(route::route::Action::Route(action))
}

/// A response with a length.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A GET of a path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Polls until `fact` holds.
pub async fn until(what: &str, fact: impl Fn() -> bool) {
    let waiting = async {
        while !fact() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not soon: {what}"));
}
