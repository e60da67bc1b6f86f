//! Connections: kept, pooled, drained, broken.

use std::time::Duration;

use mesh_proxy::{Edge, Settings};
use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, Peer, SOON, Upstream, forward, forward_with, get, ok, seconds, until};

#[tokio::test]
async fn one_upstream_connection_serves_many_requests_of_one_client() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/1")).await;
    let mut server = upstream.accept().await;
    for at in 1..=20 {
        let request = server.message().await.expect("a request");
        assert_eq!(request.first, format!("GET /{at} HTTP/1.1"));
        assert_eq!(request.header("host"), Some("test"));
        assert!(request.header("x-request-id").is_some_and(|id| id.len() == 36));
        server.send(ok(&at.to_string())).await;
        assert_eq!(client.message().await.expect("an answer").text(), at.to_string());
        if at < 20 {
            client.send(get(&format!("/{}", at + 1))).await;
        }
    }
    assert!(!upstream.has_connection().await);
    until("the connection is kept", || mesh.path.idle_upstreams() == 1).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| ok(&request.first));
    let mut client = Peer::connect(address).await;
    let requests: String = (0..50).map(|at| get(&format!("/{at}"))).collect();
    client.send(requests).await;
    for at in 0..50 {
        assert_eq!(client.message().await.expect("an answer").text(), format!("GET /{at} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_request_survives_an_upstream_that_closes_its_idle_connection() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/first")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send(ok("1")).await;
    client.message().await.expect("an answer");
    // The second request is read, and then the connection closed without an answer: as in the race, to the proxy.
    client.send(get("/second")).await;
    server.message().await.expect("the second request");
    drop(server);
    let mut server = upstream.accept().await;
    assert_eq!(server.message().await.expect("the request again").first, "GET /second HTTP/1.1");
    server.send(ok("2")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "2");
}

#[tokio::test]
async fn a_request_that_may_not_be_done_twice_is_not_sent_twice() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/first")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send(ok("1")).await;
    client.message().await.expect("an answer");
    client.send("POST /pay HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n1").await;
    server.message().await.expect("the second request");
    drop(server);
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("upstream_reset")));
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn a_closed_idle_connection_is_not_used() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/first")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send(ok("1")).await;
    client.message().await.expect("an answer");
    until("the connection is kept", || mesh.path.idle_upstreams() == 1).await;
    server.stream.shutdown().await.expect("shuts down");
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.message().await.expect("the request on a new connection");
    server.send(ok("2")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "2");
}

#[tokio::test]
async fn idle_upstream_connections_are_closed_before_the_application_would() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send(ok("1")).await;
    client.message().await.expect("an answer");
    assert_eq!(server.rest().await, (vec![], true));
    until("the pool is empty", || mesh.path.idle_upstreams() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_dies_in_a_body_breaks_the_response_and_never_completes_it() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = Upstream::new().await;
        let (_mesh, address) = Mesh::simple(upstream.address).await;
        let mut client = Peer::connect(address).await;
        client.send(get("/")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send(head).await;
        let (first, headers) = client.head().await.expect("a head");
        assert_eq!(first, "HTTP/1.1 200 OK");
        drop(server);
        let (rest, in_order) = client.rest().await;
        let is_complete = in_order && (rest.ends_with(b"0\r\n\r\n") || !headers.contains_key("transfer-encoding"));
        assert!(!is_complete, "{head:?} gave {:?}", String::from_utf8_lossy(&rest));
        assert!(!in_order, "the connection is reset");
    }
}

#[tokio::test]
async fn an_upstream_whose_chunks_break_breaks_the_response() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    client.head().await.expect("a head");
    assert_eq!(client.exactly(9).await, b"4\r\nhalf\r\n");
    server.send("nonsense\r\n0\r\n\r\n").await;
    assert_eq!(client.rest().await, (vec![], false));
}

#[tokio::test]
async fn an_upstream_that_resets_ends_a_body_without_length_as_broken() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
    client.head().await.expect("a head");
    assert_eq!(client.exactly(9).await, b"4\r\nhalf\r\n");
    server.stream.set_zero_linger().expect("sets");
    drop(server);
    assert_eq!(client.rest().await, (vec![], false));
}

#[tokio::test]
async fn upstreams_that_cannot_be_reached_are_named_in_the_reply() {
    let mesh = Mesh::new();
    let gone = Upstream::new().await.address;
    mesh.cluster("gone", &[gone]);
    mesh.cluster("empty", &[]);
    mesh.routes("gone", vec![forward("gone")]);
    mesh.routes("empty", vec![forward("empty")]);
    mesh.routes("missing", vec![forward("missing")]);
    mesh.routes("none", vec![]);
    for (name, status, code) in [
        ("gone", 503, "upstream_connect"),
        ("empty", 503, "no_endpoints"),
        ("missing", 503, "no_route"),
        ("none", 404, "no_route"),
        ("absent", 404, "no_route"),
    ] {
        let address = mesh.http(name, Edge::Outbound).await;
        let mut client = Peer::connect(address).await;
        for _ in 0..2 {
            let answer = client.ask(get("/")).await;
            assert_eq!((answer.status(), answer.header("x-mesh-failure")), (status, Some(code)), "{name}");
            assert!(answer.text().starts_with(&format!("{code}: ")), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn another_endpoint_is_tried_when_one_does_not_listen() {
    let (upstream, gone) = (Upstream::new().await, Upstream::new().await.address);
    let mesh = Mesh::new();
    mesh.cluster("up", &[gone, upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    upstream.serve(&mesh.tasks, |_| ok("up"));
    let mut client = Peer::connect(address).await;
    for _ in 0..10 {
        assert_eq!(client.ask(get("/")).await.text(), "up");
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_with_it() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    drop(client);
    let (rest, _) = server.rest().await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_upstream_that_is_silent_is_answered_for_with_504() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward_with("up", |action| action.timeout = Some(seconds(0.05)))]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    for _ in 0..2 {
        let answer = client.ask(get("/")).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (504, Some("timeout")));
    }
    let mut server = upstream.accept().await;
    server.message().await.expect("the request");
    server.rest().await;
}

#[tokio::test]
async fn heads_that_do_not_come_in_time_are_answered_with_408() {
    let mesh = Mesh::with(Settings { head_timeout: Duration::from_millis(50), ..Settings::default() });
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    let answer = client.ask("GET / HTTP/1.1\r\nHost: te").await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (408, Some("slow_request")));
    assert_eq!(client.rest().await, (vec![], true));
}

#[tokio::test]
async fn connections_without_a_request_are_closed_in_time() {
    let mesh = Mesh::with(Settings { idle_timeout: Duration::from_millis(50), ..Settings::default() });
    let address = mesh.http("http", Edge::Outbound).await;
    let mut silent = Peer::connect(address).await;
    assert_eq!(silent.rest().await, (vec![], true));
    let mut client = Peer::connect(address).await;
    client.ask(get("/")).await;
    assert_eq!(client.rest().await, (vec![], true));
}

#[tokio::test]
async fn draining_finishes_what_runs_and_closes_what_is_idle() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut busy = Peer::connect(address).await;
    busy.send(get("/slow")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    let mut idle = Peer::connect(address).await;
    idle.send(get("/quick")).await;
    let mut quick = upstream.accept().await;
    quick.message().await.expect("a request");
    quick.send(ok("quick")).await;
    idle.message().await.expect("an answer");
    mesh.drain.start();
    assert_eq!(idle.rest().await, (vec![], true), "idle connections are closed");
    server.send(ok("slow")).await;
    let answer = busy.message().await.expect("an answer");
    assert_eq!((answer.text(), answer.header("connection")), ("slow", Some("close")));
    assert_eq!(busy.rest().await, (vec![], true));
    until("the port is closed", || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn what_does_not_finish_is_cut_at_the_drains_deadline() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    let draining = mesh.drain.run(&mesh.tasks, Duration::from_millis(50));
    tokio::time::timeout(SOON, draining).await.expect("ends soon");
    client.rest().await;
}

#[tokio::test]
async fn a_body_that_is_cut_at_the_deadline_is_not_taken_for_complete() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    client.head().await.expect("a head");
    assert_eq!(client.exactly(4).await, b"half");
    mesh.drain.run(&mesh.tasks, Duration::from_millis(50)).await;
    assert_eq!(client.rest().await, (vec![], false));
}

#[tokio::test]
async fn clients_of_http_1_0_are_served_in_their_own_manner() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| {
        let host = request.header("host").expect("a host").to_owned();
        match request.first.split(' ').nth(1) {
            Some("/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
            _ => ok(&host),
        }
    });
    let mut client = Peer::connect(address).await;
    let answer = client.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.text(), answer.header("connection")), (&*address.to_string(), Some("close")));
    assert_eq!(client.rest().await, (vec![], true));
    let mut client = Peer::connect(address).await;
    let answer = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!((answer.text(), answer.header("connection")), ("a", Some("keep-alive")));
    client.send("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let (_, headers) = client.head().await.expect("a head");
    assert_eq!(headers.get("connection").map(String::as_str), Some("close"));
    assert_eq!(headers.get("transfer-encoding"), None);
    assert_eq!(client.rest().await, (b"abc".to_vec(), true));
}

#[tokio::test]
async fn a_connection_costs_little_while_it_is_idle() {
    let upstream = Upstream::new().await;
    let (mesh, _) = Mesh::simple(upstream.address).await;
    let listener = mesh.listener("http");
    let client = tokio::net::TcpStream::connect(upstream.address).await.expect("connects");
    let serving = mesh.path.serve_connection(Edge::Outbound, &listener, client);
    let size = size_of_val(&serving);
    assert!(size <= 6 * 1024, "the future of a connection has {size} bytes");
}
