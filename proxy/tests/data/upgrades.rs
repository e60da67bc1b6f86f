//! Upgrades to other protocols, and tunnels: granted, refused, faked.

use std::time::Duration;

use mesh_proxy::{Edge, Settings};
use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, Peer, SOON, Upstream, forward, forward_with, get, ok, seconds, tunnel, until, upgrades};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const CONNECT: &str = "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n";

/// A mesh whose clients may switch to WebSocket, or open tunnels.
async fn mesh(upstream: &Upstream, edge: Edge, allowed: &[&str]) -> (Mesh, std::net::SocketAddr) {
    mesh_with(Settings::default(), upstream, edge, allowed).await
}

async fn mesh_with(
    settings: Settings,
    upstream: &Upstream,
    edge: Edge,
    allowed: &[&str],
) -> (Mesh, std::net::SocketAddr) {
    let mesh = Mesh::with(settings);
    mesh.cluster("up", &[upstream.address]);
    let short = forward_with("up", |action| action.timeout = Some(seconds(0.2)));
    mesh.routes("http", vec![short, tunnel("up")]);
    let address = mesh.http_with("http", edge, upgrades(allowed)).await;
    (mesh, address)
}

/// A client and a server that have switched to WebSocket.
async fn switched(upstream: &Upstream, address: std::net::SocketAddr) -> (Peer, Peer) {
    let mut client = Peer::connect(address).await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    server.send(SWITCHED).await;
    assert_eq!(client.head().await.expect("a head").0, "HTTP/1.1 101 Switching Protocols");
    (client, server)
}

#[tokio::test]
async fn a_websocket_passes_both_ways_at_every_edge_and_each_side_ends_on_its_own() {
    for edge in [Edge::Gateway, Edge::Outbound, Edge::Inbound] {
        let upstream = Upstream::new().await;
        let (mesh, address) = mesh(&upstream, edge, &["websocket"]).await;
        let mut client = Peer::connect(address).await;
        client.send(HANDSHAKE).await;
        let mut server = upstream.accept().await;
        let (first, headers) = server.head().await.expect("a head");
        assert_eq!(first, "GET /chat HTTP/1.1");
        assert_eq!(headers.get("connection").map(String::as_str), Some("Upgrade"));
        assert_eq!(headers.get("upgrade").map(String::as_str), Some("WebSocket"));
        assert_eq!(headers.get("sec-websocket-version").map(String::as_str), Some("13"));
        server.send([SWITCHED.as_bytes(), b"\x81\x02hi"].concat()).await;
        let (first, headers) = client.head().await.expect("a head");
        assert_eq!(first, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(headers.get("upgrade").map(String::as_str), Some("WebSocket"), "as the client spells it");
        assert!(headers.contains_key("sec-websocket-accept"));
        assert_eq!(client.exactly(4).await, b"\x81\x02hi", "what follows the head at once is not lost");
        client.send(vec![7; 1 << 20]).await;
        assert!(server.exactly(1 << 20).await.iter().all(|byte| *byte == 7));
        assert!(mesh.metrics().contains("mesh_upgrades_active{kind=\"websocket\"} 1"), "{}", mesh.metrics());
        client.send(b"\x88\x00").await;
        client.stream.shutdown().await.expect("shuts down");
        assert_eq!(server.rest().await, (b"\x88\x00".to_vec(), true), "half-closed");
        server.send(b"bye").await;
        drop(server);
        assert_eq!(client.rest().await, (b"bye".to_vec(), true));
        until("it is reported", || mesh.connections() == 0).await;
        let metrics = mesh.metrics();
        assert!(metrics.contains("mesh_upgrades_active{kind=\"websocket\"} 0"), "{metrics}");
        assert!(metrics.contains("mesh_upgrades_total{kind=\"websocket\"} 1"), "{metrics}");
        let counted = metrics.lines().find(|line| line.starts_with("istio_requests_total")).expect("a request");
        assert!(counted.contains("response_code=\"101\""), "{counted}");
        let bytes = metrics.lines().find(|line| line.starts_with("istio_request_bytes_sum")).expect("bytes");
        assert!(bytes.ends_with(" 1048578.0"), "{bytes}");
    }
}

#[tokio::test]
async fn the_time_of_a_route_is_not_the_time_of_a_websocket() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket"]).await;
    let (mut client, mut server) = switched(&upstream, address).await;
    // The route allows 0.2 seconds.
    let silent = tokio::time::timeout(Duration::from_millis(500), client.exactly(1)).await;
    assert!(silent.is_err(), "nothing has happened");
    server.send("x").await;
    assert_eq!(client.exactly(1).await, b"x");
}

#[tokio::test]
async fn a_websocket_without_a_byte_is_closed_in_time() {
    let upstream = Upstream::new().await;
    let settings = Settings { upgrade_idle_timeout: Duration::from_millis(100), ..Settings::default() };
    let (mesh, address) = mesh_with(settings, &upstream, Edge::Outbound, &["websocket"]).await;
    let (mut client, mut server) = switched(&upstream, address).await;
    assert_eq!(client.rest().await, (vec![], false), "reset: it is not complete");
    assert_eq!(server.rest().await, (vec![], false));
    until("it is told", || mesh.metrics().contains("response_flags=\"UT\"")).await;
    let metrics = mesh.metrics();
    assert!(metrics.contains("mesh_limit_hits_total{limit=\"upgrade_idle\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_websocket_lives_until_the_drains_deadline() {
    let upstream = Upstream::new().await;
    let (mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket"]).await;
    let (mut client, mut server) = switched(&upstream, address).await;
    mesh.drain.start();
    client.send("still").await;
    assert_eq!(server.exactly(5).await, b"still");
    let draining = mesh.drain.run(&mesh.tasks, Duration::from_millis(50));
    tokio::time::timeout(SOON, draining).await.expect("ends soon");
    assert_eq!(client.rest().await, (vec![], false));
    assert_eq!(server.rest().await, (vec![], false));
}

#[tokio::test]
async fn a_reset_passes_through_a_websocket() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket"]).await;
    let (mut client, server) = switched(&upstream, address).await;
    server.stream.set_zero_linger().expect("sets");
    drop(server);
    assert_eq!(client.rest().await, (vec![], false));
}

#[tokio::test]
async fn a_refused_upgrade_leaves_an_ordinary_answer_and_connection() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket"]).await;
    let mut client = Peer::connect(address).await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.text(), answer.header("connection")), (403, "no", None));
    client.send(get("/next")).await;
    assert_eq!(server.message().await.expect("on the same connection").first, "GET /next HTTP/1.1");
    server.send(ok("next")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "next");
}

#[tokio::test]
async fn bytes_behind_a_refused_upgrade_are_nobodys() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket", "CONNECT"]).await;
    for (request, refusal) in [
        ([HANDSHAKE, &get("/admin")].concat(), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
        ([CONNECT, &get("/admin")].concat(), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
        (CONNECT.to_owned(), "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut client = Peer::connect(address).await;
        client.send(&request).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a head");
        server.send(refusal).await;
        let answer = client.message().await.expect("an answer");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
        assert_eq!(client.rest().await.0, b"", "{request:?}");
        drop(client);
        let (seen, _) = server.rest().await;
        assert!(seen.is_empty(), "the upstream has seen {:?}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test]
async fn cve_2025_64763_bytes_behind_a_granted_upgrade_reach_the_upstream_only_after_its_answer() {
    for request in [HANDSHAKE, CONNECT] {
        let upstream = Upstream::new().await;
        let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket", "CONNECT"]).await;
        let mut client = Peer::connect(address).await;
        client.send([request, "early"].concat()).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a head");
        let early = tokio::time::timeout(Duration::from_millis(100), server.exactly(1)).await;
        assert!(early.is_err(), "before the answer nothing is passed on");
        let answer = if request == CONNECT { "HTTP/1.1 200 OK\r\n\r\n" } else { SWITCHED };
        server.send(answer).await;
        assert_eq!(server.exactly(5).await, b"early");
    }
}

#[tokio::test]
async fn cve_2024_23326_a_switch_that_was_not_asked_for_is_never_passed_on() {
    let foreign = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let unsaid = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let two = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: foo\r\n\r\n";
    let long = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n";
    let chunked = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n";
    let old = "HTTP/1.0 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let plain = get("/");
    let unknown = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
    let silent = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    for (request, answer) in [
        (HANDSHAKE, foreign),
        (HANDSHAKE, unsaid),
        (HANDSHAKE, two),
        (HANDSHAKE, long),
        (HANDSHAKE, chunked),
        (HANDSHAKE, old),
        (&*plain, SWITCHED),
        (unknown, SWITCHED),
        (silent, SWITCHED),
        (CONNECT, SWITCHED),
    ] {
        let upstream = Upstream::new().await;
        let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket", "CONNECT"]).await;
        let mut client = Peer::connect(address).await;
        client.send(request).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a head");
        server.send(answer).await;
        let failed = client.message().await.expect("an answer");
        let code = failed.header("x-mesh-failure");
        assert_eq!((failed.status(), code), (502, Some("upstream_protocol")), "{request:?} {answer:?}");
        assert_eq!(server.rest().await.0, b"", "{request:?} {answer:?}");
    }
}

#[tokio::test]
async fn the_body_of_an_upgrading_request_comes_before_the_switch() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Outbound, &["tcp"]).await;
    let head = "POST /exec HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\n";
    let switch = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let mut client = Peer::connect(address).await;
    client.send([head, "hello", "after"].concat()).await;
    let mut server = upstream.accept().await;
    let request = server.message().await.expect("a request");
    assert_eq!((request.text(), request.header("upgrade")), ("hello", Some("tcp")));
    server.send(switch).await;
    assert_eq!(client.head().await.expect("a head").0, "HTTP/1.1 101 UPGRADED");
    assert_eq!(server.exactly(5).await, b"after");

    // A switch in the middle of the body could make protocol of content.
    let mut client = Peer::connect(address).await;
    client.send([head, "hel"].concat()).await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    assert_eq!(server.exactly(3).await, b"hel");
    server.send(switch).await;
    let failed = client.message().await.expect("an answer");
    assert_eq!((failed.status(), failed.header("x-mesh-failure")), (502, Some("upstream_protocol")));
}

#[tokio::test]
async fn protocols_that_nobody_allows_are_not_offered_to_the_upstream() {
    let upstream = Upstream::new().await;
    let (mesh, address) = mesh(&upstream, Edge::Outbound, &["websocket"]).await;
    upstream.serve(&mesh.tasks, |request| ok(request.header("upgrade").unwrap_or("none")));
    let mut client = Peer::connect(address).await;
    for (offered, passed) in [
        ("foo", "none"),
        ("h2c", "none"),
        ("foo, websocket", "websocket"),
        ("WEBSOCKET", "WEBSOCKET"),
        ("foo/1.0\r\nUpgrade: bar", "none"),
    ] {
        let answer =
            client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {offered}\r\n\r\n")).await;
        assert_eq!(answer.text(), passed, "{offered}");
    }
    let answer = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(answer.text(), "none", "HTTP/1.0 has no upgrades");
}

#[tokio::test]
async fn a_tunnel_leads_where_its_route_says() {
    let upstream = Upstream::new().await;
    let (mesh, address) = mesh(&upstream, Edge::Outbound, &["CONNECT"]).await;
    for request in [
        CONNECT,
        "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example\r\n\r\n",
        "CONNECT far.example:443 HTTP/1.0\r\n\r\n",
    ] {
        let mut client = Peer::connect(address).await;
        client.send(request).await;
        let mut server = upstream.accept().await;
        let (first, headers) = server.head().await.expect("a head");
        assert_eq!(first, "CONNECT far.example:443 HTTP/1.1");
        assert_eq!(headers.get("host").map(String::as_str), Some("far.example:443"));
        server.send("HTTP/1.1 200 Connection established\r\nContent-Length: 7\r\n\r\n").await;
        let (first, headers) = client.head().await.expect("a head");
        assert_eq!((&*first, headers.len()), ("HTTP/1.1 200 Connection established", 0));
        client.send(b"\x16\x03\x01").await;
        assert_eq!(server.exactly(3).await, b"\x16\x03\x01");
        server.send("back").await;
        assert_eq!(client.exactly(4).await, b"back");
    }
    assert!(mesh.metrics().contains("mesh_upgrades_total{kind=\"connect\"} 3"), "{}", mesh.metrics());
}

#[tokio::test]
async fn tunnels_are_refused_where_none_are_served() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = mesh(&upstream, Edge::Gateway, &["websocket"]).await;
    let mut client = Peer::connect(address).await;
    let answer = client.ask(CONNECT).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (501, Some("upgrade_refused")));
    assert_eq!(
        (answer.header("connection"), answer.text()),
        (Some("close"), "upgrade_refused: the connection cannot become here what the request asks for\n")
    );
    assert_eq!(client.rest().await, (vec![], true));
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn a_tunnel_needs_a_route_of_its_own() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http_with("http", Edge::Outbound, upgrades(&["CONNECT"])).await;
    let answer = Peer::connect(address).await.ask(CONNECT).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (404, Some("no_route")));
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn upgrades_and_tunnels_pass_two_sidecars_that_speak_http2_with_each_other() {
    let upstream = Upstream::new().await;
    let (far, inbound) = mesh(&upstream, Edge::Inbound, &["websocket", "CONNECT"]).await;
    let near = Mesh::new();
    near.beside_proxies("up", &[inbound]);
    near.routes("http", vec![forward("up"), tunnel("up")]);
    let address = near.http_with("http", Edge::Outbound, upgrades(&["websocket", "CONNECT"])).await;
    for (request, answer) in [(HANDSHAKE, SWITCHED), (CONNECT, "HTTP/1.1 200 OK\r\n\r\n")] {
        let mut client = Peer::connect(address).await;
        client.send(request).await;
        let mut server = upstream.accept().await;
        server.head().await.expect("a head");
        server.send(answer).await;
        client.head().await.expect("a head");
        client.send("there").await;
        assert_eq!(server.exactly(5).await, b"there");
        server.send("and back").await;
        assert_eq!(client.exactly(8).await, b"and back");
        client.stream.shutdown().await.expect("shuts down");
        assert_eq!(server.rest().await, (vec![], true));
        drop(server);
        assert_eq!(client.rest().await, (vec![], true));
    }
    // Ordinary requests between the two share a connection of HTTP/2.
    let asking = async {
        let mut client = Peer::connect(address).await;
        client.ask(get("/plain")).await
    };
    let answering = async {
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send(ok("plain")).await;
        server
    };
    let (answer, _server) = tokio::join!(asking, answering);
    assert_eq!(answer.text(), "plain");
    assert!(far.metrics().contains("mesh_upgrades_total{kind=\"websocket\"} 1"), "{}", far.metrics());
}
