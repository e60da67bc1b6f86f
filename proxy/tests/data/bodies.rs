//! Bodies both ways: framed anew, streamed, in bounded memory.

use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, Peer, Upstream, get, ok};

#[tokio::test]
async fn bodies_by_length_and_in_chunks_arrive_as_they_were_sent() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| {
        let kind = if request.header("content-length").is_some() { "length" } else { "chunks" };
        let body = format!("{kind} {} {}", String::from_utf8_lossy(&request.body), request.trailers);
        match kind {
            "length" => format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x};x=y\r\n{body}\r\n0\r\nT: 1\r\nContent-Length: 5\r\n\r\n", body.len()).into_bytes(),
            _ => ok(&body),
        }
    });
    let mut client = Peer::connect(address).await;
    for _ in 0..2 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!((answer.text(), &*answer.trailers), ("length hello ", "T: 1"));
        assert_eq!(answer.header("content-length"), None);
        let answer = client
            .ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\nU: 2\r\nHost: b\r\n\r\n")
            .await;
        assert_eq!(answer.text(), "chunks hello U: 2");
    }
}

#[tokio::test]
async fn responses_without_body_do_not_hold_up_the_next() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| match request.first.split(' ').nth(1) {
        Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        Some("/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n".to_vec(),
        Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec(),
        _ => ok("body"),
    });
    let mut client = Peer::connect(address).await;
    for (request, status) in [(get("/204"), "204"), (get("/304"), "304"), (get("/head").replace("GET", "HEAD"), "200")]
    {
        client.send(request).await;
        let (first, headers) = client.head().await.expect("a head");
        assert!(first.contains(status), "{first}");
        let length = if status == "204" { None } else { Some("100") };
        assert_eq!(headers.get("content-length").map(String::as_str), length);
        assert_eq!(client.ask(get("/")).await.text(), "body");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_becomes_chunks() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    for _ in 0..2 {
        client.send(get("/")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send("HTTP/1.0 200 OK\r\nX: y\r\n\r\nall").await;
        drop(server);
        let answer = client.message().await.expect("an answer");
        assert_eq!((answer.text(), answer.header("transfer-encoding")), ("all", Some("chunked")));
    }
}

#[tokio::test]
async fn expect_100_continue_goes_both_ways_before_the_body() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let mut server = upstream.accept().await;
    let (_, headers) = server.head().await.expect("a head");
    assert_eq!(headers.get("expect").map(String::as_str), Some("100-continue"));
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.expect("a head").0, "HTTP/1.1 100 Continue");
    client.send("hello").await;
    assert_eq!(server.exactly(5).await, b"hello");
    server.send(ok("done")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "done");
}

#[tokio::test]
async fn a_refusal_instead_of_100_continue_reaches_the_client() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("connection")), (417, Some("close")));
    assert_eq!(client.rest().await, (vec![], true));
}

#[tokio::test]
async fn an_answer_may_come_while_the_request_still_flows() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    assert_eq!(server.exactly(8).await, b"3\r\none\r\n");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").await;
    client.head().await.expect("a head");
    assert_eq!(client.exactly(8).await, b"3\r\nONE\r\n");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(server.exactly(13).await, b"3\r\ntwo\r\n0\r\n\r\n");
    server.send("3\r\nTWO\r\n0\r\n\r\n").await;
    assert_eq!(client.exactly(13).await, b"3\r\nTWO\r\n0\r\n\r\n");
    client.send(get("/again")).await;
    assert_eq!(server.message().await.expect("on the same connection").first, "GET /again HTTP/1.1");
}

#[tokio::test]
async fn an_upstream_that_answers_and_closes_early_is_heard() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nbegin").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno.").await;
    drop(server);
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.text(), answer.header("connection")), (413, "no.", Some("close")));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_upstream() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    // The kernel's buffers take a few megabytes on both sides; the proxy takes no more than one buffer.
    let block = vec![0; 256 * 1024];
    let mut written = 0usize;
    loop {
        let writing = server.stream.write(&block);
        match tokio::time::timeout(std::time::Duration::from_millis(300), writing).await {
            Ok(count) => written += count.expect("writes"),
            Err(_) => break,
        }
        assert!(written < 100 * 1024 * 1024, "nothing holds the upstream back");
    }
    client.head().await.expect("a head");
    let rest = client.exactly(written).await;
    assert_eq!(rest.len(), written);
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let upstream = Upstream::new().await;
    let (_mesh, address) = Mesh::simple(upstream.address).await;
    let mut client = Peer::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    let block = vec![0; 256 * 1024];
    let mut written = 0usize;
    while let Ok(count) = tokio::time::timeout(std::time::Duration::from_millis(300), client.stream.write(&block)).await
    {
        written += count.expect("writes");
        assert!(written < 100 * 1024 * 1024, "nothing holds the client back");
    }
    assert_eq!(server.exactly(written).await.len(), written);
}
