//! What two parsers could read differently is refused, and no upstream ever sees it.

use mesh_proxy::Edge;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok};

const REFUSED: &[(&str, u16)] = &[
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web socket\r\n\r\n", 400),
    ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT a:0 HTTP/1.1\r\nHost: a:0\r\n\r\n", 400),
    ("CONNECT a:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", 400),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 0\r\n\r\n", 400),
    ("\x16\x03\x01\r\n", 400),
    ("\r\n\r\n", 400),
];

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_forwarded() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    for (request, status) in REFUSED {
        let mut client = Peer::connect(address).await;
        let answer = client.ask(request).await;
        assert_eq!(answer.status(), *status, "{request:?}");
        let code = answer.header("x-mesh-failure").expect("a code");
        assert_eq!(code, if *status == 501 { "upgrade_refused" } else { "bad_request" }, "{request:?}");
    }
    assert!(!upstream.has_connection().await, "the upstream has seen nothing");
}

#[tokio::test]
async fn what_follows_a_refused_request_is_not_served() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    let smuggled = get("/admin");
    let first = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    assert_eq!(client.ask(first).await.status(), 400);
    assert_eq!(client.rest().await, (vec![], true));
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_ends_the_request_at_the_upstream_too() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    assert_eq!(server.exactly(8).await, b"3\r\nabc\r\n");
    client.send("0x5\r\nhello\r\n0\r\n\r\n").await;
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (400, Some("bad_request")));
    let (rest, _) = server.rest().await;
    assert!(rest.is_empty(), "not even the end of a body: {rest:?}");
}

#[tokio::test]
async fn the_rest_of_a_body_is_not_taken_for_a_request() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    let smuggled = get("/admin");
    let length = smuggled.len() + 5;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nbegin")).await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    assert_eq!(server.exactly(5).await, b"begin");
    drop(server);
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("connection")), (503, Some("close")));
    client.send(smuggled).await;
    assert_eq!(client.rest().await.0, b"");
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn large_heads_are_refused_with_431() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    for request in [long, many] {
        let answer = Peer::connect(address).await.ask(request).await;
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (431, Some("too_large")));
    }
    assert!(!upstream.has_connection().await);
    let upstream_sees = async { upstream.accept().await.message().await.expect("a request") };
    let mut client = Peer::connect(address).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(60_000))).await;
    assert_eq!(upstream_sees.await.header("x").map(str::len), Some(60_000), "what is below the limit passes");
}

#[tokio::test]
async fn responses_that_cannot_be_read_are_never_passed_on() {
    for response in [
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ] {
        let upstream = Upstream::new().await;
        let (_mesh, address) = Mesh::simple(upstream.address).await;
        let mut client = Peer::connect(address).await;
        client.send(get("/")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send(response).await;
        let answer = client.message().await.expect("an answer");
        assert_eq!(
            (answer.status(), answer.header("x-mesh-failure")),
            (502, Some("upstream_protocol")),
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn bytes_behind_a_response_are_not_taken_for_the_next() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/first")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send([ok("1"), ok("poison")].concat()).await;
    assert_eq!(client.message().await.expect("an answer").text(), "1");
    client.send(get("/second")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request on a new connection");
    server.send(ok("2")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "2");
}

#[tokio::test]
async fn cve_2023_27487_headers_of_the_mesh_itself_are_not_believed_from_outside() {
    for edge in [Edge::Gateway, Edge::Outbound, Edge::Inbound] {
        let upstream = Upstream::new().await;
        let mesh = Mesh::new();
        mesh.cluster("up", &[upstream.address]);
        mesh.routes("http", vec![forward("up")]);
        let address = mesh.http("http", edge).await;
        let mut client = Peer::connect(address).await;
        client
            .send("GET /a//./b HTTP/1.1\r\nHost: a\r\nX-Envoy-Original-Path: /x\r\nx-mesh-peer: admin\r\nX-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\n\r\n")
            .await;
        let request = upstream.accept().await.message().await.expect("a request");
        assert_eq!(request.first, "GET /a/b HTTP/1.1", "{edge:?}");
        for name in ["x-envoy-original-path", "x-mesh-peer", "te", "connection"] {
            assert_eq!(request.header(name), None, "{edge:?} {name}");
        }
        let forwarded_for = if edge == Edge::Gateway { "9.9.9.9, 127.0.0.1" } else { "9.9.9.9" };
        assert_eq!(request.header("x-forwarded-for"), Some(forwarded_for), "{edge:?}");
        assert_eq!(request.header("x-request-id").is_some(), edge != Edge::Inbound, "{edge:?}");
        let proto = if edge == Edge::Gateway { Some("http") } else { None };
        assert_eq!(request.header("x-forwarded-proto"), proto, "{edge:?}");
    }
}
