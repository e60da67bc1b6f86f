//! Callers that send garbage, too much, or too slowly.

use std::sync::Arc;
use std::time::Duration;

use runtime::svid::wire::{CertificateRequest, CsrRequest, CsrResponse, HANDLE_CSR};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_prost::ProstCodec;

use crate::world::{AUDIENCE, REVIEWS, RunningCa, SERVER, SetClock, World, id_of, refusal, request};

#[tokio::test]
async fn garbage_and_huge_requests_are_refused_and_the_next_is_served() {
    let world = World::start().await;
    let ca = world.ca().await;
    let token = world.token("default", "reviews", AUDIENCE);
    let (_publisher, svids) = runtime::svid::channel();
    let good = request(None).csr;
    for (csr, expected) in [
        (String::new(), "there is none"),
        ("garbage".to_owned(), "there is none"),
        (good.replace('M', "N"), ""),
        (format!("{good}{}", "A".repeat(10_000)), "8192 are the limit"),
    ] {
        let asked = CertificateRequest { csr, validity_duration: 0, metadata: None };
        let (code, text) = refusal(ca.ask(&world, Some(&token), &svids, asked).await);
        assert_eq!(code, Code::InvalidArgument, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let huge = CertificateRequest { csr: "A".repeat(10 << 20), validity_duration: 0, metadata: None };
    let error = ca.ask(&world, Some(&token), &svids, huge).await.expect_err("it is not even read");
    assert!(!error.to_string().is_empty());
    for seconds in [-1, i64::MIN, i64::MAX, 86_401] {
        let asked = CertificateRequest { validity_duration: seconds, ..request(None) };
        let (code, text) = refusal(ca.ask(&world, Some(&token), &svids, asked).await);
        assert_eq!(code, Code::InvalidArgument, "{text}");
    }
    assert_eq!(id_of(&ca.ask_by_token(&world, &token).await.expect("issued")), REVIEWS);
}

async fn tls(ca: &RunningCa) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = runtime::tls::client_config(ca.root.as_bytes(), &[b"h2"]).expect("a configuration");
    let stream = TcpStream::connect(ca.ca.addresses.csr).await.expect("it listens");
    let name = SERVER.try_into().expect("a name");
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("it is the CA")
}

#[tokio::test]
async fn slow_and_silent_callers_hold_up_nobody() {
    let world = World::start().await;
    let ca = world.ca().await;
    // Some never begin a handshake, others stop in the middle of HTTP/2's preface.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(TcpStream::connect(ca.ca.addresses.csr).await.expect("it listens"));
    }
    let mut slow = tls(&ca).await;
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.expect("written");
    let token = world.token("default", "reviews", AUDIENCE);
    let asked = tokio::time::timeout(Duration::from_secs(10), ca.ask_by_token(&world, &token)).await;
    assert_eq!(id_of(&asked.expect("in time").expect("issued")), REVIEWS);
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_and_the_next_is_served_when_one_has_ended() {
    let world = World::start().await;
    let bounded = world.try_ca(SetClock::new(), |settings| settings.bounds.connections = 2).await;
    let ca = bounded.unwrap_or_else(|failure| panic!("{failure}"));
    let held = [tls(&ca).await, tls(&ca).await];
    let mut over = tls(&ca).await;
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), over.read_to_end(&mut answer)).await;
    assert!(end.expect("it is closed").is_err() || answer.is_empty(), "nothing is said: {answer:?}");
    assert_eq!(ca.ca.metrics.count_refused("connections"), 1);
    drop(held);
    let token = world.token("default", "reviews", AUDIENCE);
    // The CA learns that they have ended some moments later.
    let asking = async {
        loop {
            if let Ok(answer) = ca.ask_by_token(&world, &token).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), asking).await.expect("there is room again");
    assert_eq!(id_of(&answer), REVIEWS);
}

#[tokio::test]
async fn requests_over_the_bound_are_told_to_come_back() {
    let world = World::start().await;
    let token = world.token("default", "reviews", AUDIENCE);
    for (requests, expected) in [(0, Some(Code::ResourceExhausted)), (1, None)] {
        let bounded = world.try_ca(SetClock::new(), |settings| settings.bounds.requests = requests).await;
        let ca = bounded.unwrap_or_else(|failure| panic!("{failure}"));
        for _ in 0..3 {
            let answer = ca.ask_by_token(&world, &token).await;
            assert_eq!(answer.is_err().then(|| refusal(answer).0), expected, "{requests} at once");
        }
        assert_eq!(ca.ca.metrics.count_refused("busy"), if requests == 0 { 3 } else { 0 });
    }
}

#[tokio::test]
async fn something_else_than_http2_is_turned_away() {
    let world = World::start().await;
    let ca = world.ca().await;
    let mut stream = tls(&ca).await;
    stream.write_all(&[b'x'; 64 * 1024]).await.expect("written");
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let _ = end.expect("the connection is closed");
}

#[tokio::test]
async fn the_service_of_2017_issues_what_was_proved_and_refuses_another_name() {
    let world = World::start().await;
    let ca = world.ca().await;
    let (_publisher, svids) = runtime::svid::channel();
    let roots = runtime::tls::roots(ca.root.as_bytes()).expect("roots");
    let config = svids.named_client_config(roots, &[b"h2"]).expect("a configuration");
    let address = ca.ca.addresses.csr;
    let connector = tower::service_fn(move |_: http::Uri| {
        let name = SERVER.try_into().expect("a name");
        let connecting = runtime::svid::client::connect_tls(TcpStream::connect(address), Arc::clone(&config), name);
        async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://ca");
    let channel = endpoint.connect_with_connector(connector).await.expect("connected");
    let mut grpc = tonic::client::Grpc::new(channel);
    let mut ask = async |id: Option<&str>, credential_type: &str, minutes: i32| {
        let message = CsrRequest {
            csr_pem: request(id).csr.into_bytes(),
            node_agent_credential: world.token("default", "reviews", AUDIENCE).into_bytes(),
            credential_type: credential_type.to_owned(),
            requested_ttl_minutes: minutes,
        };
        grpc.ready().await.expect("connected");
        let codec = ProstCodec::<CsrRequest, CsrResponse>::new();
        let path = http::uri::PathAndQuery::from_static(HANDLE_CSR);
        grpc.unary(tonic::Request::new(message), path, codec).await.map(tonic::Response::into_inner)
    };
    let response = ask(Some(REVIEWS), "k8s", 60).await.expect("issued");
    assert!(response.is_approved && response.status.is_none());
    let chain = runtime::tls::certificates(&response.signed_cert_chain).expect("PEM");
    let leaf = runtime::svid::Leaf::read(&chain[0]).expect("an SVID");
    assert_eq!(leaf.peer.id.to_string(), REVIEWS);
    let other = ask(Some("spiffe://cluster.local/ns/default/sa/ratings"), "k8s", 0).await.expect_err("not its own");
    assert_eq!(other.code(), Code::PermissionDenied);
    assert_eq!(
        other.message(),
        format!("spiffe://cluster.local/ns/default/sa/ratings is not the caller's identity; the caller is {REVIEWS}")
    );
    assert_eq!(ask(None, "aws", 0).await.expect_err("it is not known").code(), Code::Unauthenticated);
    assert_eq!(ask(None, "k8s", 60 * 24 * 8).await.expect_err("too long").code(), Code::InvalidArgument);
}
