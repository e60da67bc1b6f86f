//! Connections: kept, pooled, drained, broken.

use mesh_proxy::Edge;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};

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
