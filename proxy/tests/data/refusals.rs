//! A proxy whose application is not there: the proxies that ask it ask another.

use std::net::SocketAddr;

use mesh_proxy::Edge;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok};
use crate::peers::{H2Client, post};

/// A proxy beside an application, which may be gone.
async fn beside(application: SocketAddr) -> (Mesh, SocketAddr) {
    let mesh = Mesh::new();
    mesh.cluster("app", &[application]);
    mesh.routes("http", vec![forward("app")]);
    let address = mesh.http("http", Edge::Inbound).await;
    (mesh, address)
}

/// A proxy that calls endpoints with proxies beside them, as no rule about retries has it.
async fn calling(proxies: &[SocketAddr]) -> (Mesh, SocketAddr) {
    let mesh = Mesh::new();
    mesh.beside_proxies("up", proxies);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    (mesh, address)
}

fn count(mesh: &Mesh, series: &str) -> usize {
    let metrics = mesh.metrics();
    let line = metrics.lines().find(|line| line.starts_with("istio_requests_total{") && line.contains(series));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn what_never_came_to_an_application_is_sent_to_another_without_a_rule_that_says_so() {
    let (app, gone) = (Upstream::new().await, Upstream::new().await.address);
    let (ill, at_ill) = beside(gone).await;
    let (_well, at_well) = beside(app.address).await;
    let (near, address) = calling(&[at_ill, at_well]).await;
    app.serve(&near.tasks, |request| ok(&format!("{} {}", request.first, request.text())));
    let mut client = Peer::connect(address).await;
    for _ in 0..150 {
        assert_eq!(client.ask(get("/")).await.status(), 200);
        let answer = client.ask("POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "POST /p HTTP/1.1 hello"),
            "not even begun, so not repeated"
        );
    }
    let refused = count(&ill, "response_code=\"503\"");
    assert!(
        (1..30).contains(&refused),
        "the ill one is asked first at times, and then left alone for a while: {refused}"
    );
    let metrics = near.metrics();
    let connections = metrics.lines().find(|line| line.starts_with("mesh_upstream_connections_total"));
    assert_eq!(
        connections,
        Some("mesh_upstream_connections_total{cluster=\"up\"} 2"),
        "one to each lives through it all"
    );
}

#[tokio::test]
async fn a_request_that_all_refuse_fails_with_a_word_for_it() {
    let gone = Upstream::new().await.address;
    let (_ill, at_ill) = beside(gone).await;
    let (near, address) = calling(&[at_ill]).await;
    let answer = Peer::connect(address).await.ask(get("/")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("upstream_refused")));
    assert!(near.metrics().contains("response_flags=\"UR\""), "{}", near.metrics());
    let mut call = post("/");
    call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let answer = H2Client::connect(address, &near.tasks).await.ask(call).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
}

#[tokio::test]
async fn what_an_application_may_have_begun_is_sent_to_another_only_if_it_may_be_done_twice() {
    for (method, status, code) in [("POST", 503, Some("upstream_reset")), ("GET", 200, None)] {
        let (app, other) = (Upstream::new().await, Upstream::new().await);
        let (_first, at_first) = beside(app.address).await;
        let (_second, at_second) = beside(other.address).await;
        let (near, address) = calling(&[at_first]).await;
        other.serve(&near.tasks, |_| ok("the other"));
        let mut client = Peer::connect(address).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        client.send(&request).await;
        let mut begun = app.accept().await;
        assert!(begun.message().await.is_some());
        begun.send(ok("")).await;
        assert_eq!(client.message().await.expect("an answer").status(), 200);
        near.beside_proxies("up", &[at_first, at_second]);
        loop {
            client.send(&request).await;
            tokio::select! {
                asked = begun.message() => {
                    assert!(asked.is_some(), "on the same connection");
                    break;
                }
                answer = client.message() => assert_eq!(answer.expect("an answer").text(), "the other"),
            }
        }
        drop((app, begun));
        let answer = client.message().await.expect("an answer");
        assert_eq!((answer.status(), answer.header("x-mesh-failure")), (status, code), "{method}: {}", answer.text());
    }
}
