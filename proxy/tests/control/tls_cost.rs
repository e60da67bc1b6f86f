//! The binary with an identity in files: that it shows it, and what mutual TLS costs.
//!
//! The costs are measured by hand, with a build that is optimised:
//! `cargo test --release -p proxy --test control tls_cost -- --ignored --nocapture`

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::Tasks;
use runtime::authority::Root;
use runtime::svid::{self, Key, KeyKind, Peers, Svids};
use rustls::client::Resumption;
use rustls::{ClientConfig, NamedGroup};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::SOON;
use crate::binary::{Running, command};
use crate::upstream::noting;

const HOUR: Duration = Duration::from_secs(3600);
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/productpage";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A configuration that answers over mutual TLS by itself, and the files of an identity.
fn write(dir: &Path, root: &Root) {
    let key = Key::generate(KeyKind::P256).expect("a key");
    let params = Root::params(SERVER, SystemTime::now() - HOUR, 24 * HOUR).expect("good");
    let leaf = root.sign(&params, &key).expect("a certificate");
    let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("it can be written");
    put("certificate.pem", &pem("CERTIFICATE", &leaf));
    put("key.pem", &pem("PRIVATE KEY", key.pkcs8().secret_pkcs8_der()));
    put("roots.pem", &root.pem());
    put(
        "config.yaml",
        "static_resources:
  listeners:
  - name: in
    address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [mesh-h2, mesh-http/1.1]
            tls_certificate_sds_secret_configs: [{ name: default }]
            validation_context_sds_secret_config: { name: ROOTCA }
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{ match: { prefix: / }, direct_response: { status: 200, body: { inline_string: ok } } }]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
",
    );
}

fn start(dir: &Path) -> Running {
    Running::of(with_identity(dir))
}

fn with_identity(dir: &Path) -> Command {
    let mut command = command(&dir.join("config.yaml"));
    for (name, file) in
        [("MESH_SVID_CERTIFICATE", "certificate.pem"), ("MESH_SVID_KEY", "key.pem"), ("MESH_SVID_ROOTS", "roots.pem")]
    {
        command.env(name, dir.join(file));
    }
    command.env("MESH_TLS_HANDSHAKE_SECONDS", "20");
    command
}

fn caller(root: &Root) -> (svid::Publisher, Svids) {
    let id = CALLER.parse().expect("an identity");
    let (publisher, svids) = svid::channel();
    let svid = root.svid(&id, SystemTime::now() - HOUR, 24 * HOUR).expect("an SVID");
    publisher.publish(svid, root.bundle(&id).expect("a bundle"));
    (publisher, svids)
}

fn client(svids: &Svids) -> Arc<ClientConfig> {
    let peers = Peers::these([SERVER.parse().expect("an identity")]);
    svids.client_config(peers, &[b"mesh-http/1.1"]).expect("a configuration")
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.expect("connects");
    let name = ServerName::try_from("mesh").expect("a name");
    TlsConnector::from(Arc::clone(config)).connect(name, socket).await.expect("the server is accepted")
}

async fn ask(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sends");
    let (mut read, mut bytes) = (Vec::new(), [0; 1024]);
    while !read.ends_with(b"ok") {
        let count = stream.read(&mut bytes).await.expect("an answer");
        assert!(count > 0, "the connection ended");
        read.extend_from_slice(&bytes[..count]);
    }
}

#[tokio::test]
async fn the_binary_shows_the_identity_in_its_files() {
    let (dir, root) = (tempfile::tempdir().expect("a directory"), Root::new("root").expect("a root"));
    write(dir.path(), &root);
    let mut proxy = start(dir.path());
    let address = proxy.address("listening", "address").await;
    let (_publisher, svids) = caller(&root);
    let mut stream = connect(address, &client(&svids)).await;
    ask(&mut stream).await;
    let session = stream.get_ref().1;
    assert_eq!(svid::peer(session.peer_certificates()).expect("it was verified").id.as_str(), SERVER);
    let group = session.negotiated_key_exchange_group().expect("TLS 1.3 has one").name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

/// What makes a listener one of connections that come to this workload.
const ORIGINAL_DST: &str = "{ name: envoy.filters.listener.original_dst, typed_config: { \
     '@type': type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst } }";

/// A configuration that passes on to an application what comes over mutual TLS.
fn write_inbound(dir: &Path, upstream: SocketAddr) {
    let file = dir.join("config.yaml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let text = text
        .replace("  - name: in\n", &format!("  - name: in\n    listener_filters: [{ORIGINAL_DST}]\n"))
        .replace("direct_response: { status: 200, body: { inline_string: ok } }", "route: { cluster: app }");
    let port = upstream.port();
    let cluster = format!(
        "  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"
    );
    std::fs::write(&file, text + &cluster).expect("it can be written");
}

#[tokio::test]
async fn the_application_is_told_of_certificates_if_the_environment_says_so() {
    let (dir, root) = (tempfile::tempdir().expect("a directory"), Root::new("root").expect("a root"));
    write(dir.path(), &root);
    let tasks = Tasks::new();
    let (upstream, mut heads) = noting(&tasks).await;
    write_inbound(dir.path(), upstream);
    let (_publisher, svids) = caller(&root);
    let told = format!("X-Forwarded-Client-Cert: By={SERVER};URI={CALLER}\r\n");
    for (value, is_told) in [(None, false), (Some("sanitize"), false), (Some("sanitize-set"), true)] {
        let mut command = with_identity(dir.path());
        if let Some(value) = value {
            command.env("MESH_FORWARDED_CLIENT_CERT", value);
        }
        let mut proxy = Running::of(command);
        let address = proxy.address("listening", "address").await;
        let mut stream = connect(address, &client(&svids)).await;
        let forged = b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-Client-Cert: By=a;URI=b\r\n\r\n";
        stream.write_all(forged).await.expect("sends");
        let head = heads.recv().await.expect("the application is asked");
        assert!(!head.contains("URI=b"), "{value:?}: {head}");
        assert_eq!(head.contains(&told), is_told, "{value:?}: {head}");
    }
    let mut command = with_identity(dir.path());
    let refused = command.env("MESH_FORWARDED_CLIENT_CERT", "always").output().expect("it ends");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("write sanitize or sanitize-set"), "{text}");
    tasks.stop(SOON).await.expect("the application ends");
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Seconds of processor time of a process.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("the rest").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test]
#[ignore = "it measures; run it by hand"]
async fn costs() {
    const IDLE: usize = 3000;
    const HANDSHAKES: usize = 2000;
    const HALF: usize = 8000;
    let (dir, root) = (tempfile::tempdir().expect("a directory"), Root::new("root").expect("a root"));
    write(dir.path(), &root);
    let mut proxy = start(dir.path());
    let (address, pid) = (proxy.address("listening", "address").await, proxy.pid());
    let (_publisher, svids) = caller(&root);
    let full = client(&svids);
    let mut resuming = ClientConfig::clone(&full);
    resuming.resumption = Resumption::in_memory_sessions(16);
    let resuming = Arc::new(resuming);
    for config in [&full, &resuming] {
        for _ in 0..50 {
            ask(&mut connect(address, config).await).await;
        }
    }
    for (name, config) in [("full", &full), ("resumed", &resuming)] {
        let before = processor(pid);
        for _ in 0..HANDSHAKES {
            ask(&mut connect(address, config).await).await;
        }
        let spent = processor(pid) - before;
        println!("{name} handshakes with one request: {:.0} per second of processor", HANDSHAKES as f64 / spent);
    }
    let before = resident(pid);
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut stream = connect(address, &resuming).await;
        ask(&mut stream).await;
        open.push(stream);
    }
    println!("an idle connection: {:.1} KiB", (resident(pid) - before) / IDLE as f64);
    drop(open);
    let mut half = Vec::new();
    let hello = hello(&full);
    let before = resident(pid);
    for _ in 0..HALF {
        let mut socket = TcpStream::connect(address).await.expect("connects");
        socket.write_all(&hello).await.expect("sends");
        half.push(socket);
    }
    ask(&mut connect(address, &full).await).await;
    println!("a handshake that has stopped: {:.1} KiB; others go on", (resident(pid) - before) / HALF as f64);
    for socket in &mut half {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.expect("it is ended");
    }
    println!("all of them have been ended");
}

/// A whole ClientHello.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("mesh").expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("a vector takes it");
    bytes
}
