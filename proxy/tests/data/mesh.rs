//! What the tests stand on: a data path with listeners, an upstream server and a client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::compile::Compiler;
use engine::proto::{
    Kind, cluster, core, endpoint, extension, fault, hcm, http_inspector, listener, protobuf, route, router, tcp_proxy,
};
use mesh_proxy::{DataPath, Edge, Settings};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use prost::Message;
use runtime::{Drain, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
        let mut compiler = self.compiler.lock().expect("unpoisoned");
        let put = compiler.update(kind, name, "1", &message.encode_to_vec().into());
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
        let chain = chain(vec![], vec![manager(name)]);
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
    let manager = hcm::HttpConnectionManager {
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

/// A connection as a client or server sees it.
pub struct Peer {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message1 {
    pub first: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub trailers: String,
}

/// A frame of HTTP/2 as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Message1 {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Peer { stream, read: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Peer::new(TcpStream::connect(address).await.expect("connects"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sends");
    }

    /// Reads once more; `false` at the end.
    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        match tokio::time::timeout(SOON, reading).await.expect("bytes come soon") {
            Ok(count) => count > 0,
            Err(_) => false,
        }
    }

    /// Reads a head and gives its text.
    pub async fn head(&mut self) -> Option<(String, HashMap<String, String>)> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.lines();
        let first = lines.next().expect("a line").to_owned();
        let fields = lines.filter_map(|line| line.split_once(": "));
        Some((first, fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()))
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "the connection ended after {} bytes of {count}", self.read.len());
        }
        self.read.drain(..count).collect()
    }

    /// Reads until the end and gives what came, and whether the end was in good order.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            let reading = self.stream.read_buf(&mut self.read);
            match tokio::time::timeout(SOON, reading).await.expect("the end comes soon") {
                Ok(0) => return (std::mem::take(&mut self.read), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.read), false),
            }
        }
    }

    /// Reads a line without its end.
    pub async fn exactly_line(&mut self) -> String {
        self.line().await
    }

    /// Reads a frame of HTTP/2; none at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        while self.read.len() < 9 {
            if !self.more().await {
                return None;
            }
        }
        let length = usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
        while self.read.len() < 9 + length {
            if !self.more().await {
                return None;
            }
        }
        let bytes: Vec<u8> = self.read.drain(..9 + length).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.read.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return String::from_utf8(line).expect("text").trim_end().to_owned();
            }
            assert!(self.more().await, "the connection ended in a line");
        }
    }

    /// Reads a whole message with the body that its head states; none at the end of the connection.
    pub async fn message(&mut self) -> Option<Message1> {
        let (first, headers) = self.head().await?;
        let mut message = Message1 { first, headers, body: Vec::new(), trailers: String::new() };
        if message.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).expect("a size");
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                message.trailers.push_str(&line);
            }
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().expect("a length");
            message.body = self.exactly(length).await;
        }
        Some(message)
    }

    /// Sends bytes and reads a message.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Message1 {
        self.send(bytes).await;
        self.message().await.expect("an answer")
    }
}

/// An upstream whose connections the test takes one by one.
pub struct Upstream {
    pub address: SocketAddr,
    socket: TcpListener,
}

impl Upstream {
    pub async fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Upstream { address: socket.local_addr().expect("an address"), socket }
    }

    /// The next connection.
    pub async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(SOON, self.socket.accept()).await.expect("a connection comes soon");
        Peer::new(accepted.expect("accepts").0)
    }

    /// Whether a connection has come that nobody has taken.
    pub async fn has_connection(&self) -> bool {
        futures_util::poll!(std::pin::pin!(self.socket.accept())).is_ready()
    }

    /// Serves every connection for as long as `tasks` run: answers each request with what `answer` makes of it.
    pub fn serve(self, tasks: &Tasks, answer: impl Fn(&Message1) -> Vec<u8> + Send + Sync + Clone + 'static) {
        let all = tasks.clone();
        tasks.spawn("upstream", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = self.socket.accept() => accepted,
                    () = all.token().cancelled() => return,
                };
                let answer = answer.clone();
                all.spawn("upstream connection", async move {
                    let mut peer = Peer::new(accepted.expect("accepts").0);
                    while let Some(request) = peer.message().await {
                        peer.send(answer(&request)).await;
                    }
                });
            }
        });
    }
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
