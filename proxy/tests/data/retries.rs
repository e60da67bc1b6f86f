//! Retries: what is tried again, where, how often, and what never is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::proto::{cluster, extension, protobuf, route};
use mesh_proxy::Edge;

use crate::mesh::{Mesh, Message1, Peer, Upstream, forward_with, get, ok, seconds};

fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

/// What a rule's `simpleRetry` becomes.
fn policy(attempts: u32) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: "5xx,connect-failure,refused-stream".to_owned(),
        num_retries: number(attempts),
        retry_host_predicate: vec![route::retry_policy::RetryHostPredicate {
            name: extension::PREVIOUS_HOSTS.0.to_owned(),
            config_type: None,
        }],
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    }
}

async fn serve(mesh: &Mesh, policy: route::RetryPolicy) -> SocketAddr {
    mesh.routes("http", vec![forward_with("up", |action| action.retry_policy = Some(policy))]);
    mesh.http("http", Edge::Outbound).await
}

/// An upstream that answers with these statuses in turn, the last one for ever; and how often it was asked.
async fn answering(mesh: &Mesh, statuses: &'static [u16]) -> (SocketAddr, Arc<AtomicUsize>) {
    let upstream = Upstream::new().await;
    let (address, asked) = (upstream.address, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    upstream.serve(&mesh.tasks, move |request| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        answer(statuses[nth.min(statuses.len() - 1)], request)
    });
    (address, asked)
}

/// Says what was asked.
fn answer(status: u16, request: &Message1) -> Vec<u8> {
    let body = format!("{}: {}", request.first, String::from_utf8_lossy(&request.body));
    format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn an_error_is_tried_again_until_it_is_none() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503, 500, 200]).await;
    mesh.cluster("up", &[up]);
    let mut client = Peer::connect(serve(&mesh, policy(3)).await).await;
    let answer = client.ask(get("/a")).await;
    assert_eq!((answer.status(), answer.text()), (200, "GET /a HTTP/1.1: "));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(mesh.metrics().contains("mesh_upstream_retries_total{cluster=\"up\"} 2"), "{}", mesh.metrics());
}

#[tokio::test]
async fn the_last_error_is_passed_on_when_all_attempts_are_made() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503]).await;
    mesh.cluster("up", &[up]);
    let mut client = Peer::connect(serve(&mesh, policy(2)).await).await;
    let answer = client.ask(get("/a")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, None), "it is the application's own");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    client.ask(get("/next")).await;
    let metrics = mesh.metrics();
    assert!(metrics.contains("response_flags=\"URX\""), "{metrics}");
    assert!(metrics.contains("mesh_upstream_retries_refused_total{cluster=\"up\",limit=\"attempts\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint() {
    let mesh = Mesh::new();
    let (bad, asked) = answering(&mesh, &[500]).await;
    let (good, _) = answering(&mesh, &[200]).await;
    mesh.cluster("up", &[bad, good]);
    let mut client = Peer::connect(serve(&mesh, policy(1)).await).await;
    for _ in 0..10 {
        assert_eq!(client.ask(get("/")).await.status(), 200);
    }
    assert!(asked.load(Ordering::SeqCst) > 0, "the bad one was asked first, at times");
}

#[tokio::test]
async fn a_connection_that_is_refused_is_tried_again_elsewhere() {
    let mesh = Mesh::new();
    let closed = Upstream::new().await.address;
    let (good, _) = answering(&mesh, &[200]).await;
    mesh.cluster("up", &[closed, good]);
    let mut client = Peer::connect(serve(&mesh, policy(1)).await).await;
    for _ in 0..4 {
        assert_eq!(client.ask(get("/")).await.status(), 200);
    }
    mesh.cluster("up", &[closed]);
    let answer = client.ask(get("/")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (503, Some("upstream_connect")));
    assert!(mesh.metrics().contains("response_flags=\"UF,URX\""), "{}", mesh.metrics());
}

#[tokio::test]
async fn a_small_body_is_sent_again_as_it_was() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503, 200]).await;
    mesh.cluster("up", &[up]);
    let address = serve(&mesh, policy(1)).await;
    let mut client = Peer::connect(address).await;
    let answer = client.ask("POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!((answer.status(), answer.text()), (200, "POST /p HTTP/1.1: hello"), "the rule asks for it: 5xx");
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    let (up, _) = answering(&mesh, &[503, 200]).await;
    mesh.cluster("up", &[up]);
    let chunks = "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let answer =
        client.ask(format!("PUT /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    assert_eq!((answer.status(), answer.text()), (200, "PUT /c HTTP/1.1: hello"));
    assert_eq!(client.ask(get("/next")).await.status(), 200, "the client's connection goes on");
}

#[tokio::test]
async fn a_body_that_is_still_coming_goes_on_where_it_was() {
    let upstream = Upstream::new().await;
    let mesh = Mesh::new();
    mesh.cluster("up", &[upstream.address]);
    let mut client = Peer::connect(serve(&mesh, policy(1)).await).await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst").await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    assert_eq!(server.exactly(5).await, b"first");
    drop(server);
    let mut server = upstream.accept().await;
    server.head().await.expect("the head again");
    assert_eq!(server.exactly(5).await, b"first");
    client.send("later").await;
    assert_eq!(server.exactly(5).await, b"later");
    server.send(ok("done")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "done");
}

#[tokio::test]
async fn a_body_that_is_not_kept_as_a_whole_is_never_sent_twice() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503, 200]).await;
    mesh.cluster("up", &[up]);
    let mut client = Peer::connect(serve(&mesh, policy(3)).await).await;
    let body = "x".repeat(64 * 1024 + 1);
    client.send(format!("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.message().await.expect("an answer").status(), 503);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_may_have_been_processed_is_tried_again_only_if_it_may_be_done_twice_or_the_rule_asks_for_it() {
    for (words, method, is_again) in [
        ("5xx", "GET", true),
        ("5xx", "POST", true),
        ("reset", "GET", true),
        ("reset", "DELETE", true),
        ("reset", "POST", false),
        ("gateway-error", "PATCH", false),
        ("connect-failure", "GET", false),
    ] {
        let upstream = Upstream::new().await;
        let mesh = Mesh::new();
        mesh.cluster("up", &[upstream.address]);
        let words = route::RetryPolicy { retry_on: words.to_owned(), ..policy(1) };
        let mut client = Peer::connect(serve(&mesh, words.clone()).await).await;
        client.send(format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")).await;
        let mut server = upstream.accept().await;
        server.message().await.expect("a request");
        drop(server);
        if is_again {
            let mut server = upstream.accept().await;
            server.message().await.expect("the request again");
            server.send(ok("2")).await;
        }
        let answer = client.message().await.expect("an answer");
        assert_eq!(answer.status(), if is_again { 200 } else { 503 }, "{method} {words:?}");
        assert!(!upstream.has_connection().await);
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_and_another_made() {
    let (slow, good) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("up", &[slow.address]);
    let policy = route::RetryPolicy { per_try_timeout: Some(seconds(0.05)), ..policy(1) };
    let mut client = Peer::connect(serve(&mesh, policy).await).await;
    client.send(get("/slow")).await;
    let mut first = slow.accept().await;
    first.message().await.expect("a request");
    mesh.cluster("up", &[good.address]);
    // The tables of a request are those of its beginning: its second try goes to the same endpoint.
    let mut second = slow.accept().await;
    second.message().await.expect("the request again");
    second.send(ok("2")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "2");

    client.send(get("/slow")).await;
    for _ in 0..2 {
        good.accept().await.message().await.expect("a request");
    }
    let answer = client.message().await.expect("an answer");
    assert!(matches!(answer.header("x-mesh-failure"), Some("timeout" | "upstream_reset")), "{answer:?}");
}

#[tokio::test]
async fn the_timeout_is_that_of_all_tries_together() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503]).await;
    mesh.cluster("up", &[up]);
    let slow = route::retry_policy::RetryBackOff { base_interval: Some(seconds(1000.0)), max_interval: None };
    let route = forward_with("up", |action| {
        action.timeout = Some(seconds(0.05));
        action.retry_policy = Some(route::RetryPolicy { retry_back_off: Some(slow), ..policy(5) });
    });
    mesh.routes("http", vec![route]);
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    let answer = client.ask(get("/")).await;
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (504, Some("timeout")));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_stay_within_the_budget_of_the_cluster() {
    let mesh = Mesh::new();
    let (up, asked) = answering(&mesh, &[503]).await;
    let budget =
        cluster::circuit_breakers::thresholds::RetryBudget { min_retry_concurrency: number(0), ..Default::default() };
    mesh.cluster_with("up", &[up], |cluster| {
        cluster.circuit_breakers = Some(cluster::CircuitBreakers {
            thresholds: vec![cluster::circuit_breakers::Thresholds {
                retry_budget: Some(budget),
                ..Default::default()
            }],
            ..Default::default()
        });
    });
    let mut client = Peer::connect(serve(&mesh, policy(3)).await).await;
    assert_eq!(client.ask(get("/")).await.status(), 503);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a fifth of one request is no retry");
    client.ask(get("/next")).await;
    let metrics = mesh.metrics();
    assert!(metrics.contains("mesh_upstream_retries_refused_total{cluster=\"up\",limit=\"budget\"} 2"), "{metrics}");
}
