//! Circuit breakers and ejections: what is refused, what waits, and who is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use engine::proto::{cluster, protobuf};
use mesh_proxy::Edge;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, seconds, until};

fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

fn thresholds(change: impl FnOnce(&mut cluster::circuit_breakers::Thresholds)) -> Option<cluster::CircuitBreakers> {
    let mut thresholds = cluster::circuit_breakers::Thresholds::default();
    change(&mut thresholds);
    Some(cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() })
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_at_once() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster_with("up", &[upstream.address], |cluster| {
        cluster.circuit_breakers = thresholds(|limits| limits.max_requests = number(1));
    });
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let (mut first, mut second) = (Peer::connect(address).await, Peer::connect(address).await);
    first.send(get("/1")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    let answer = second.ask(get("/2")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("overflow")));
    server.send(ok("1")).await;
    assert_eq!(first.message().await.expect("an answer").text(), "1");
    second.send(get("/3")).await;
    server.message().await.expect("the connection is used again");
    server.send(ok("3")).await;
    assert_eq!(second.message().await.expect("an answer").text(), "3");
    let metrics = mesh.metrics();
    assert!(metrics.contains("response_flags=\"UO\""), "{metrics}");
    assert!(metrics.contains("mesh_upstream_overflow_total{cluster=\"up\",limit=\"requests\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_request_waits_for_the_only_connection_and_one_too_many_is_refused() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster_with("up", &[upstream.address], |cluster| {
        cluster.circuit_breakers = thresholds(|limits| {
            limits.max_connections = number(1);
            limits.max_pending_requests = number(1);
        });
    });
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut clients = [Peer::connect(address).await, Peer::connect(address).await, Peer::connect(address).await];
    clients[0].send(get("/0")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    // One of these two waits, the other is one too many.
    clients[1].send(get("/1")).await;
    clients[2].send(get("/2")).await;
    until("one is refused", || mesh.metrics().contains("limit=\"pending\"} 1")).await;
    server.send(ok("0")).await;
    assert_eq!(clients[0].message().await.expect("an answer").text(), "0");
    server.message().await.expect("who waited, on the same connection");
    server.send(ok("waited")).await;
    let mut answers = Vec::new();
    for client in &mut clients[1..] {
        let answer = client.message().await.expect("an answer");
        answers.push((answer.status(), answer.header("x-mesh-failure").map(str::to_owned)));
    }
    answers.sort();
    assert_eq!(answers, [(200, None), (503, Some("overflow".to_owned()))]);
    assert!(!upstream.has_connection().await);
}

#[tokio::test]
async fn a_request_that_waits_gets_a_new_connection_when_the_old_one_is_closed() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster_with("up", &[upstream.address], |cluster| {
        cluster.circuit_breakers = thresholds(|limits| limits.max_connections = number(1));
    });
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let (mut first, mut second) = (Peer::connect(address).await, Peer::connect(address).await);
    first.send(get("/1")).await;
    let mut server = upstream.accept().await;
    server.message().await.expect("a request");
    second.send(get("/2")).await;
    server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1").await;
    assert_eq!(first.message().await.expect("an answer").text(), "1");
    drop(server);
    let mut server = upstream.accept().await;
    server.message().await.expect("the other request");
    server.send(ok("2")).await;
    assert_eq!(second.message().await.expect("an answer").text(), "2");
}

#[tokio::test]
async fn an_opaque_connection_too_many_is_refused() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster_with("up", &[upstream.address], |cluster| {
        cluster.circuit_breakers = thresholds(|limits| limits.max_connections = number(1));
    });
    let address = mesh.tcp("tcp", "up").await;
    let mut first = Peer::connect(address).await;
    first.send("x").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.exactly(1).await, b"x");
    let mut second = Peer::connect(address).await;
    assert_eq!(second.rest().await, (vec![], false), "it is reset");
    drop(first);
    server.rest().await;
    drop(server);
    let metrics = mesh.metrics();
    assert!(metrics.contains("mesh_upstream_overflow_total{cluster=\"up\",limit=\"connections\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_connection_is_closed_after_as_many_requests_as_it_may_have() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster_with("up", &[upstream.address], |cluster| {
        let options = engine::proto::upstream_http::HttpProtocolOptions {
            common_http_protocol_options: Some(engine::proto::core::HttpProtocolOptions {
                max_requests_per_connection: number(2),
                ..Default::default()
            }),
            upstream_protocol_options: Some(
                engine::proto::upstream_http::http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(
                    engine::proto::upstream_http::http_protocol_options::ExplicitHttpConfig {
                        protocol_config: Some(engine::proto::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(Default::default())),
                    },
                ),
            ),
            ..Default::default()
        };
        let (name, url) = engine::proto::extension::HTTP_OPTIONS;
        let any = protobuf::Any { type_url: url.to_owned(), value: prost::Message::encode_to_vec(&options) };
        cluster.typed_extension_protocol_options.insert(name.to_owned(), any);
    });
    mesh.routes("http", vec![forward("up")]);
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    for _ in 0..2 {
        client.send(get("/1")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        server.send(ok("1")).await;
        client.message().await.expect("an answer");
        client.send(get("/2")).await;
        server.message().await.expect("a second request");
        server.send(ok("2")).await;
        client.message().await.expect("an answer");
        assert_eq!(server.rest().await, (vec![], true));
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_too_often_is_left_out_and_comes_back() {
    let mesh = Mesh::new();
    let (bad, good) = (Upstream::new().await, Upstream::new().await);
    let addresses = [bad.address, good.address];
    let status = Arc::new(AtomicU16::new(500));
    let current = Arc::clone(&status);
    bad.serve(&mesh.tasks, move |_| {
        format!("HTTP/1.1 {} -\r\nContent-Length: 3\r\n\r\nbad", current.load(Ordering::SeqCst)).into_bytes()
    });
    good.serve(&mesh.tasks, |_| ok("good"));
    mesh.cluster_with("up", &addresses, |cluster| {
        cluster.outlier_detection = Some(cluster::OutlierDetection {
            consecutive_5xx: number(3),
            base_ejection_time: Some(seconds(0.3)),
            enforcing_success_rate: number(0),
            ..Default::default()
        });
    });
    mesh.routes("http", vec![forward("up")]);
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    let mut failed = 0;
    while !mesh.metrics().contains("mesh_upstream_ejections_total{cluster=\"up\"} 1") {
        failed += usize::from(client.ask(get("/")).await.status() == 500);
    }
    assert_eq!(failed, 3);
    status.store(200, Ordering::SeqCst);
    let begun = std::time::Duration::from_millis(100);
    let left_out = tokio::time::timeout(begun, async { while client.ask(get("/")).await.text() == "good" {} });
    assert!(left_out.await.is_err(), "it is not asked while it is ejected");
    let mut client = Peer::connect(mesh.http("http2", Edge::Outbound).await).await;
    mesh.routes("http2", vec![forward("up")]);
    let back = async { while client.ask(get("/")).await.text() != "bad" {} };
    tokio::time::timeout(crate::mesh::SOON, back).await.expect("it is back after its time");
}
