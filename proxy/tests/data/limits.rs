//! What peers may take: each limit at and over its bound, with what is counted there. docs/limits.md lists them.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_proxy::codec::Limits;
use mesh_proxy::{Edge, Settings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};

async fn mesh(settings: Settings, upstream: SocketAddr, edge: Edge) -> (Mesh, SocketAddr) {
    let mesh = Mesh::with(settings);
    mesh.cluster("up", &[upstream]);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", edge).await;
    (mesh, address)
}

fn hits(mesh: &Mesh, limit: &str) -> u64 {
    let metrics = mesh.metrics();
    let start = format!("mesh_limit_hits_total{{limit=\"{limit}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{metrics}"));
    line.parse().expect("a number")
}

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_head_may_have_exactly_so_many_bytes() {
    let upstream = Upstream::new().await;
    let limits = Limits { head: 2000, fields: 100 };
    let (mesh, address) = mesh(Settings { limits, ..Settings::default() }, upstream.address, Edge::Gateway).await;
    upstream.serve(&mesh.tasks, |_| ok("ok"));
    let head = |size: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4))
    };
    assert_eq!(Peer::connect(address).await.ask(head(2000)).await.status(), 200);
    assert_eq!(hits(&mesh, "head_bytes"), 0);
    for size in [2001, 5000] {
        let answer = Peer::connect(address).await.ask(head(size)).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (431, Some("too_large")), "{size}");
    }
    // Without an end in sight it is refused as soon as it is over the limit.
    let mut client = Peer::connect(address).await;
    client.send(&head(3000)[..2500]).await;
    assert_eq!(client.message().await.expect("an answer").status(), 431);
    assert_eq!(hits(&mesh, "head_bytes"), 3);
}

#[tokio::test]
async fn a_head_may_have_exactly_so_many_fields() {
    let upstream = Upstream::new().await;
    let limits = Limits { head: 64 * 1024, fields: 10 };
    let (mesh, address) = mesh(Settings { limits, ..Settings::default() }, upstream.address, Edge::Gateway).await;
    upstream.serve(&mesh.tasks, |_| ok("ok"));
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(Peer::connect(address).await.ask(head(10)).await.status(), 200);
    assert_eq!(Peer::connect(address).await.ask(head(11)).await.status(), 431);
    assert_eq!(hits(&mesh, "headers"), 1);
}

#[tokio::test]
async fn the_head_of_a_response_has_the_same_limits() {
    let limits = Limits { head: 2000, fields: 10 };
    for response in [
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2000)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(11)),
    ] {
        let upstream = Upstream::new().await;
        let (mesh, address) = mesh(Settings { limits, ..Settings::default() }, upstream.address, Edge::Gateway).await;
        upstream.serve(&mesh.tasks, move |_| response.clone().into_bytes());
        let answer = Peer::connect(address).await.ask(get("/")).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (502, Some("upstream_protocol")));
        assert_eq!(hits(&mesh, "response_head"), 1);
    }
}

#[tokio::test]
async fn a_head_that_drips_is_given_up_in_its_time() {
    let upstream = Upstream::new().await;
    let settings = Settings { head_timeout: SOON, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Gateway).await;
    let mut client = Peer::connect(address).await;
    client.send("GET / HTTP/1.1\r\n").await;
    let (mut reader, mut writer) = client.stream.into_split();
    // A byte now and then does not help.
    mesh.tasks.spawn("dripping", async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if writer.write_all(b"X").await.is_err() {
                return;
            }
        }
    });
    let mut answer = vec![0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(hits(&mesh, "slow_head"), 1);
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let upstream = Upstream::new().await;
    let settings = Settings { body_idle_timeout: SOON, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Gateway).await;
    for (head, part) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        let mut client = Peer::connect(address).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{part}")).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a head");
        assert_eq!(server.exactly(part.len()).await, part.as_bytes());
        let answer = client.message().await.expect("an answer");
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (408, Some("slow_request")));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(server.rest().await.0.is_empty(), "the upstream never sees an end of the body");
    }
    assert_eq!(hits(&mesh, "slow_body"), 2);
}

#[tokio::test]
async fn an_upstream_that_thinks_is_not_a_client_that_is_slow() {
    let upstream = Upstream::new().await;
    let settings = Settings { body_idle_timeout: SOON, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Inbound).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/events")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.head().await.expect("a head");
    assert_eq!(client.exactly(8).await, b"3\r\none\r\n");
    let silent = tokio::time::timeout(SOON * 5, client.exactly(1)).await;
    assert!(silent.is_err(), "nothing has happened");
    server.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.exactly(13).await, b"3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!((hits(&mesh, "slow_body"), hits(&mesh, "slow_reader")), (0, 0));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::new().await;
    let settings = Settings { stall_timeout: SOON, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Gateway).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/large")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let block = vec![0; 256 * 1024];
    while server.stream.write_all(&block).await.is_ok() {}
    until("it is told", || mesh.connections() == 0).await;
    assert_eq!(hits(&mesh, "slow_reader"), 1);
    assert!(mesh.metrics().contains("response_flags=\"SI\""), "{}", mesh.metrics());
    let (rest, in_order) = client.rest().await;
    assert!(!in_order && rest.len() < 100_000_000, "it is reset after {} bytes", rest.len());
}

#[tokio::test]
async fn connections_without_a_request_are_closed_and_counted() {
    let settings = Settings { idle_timeout: SOON, ..Settings::default() };
    let (mesh, address) = mesh(settings, Upstream::new().await.address, Edge::Gateway).await;
    let mut client = Peer::connect(address).await;
    client.ask(get("/")).await;
    assert_eq!(client.rest().await, (vec![], true));
    assert_eq!(hits(&mesh, "idle"), 1);
}

#[tokio::test]
async fn an_opaque_connection_without_a_byte_is_reset_in_time() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::with(Settings { tcp_idle_timeout: SOON, ..Settings::default() });
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    let mut server = upstream.accept().await;
    assert_eq!(client.rest().await, (vec![], false));
    assert_eq!(server.rest().await, (vec![], false));
    assert_eq!(hits(&mesh, "tcp_idle"), 1);
}

#[tokio::test]
async fn the_newest_connection_is_refused_when_there_are_too_many() {
    let upstream = Upstream::new().await;
    let settings = Settings { max_connections: 2, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Outbound).await;
    upstream.serve(&mesh.tasks, |_| ok("ok"));
    let mut first = Peer::connect(address).await;
    let mut second = Peer::connect(address).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(get("/")).await.status(), 200);
    }
    let mut third = Peer::connect(address).await;
    assert_eq!(third.rest().await, (vec![], false), "reset, not left waiting");
    assert_eq!(hits(&mesh, "connections"), 1);
    assert!(mesh.metrics().contains("mesh_downstream_connections 2"), "{}", mesh.metrics());
    assert_eq!(first.ask(get("/")).await.status(), 200, "the older ones go on");
    drop(second);
    until("a place is free", || mesh.connections() == 1).await;
    assert_eq!(Peer::connect(address).await.ask(get("/")).await.status(), 200);
}

/// A client with an address of its own.
async fn from(source: &str, address: SocketAddr) -> Peer {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("binds");
    Peer::new(socket.connect(address).await.expect("connects"))
}

#[tokio::test]
async fn one_source_cannot_take_the_connections_of_all() {
    let upstream = Upstream::new().await;
    let settings = Settings { max_connections_per_source: 1, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Gateway).await;
    upstream.serve(&mesh.tasks, |_| ok("ok"));
    let mut one = from("127.0.0.1", address).await;
    assert_eq!(one.ask(get("/")).await.status(), 200);
    assert_eq!(from("127.0.0.1", address).await.rest().await, (vec![], false));
    let mut other = from("127.0.0.2", address).await;
    assert_eq!(other.ask(get("/")).await.status(), 200);
    assert_eq!(hits(&mesh, "connections_per_source"), 1);
}

#[tokio::test]
async fn the_application_of_the_pod_is_not_counted_by_source() {
    let upstream = Upstream::new().await;
    let settings = Settings { max_connections_per_source: 1, ..Settings::default() };
    let (mesh, address) = mesh(settings, upstream.address, Edge::Outbound).await;
    upstream.serve(&mesh.tasks, |_| ok("ok"));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Peer::connect(address).await;
        assert_eq!(client.ask(get("/")).await.status(), 200);
        clients.push(client);
    }
}
