//! Opaque connections: both ways, half-closed, server-first.

use mesh_proxy::Edge;
use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, Peer, Upstream};

#[tokio::test]
async fn another_endpoint_gets_the_connection_when_one_does_not_listen() {
    let (upstream, gone) = (Upstream::new().await, Upstream::new().await.address);
    let mesh = Mesh::new();
    mesh.cluster("up", &[gone, upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    for _ in 0..8 {
        let mut client = Peer::connect(address).await;
        client.send("hello").await;
        assert_eq!(upstream.accept().await.exactly(5).await, b"hello");
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_side_ends_on_its_own() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    let mut server = upstream.accept().await;
    server.send("220 welcome\r\n").await;
    assert_eq!(client.exactly(13).await, b"220 welcome\r\n", "the server may speak first");
    client.send("PING").await;
    client.stream.shutdown().await.expect("shuts down");
    assert_eq!(server.rest().await, (b"PING".to_vec(), true));
    server.send("PONG").await;
    server.stream.shutdown().await.expect("shuts down");
    assert_eq!(client.rest().await, (b"PONG".to_vec(), true));
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    client.send("x").await;
    let mut server = upstream.accept().await;
    server.exactly(1).await;
    server.stream.set_zero_linger().expect("sets");
    drop(server);
    assert_eq!(client.rest().await, (vec![], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bytes_pass_unchanged() {
    const BLOCKS: usize = 64;
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    let mut server = upstream.accept().await;
    mesh.tasks.spawn("echo", async move {
        for _ in 0..BLOCKS {
            let block = server.exactly(1 << 20).await;
            server.send(block).await;
        }
    });
    for at in 0..BLOCKS {
        client.send(vec![at as u8; 1 << 20]).await;
        assert!(client.exactly(1 << 20).await.iter().all(|byte| *byte == at as u8));
    }
}

#[tokio::test]
async fn a_connection_that_would_come_back_to_the_proxy_is_refused() {
    let mesh = Mesh::new();
    mesh.original_destination("passthrough");
    let address = mesh.tcp("tcp", "passthrough").await;
    let mut client = Peer::connect(address).await;
    let (rest, _) = client.rest().await;
    assert!(rest.is_empty());
    assert_eq!(mesh.connections(), 0);
}

#[tokio::test]
async fn ports_of_unknown_protocol_serve_http_and_everything_else() {
    let (web, other) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("web", &[web.address]);
    mesh.cluster("other", &[other.address]);
    mesh.routes("web", vec![crate::mesh::forward("web")]);
    let address = mesh.auto("auto", "web", "other").await;
    web.serve(&mesh.tasks, |_| crate::mesh::ok("web"));

    let mut client = Peer::connect(address).await;
    assert_eq!(client.ask(crate::mesh::get("/")).await.text(), "web");

    let mut redis = Peer::connect(address).await;
    redis.send("*1\r\n$4\r\nPING\r\n").await;
    let mut server = other.accept().await;
    assert_eq!(server.exactly(14).await, b"*1\r\n$4\r\nPING\r\n");

    let mut silent = Peer::connect(address).await;
    let mut server = other.accept().await;
    server.send("220 first\r\n").await;
    assert_eq!(silent.exactly(11).await, b"220 first\r\n", "after the wait for the client's first bytes");

    let mut h2 = Peer::connect(address).await;
    h2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut server = other.accept().await;
    assert_eq!(server.exactly(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let _ = Edge::Outbound;
}

#[tokio::test]
async fn the_server_may_end_first_and_still_listen() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    let mut server = upstream.accept().await;
    server.send("all there is").await;
    server.stream.shutdown().await.expect("shuts down");
    assert_eq!(client.rest().await, (b"all there is".to_vec(), true));
    client.send("thanks").await;
    assert_eq!(server.exactly(6).await, b"thanks");
    drop(client);
    assert_eq!(server.rest().await, (vec![], true));
}

#[tokio::test]
async fn a_client_that_breaks_off_is_a_reset_to_the_server() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    client.send("x").await;
    let mut server = upstream.accept().await;
    server.exactly(1).await;
    client.stream.set_zero_linger().expect("sets");
    drop(client);
    assert_eq!(server.rest().await, (vec![], false));
}

/// Writes until nothing is taken any more, and gives how much was.
async fn fill(peer: &mut Peer) -> usize {
    let block = vec![7; 256 * 1024];
    let mut written = 0;
    loop {
        let writing = peer.stream.write(&block);
        match tokio::time::timeout(std::time::Duration::from_millis(300), writing).await {
            Ok(count) => written += count.expect("writes"),
            Err(_) => return written,
        }
        assert!(written < 100 * 1024 * 1024, "nothing holds the writer back");
    }
}

#[tokio::test]
async fn who_does_not_read_stops_who_writes_in_both_directions() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let address = mesh.tcp("tcp", "up").await;
    let mut client = Peer::connect(address).await;
    let mut server = upstream.accept().await;
    let (sent, returned) = (fill(&mut client).await, fill(&mut server).await);
    assert_eq!(server.exactly(sent).await.len(), sent, "and nothing of it is lost");
    assert_eq!(client.exactly(returned).await.len(), returned);
}
