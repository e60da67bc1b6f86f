//! HTTP/2 on either side.

use std::net::SocketAddr;

use bytes::Bytes;
use engine::proto::{cluster, core, extension, protobuf, upstream_http};
use http::{HeaderMap, Request, Response};
use mesh_proxy::Edge;
use prost::Message;

use super::mesh::{Mesh, Peer, Upstream, forward, get as get1, ok};
use super::peers::{H2Client, H2Server, drink, post, reply};

/// Has a cluster speak HTTP/2 to its endpoints.
pub fn by_h2(cluster: &mut cluster::Cluster) {
    use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default())),
        })),
        ..Default::default()
    };
    let (name, url) = extension::HTTP_OPTIONS;
    let any = protobuf::Any { type_url: url.to_owned(), value: options.encode_to_vec() };
    cluster.typed_extension_protocol_options.insert(name.to_owned(), any);
}

/// One upstream of HTTP/2 behind one catch-all route.
pub async fn to_h2(mesh: &Mesh, upstream: SocketAddr) -> SocketAddr {
    mesh.cluster_with("up", &[upstream], by_h2);
    mesh.routes("http", vec![forward("up")]);
    mesh.http("http", Edge::Outbound).await
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))])
}

#[tokio::test]
async fn a_client_of_http2_reaches_an_upstream_of_http1() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let asking = client.try_ask(post("/a/../b?c"), b"hello", Some(trailers("x-sum", "5")));
    let answering = async {
        let mut peer = upstream.accept().await;
        let request = peer.message().await.expect("a request");
        assert_eq!((request.first.as_str(), request.header("host")), ("POST /b?c HTTP/1.1", Some("test")));
        assert_eq!((request.text(), request.trailers.as_str()), ("hello", "x-sum: 5"));
        peer.send(
            "HTTP/1.1 201 Created\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n",
        )
        .await;
        peer
    };
    let (answer, _peer) = tokio::join!(asking, answering);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.header("x-a"), answer.text()), (201, Some("1"), "abc"));
    assert_eq!(answer.trailers.expect("trailers")["x-end"], "1");
}

#[tokio::test]
async fn a_client_of_http1_reaches_an_upstream_of_http2() {
    let mesh = Mesh::new();
    let server = H2Server::serve(&mesh.tasks, |request, mut respond| async move {
        assert_eq!(request.uri().to_string(), "http://test/b?c");
        assert!(!request.headers().contains_key("host") && !request.headers().contains_key("transfer-encoding"));
        let (body, came) = drink(request.into_body()).await.expect("a body");
        assert_eq!((&*body, came.expect("trailers")["x-sum"].as_bytes()), (&b"hello"[..], &b"5"[..]));
        let response = Response::builder().status(201).header("x-a", "1").body(()).expect("a response");
        let mut send = respond.send_response(response, false).expect("sends");
        send.send_data(Bytes::from_static(b"abc"), false).expect("sends");
        send.send_trailers(trailers("x-end", "1")).expect("sends");
    })
    .await;
    let mut client = Peer::connect(to_h2(&mesh, server.address).await).await;
    for _ in 0..3 {
        let answer = client
            .ask("POST /a/../b?c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n")
            .await;
        assert_eq!((answer.status(), answer.header("x-a"), answer.text()), (201, Some("1"), "abc"));
        assert_eq!(answer.trailers, "x-end: 1");
    }
    assert_eq!(server.accepted(), 1, "all requests share a connection");
}

#[tokio::test]
async fn requests_at_the_same_time_share_a_connection() {
    let mesh = Mesh::new();
    let server = H2Server::serve(&mesh.tasks, |request: Request<_>, mut respond| async move {
        let path = request.uri().path().to_owned();
        reply(&mut respond, 200, &path);
    })
    .await;
    let address = to_h2(&mesh, server.address).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let asked = (0..200).map(|n| {
        let client = client.clone();
        async move { client.get(&format!("/{n}")).await.text().to_owned() }
    });
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().enumerate().all(|(n, answer)| *answer == format!("/{n}")));
    let mut text = Peer::connect(address).await;
    assert_eq!(text.ask(get1("/text")).await.text(), "/text");
    // The server allows as many streams as it is asked for, so there is no reason for a second one.
    assert_eq!(server.accepted(), 1);
    assert_eq!(mesh.path.h2_upstreams(), 1);
}

#[tokio::test]
async fn what_has_no_body_has_none_on_the_other_side() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| {
        assert!(request.header("transfer-encoding").is_none() && request.header("content-length").is_none());
        if request.first.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
        }
    });
    let client = H2Client::connect(address, &mesh.tasks).await;
    let head = client.ask(Request::head("http://test/").body(()).expect("a request")).await;
    assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("9"), ""));
    assert_eq!(client.get("/").await.status, 204);
    assert_eq!(client.ask(Request::head("http://test/").body(()).expect("a request")).await.status, 200);
}

#[tokio::test]
async fn failures_of_the_mesh_are_answered_alike() {
    let mesh = Mesh::new();
    mesh.cluster("up", &["127.0.0.1:1".parse().expect("an address")]);
    mesh.routes("http", vec![forward("up")]);
    let client = H2Client::connect(mesh.http("http", Edge::Outbound).await, &mesh.tasks).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.header("x-mesh-failure")), (503, Some("upstream_connect")));
    let mut call = post("/");
    call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc+proto"));
    let answer = client.ask(call).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
    assert_eq!(answer.header("x-mesh-failure"), Some("upstream_connect"));
    assert_eq!(
        answer.header("grpc-message"),
        Some("upstream_connect: the connection to the upstream could not be made")
    );
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http2_is_named() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    let mut client = Peer::connect(to_h2(&mesh, upstream.address).await).await;
    client.send(get1("/")).await;
    let mut peer = upstream.accept().await;
    assert!(peer.head().await.expect("a preface").0.starts_with("PRI"));
    peer.send(ok("what?")).await;
    let answer = client.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("x-mesh-failure")), (502, Some("upstream_protocol")));
}
