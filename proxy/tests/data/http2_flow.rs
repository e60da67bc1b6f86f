//! HTTP/2 over time: flow control, resets, connections that go, and what two proxies say to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::proto::{cluster, core, extension, protobuf, route, upstream_http};
use http::{HeaderValue, Request, Response};
use mesh_proxy::{Edge, Settings};
use prost::Message;
use tokio::sync::{Barrier, Notify};

use super::http2::{by_h2, to_h2};
use super::mesh::{Mesh, Peer, SOON, Upstream, forward, forward_with, get as get1, metadata, ok, until};
use super::peers::{H2Client, H2Server, drink, get, post, reply};

/// More than this is never on its way through the proxy for one stream.
const ON_ITS_WAY: usize = 2 * 1024 * 1024;
const LARGE: usize = 16 * 1024 * 1024;

/// Sends so many bytes as the window allows, and counts them.
async fn pour(mut send: h2::SendStream<Bytes>, bytes: usize, sent: &AtomicUsize) {
    let mut left = bytes;
    while left > 0 {
        send.reserve_capacity(left.min(16 * 1024));
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.expect("open").expect("no reset");
        let now = room.min(left);
        left -= now;
        send.send_data(Bytes::from(vec![7; now]), left == 0).expect("sends");
        sent.fetch_add(now, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let mesh = Mesh::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = H2Server::serve(&mesh.tasks, move |_, mut respond| {
        let sent = Arc::clone(&counter);
        async move {
            let send = respond.send_response(Response::new(()), false).expect("sends");
            pour(send, LARGE, &sent).await;
        }
    })
    .await;
    let client = H2Client::connect(to_h2(&mesh, server.address).await, &mesh.tasks).await;
    let (response, _) = client.begin(get("/"), true).await;
    let mut body = response.await.expect("an answer").into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("bytes");
        received += data.len();
        let ahead = sent.load(Ordering::SeqCst) - received;
        assert!(ahead <= ON_ITS_WAY, "{ahead} bytes are on their way at {received}");
        body.flow_control().release_capacity(data.len()).expect("it was taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(received, LARGE);
}

#[tokio::test]
async fn a_slow_upstream_stops_the_client() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let (response, send) = client.begin(post("/"), false).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let pouring = Arc::clone(&sent);
    mesh.tasks.spawn_until_cancelled("pour", async move { pour(send, LARGE, &pouring).await });
    let mut peer = upstream.accept().await;
    assert_eq!(peer.head().await.expect("a head").1["transfer-encoding"], "chunked");
    // The kernel's buffers of the connection to the upstream come on top.
    const KERNEL: usize = 8 * 1024 * 1024;
    until("the client waits", || sent.load(Ordering::SeqCst) > 256 * 1024).await;
    assert!(sent.load(Ordering::SeqCst) <= ON_ITS_WAY + KERNEL);
    let mut received = 0;
    loop {
        let line = peer.exactly_line().await;
        let size = usize::from_str_radix(&line, 16).expect("a size");
        received += size;
        peer.exactly(size + 2).await;
        if size == 0 {
            break;
        }
    }
    assert_eq!(received, LARGE);
    peer.send(ok("done")).await;
    assert_eq!(drink(response.await.expect("an answer").into_body()).await.expect("a body").0, b"done");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let settings = Settings { stall_timeout: Duration::from_millis(50), ..Settings::default() };
    let mesh = Mesh::with(settings);
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    upstream.serve(&mesh.tasks, |_| ok(&"x".repeat(1024 * 1024)));
    let address = mesh.http("http", Edge::Outbound).await;
    let client = H2Client::with_window(address, &mesh.tasks, 100).await;
    let (response, _send) = client.begin(get("/"), true).await;
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("bytes").expect("no reset").len(), 100);
    // Its window is never opened again.
    let end = tokio::time::timeout(SOON, body.data()).await.expect("it ends soon");
    assert!(end.is_some_and(|end| end.is_err_and(|error| error.is_reset())));
}

#[tokio::test]
async fn a_client_that_cancels_is_cancelled_at_the_upstream() {
    let mesh = Mesh::new();
    let (reached, cancelled) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let seen = (Arc::clone(&reached), Arc::clone(&cancelled));
    let server = H2Server::serve(&mesh.tasks, move |_, mut respond| {
        let (reached, cancelled) = seen.clone();
        async move {
            reached.notify_one();
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("a reset");
            assert_eq!(reason, h2::Reason::CANCEL);
            cancelled.store(true, Ordering::SeqCst);
        }
    })
    .await;
    let client = H2Client::connect(to_h2(&mesh, server.address).await, &mesh.tasks).await;
    let (response, send) = client.begin(get("/"), true).await;
    reached.notified().await;
    drop((response, send));
    until("the upstream's stream is cancelled", || cancelled.load(Ordering::SeqCst)).await;
    assert_eq!(mesh.path.h2_upstreams(), 1, "the connection stays");
}

#[tokio::test]
async fn a_full_connection_is_not_waited_for() {
    let mesh = Mesh::new();
    let all = Arc::new(Barrier::new(6));
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let server = H2Server::with(&mesh.tasks, builder, move |_, mut respond| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            reply(&mut respond, 200, "all");
        }
    })
    .await;
    let client = H2Client::connect(to_h2(&mesh, server.address).await, &mesh.tasks).await;
    let answers = futures_util::future::join_all((0..6).map(|_| client.get("/"))).await;
    assert!(answers.iter().all(|answer| answer.text() == "all"));
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_replaced_and_no_request_fails() {
    let mesh = Mesh::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let (tasks, count) = (mesh.tasks.clone(), Arc::clone(&accepted));
    mesh.tasks.spawn_until_cancelled("server", async move {
        loop {
            let (stream, _) = socket.accept().await.expect("accepts");
            count.fetch_add(1, Ordering::SeqCst);
            tasks.spawn_until_cancelled("connection", async move {
                let mut connection = h2::server::handshake(stream).await.expect("greets");
                let mut served = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    reply(&mut respond, 200, "x");
                    served += 1;
                    if served == 3 {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let client = H2Client::connect(to_h2(&mesh, address).await, &mesh.tasks).await;
    for _ in 0..30 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(accepted.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_stream_that_the_upstream_refuses_is_sent_again() {
    let mesh = Mesh::new();
    let refused = Arc::new(AtomicBool::new(false));
    let server = H2Server::serve(&mesh.tasks, move |request: Request<h2::RecvStream>, mut respond| {
        let is_first = !refused.swap(true, Ordering::SeqCst);
        async move {
            if is_first {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                let (body, _) = drink(request.into_body()).await.expect("a body");
                reply(&mut respond, 200, std::str::from_utf8(&body).expect("text"));
            }
        }
    })
    .await;
    let address = to_h2(&mesh, server.address).await;
    let answer = Peer::connect(address).await.ask(get1("/")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_call_that_fails_at_the_upstream_is_tried_again_as_the_route_says() {
    let mesh = Mesh::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = H2Server::serve(&mesh.tasks, move |request: Request<h2::RecvStream>, mut respond| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        async move {
            let (body, _) = drink(request.into_body()).await.expect("a body");
            assert_eq!(body, b"hello");
            reply(&mut respond, if nth < 2 { 503 } else { 200 }, "x");
        }
    })
    .await;
    mesh.cluster_with("up", &[server.address], by_h2);
    mesh.routes(
        "http",
        vec![forward_with("up", |action| {
            action.retry_policy = Some(route::RetryPolicy {
                retry_on: "5xx".to_owned(),
                num_retries: Some(protobuf::UInt32Value { value: 3 }),
                ..Default::default()
            });
        })],
    );
    let client = H2Client::connect(mesh.http("http", Edge::Outbound).await, &mesh.tasks).await;
    let answer = client.try_ask(post("/"), b"hello", None).await.expect("an answer");
    assert_eq!((answer.status, asked.load(Ordering::SeqCst)), (200, 3));
}

/// A cluster whose endpoint has a proxy of the mesh beside it.
fn beside_a_proxy(cluster: &mut cluster::Cluster) {
    as_downstream(cluster);
    for endpoint in &mut cluster.load_assignment.as_mut().expect("endpoints").endpoints[0].lb_endpoints {
        endpoint.metadata = Some(metadata(&[("proxy", "h2")]));
    }
}

/// Has a cluster speak what the client speaks.
fn as_downstream(cluster: &mut cluster::Cluster) {
    use upstream_http::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let (name, url) = extension::HTTP_OPTIONS;
    let any = protobuf::Any { type_url: url.to_owned(), value: options.encode_to_vec() };
    cluster.typed_extension_protocol_options.insert(name.to_owned(), any);
}

#[tokio::test]
async fn two_proxies_share_a_connection_and_each_application_gets_what_the_other_speaks() {
    let mesh = Mesh::new();
    let text = Upstream::new().await;
    // The inbound side: to the application, in what its caller speaks.
    mesh.cluster_with("app", &[text.address], as_downstream);
    mesh.routes("in", vec![forward("app")]);
    let inbound = mesh.http("in", Edge::Inbound).await;
    text.serve(&mesh.tasks, |request| {
        assert_eq!(request.header("x-mesh-protocol"), None, "what proxies say to each other is for them alone");
        ok("text")
    });
    mesh.cluster_with("mesh", &[inbound], beside_a_proxy);
    mesh.routes("out", vec![forward("mesh")]);
    let outbound = mesh.http("out", Edge::Outbound).await;
    let (mut one, mut two) = (Peer::connect(outbound).await, Peer::connect(outbound).await);
    for _ in 0..3 {
        assert_eq!(one.ask(get1("/")).await.text(), "text");
        assert_eq!(two.ask(get1("/")).await.text(), "text");
    }
    assert_eq!(mesh.path.h2_upstreams(), 1, "one connection between the proxies for both clients");

    // A client of HTTP/2 reaches an application that speaks it.
    let h2 = H2Server::serve(&mesh.tasks, |request: Request<h2::RecvStream>, mut respond| async move {
        assert!(!request.headers().contains_key("x-mesh-protocol"));
        reply(&mut respond, 200, "h2");
    })
    .await;
    mesh.cluster_with("app", &[h2.address], as_downstream);
    let client = H2Client::connect(outbound, &mesh.tasks).await;
    assert_eq!(client.get("/").await.text(), "h2");
    assert_eq!(mesh.path.h2_upstreams(), 2, "and one to the application");
}

#[tokio::test]
async fn an_endpoint_without_the_proxy_that_it_is_said_to_have_is_asked_as_it_speaks() {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.cluster_with("up", &[upstream.address], beside_a_proxy);
    mesh.routes("http", vec![forward("up")]);
    upstream.serve(&mesh.tasks, |request| {
        if request.first.starts_with("PRI") {
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok("text")
        }
    });
    let mut client = Peer::connect(mesh.http("http", Edge::Outbound).await).await;
    for _ in 0..3 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!((answer.status(), answer.text()), (200, "text"));
    }
}

#[tokio::test]
async fn what_an_application_says_of_proxies_is_not_believed() {
    let mesh = Mesh::new();
    let h2 = H2Server::serve(&mesh.tasks, |request: Request<h2::RecvStream>, mut respond| async move {
        let all: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        reply(&mut respond, 200, &all.join(","));
    })
    .await;
    let client = H2Client::connect(to_h2(&mesh, h2.address).await, &mesh.tasks).await;
    let mut request = get("/");
    for name in ["x-mesh-protocol", "x-envoy-original-path", "x_forwarded_for", "x-a"] {
        request.headers_mut().insert(name, HeaderValue::from_static("HTTP/1.1"));
    }
    assert_eq!(client.ask(request).await.text(), "x-a,x-request-id,traceparent");
}

#[tokio::test]
async fn a_client_is_told_to_go_on_before_it_sends_its_body() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let mut request = post("/");
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let (mut response, mut send) = client.begin(request, false).await;
    let mut peer = upstream.accept().await;
    assert_eq!(peer.head().await.expect("a head").1["expect"], "100-continue");
    peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.expect("one").expect("no reset");
    assert_eq!(interim.status(), 100);
    send.send_data(Bytes::from_static(b"hello"), true).expect("sends");
    assert_eq!(peer.exactly_line().await, "5");
    assert_eq!(peer.exactly(12).await, b"hello\r\n0\r\n\r\n");
    peer.send(ok("done")).await;
    assert_eq!(response.await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_client_that_offers_http2_is_taken_up_on_it() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |request| {
        assert_eq!((request.header("upgrade"), request.header("http2-settings")), (None, None));
        ok(request.first.split(' ').nth(1).expect("a path"))
    });
    let mut client = Peer::connect(address).await;
    client
        .send("GET /first HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
        .await;
    let (first, headers) = client.head().await.expect("a head");
    assert_eq!((first.as_str(), headers["upgrade"].as_str()), ("HTTP/1.1 101 Switching Protocols", "h2c"));
    // The codec of the test cannot begin with stream 1 half closed: its frames are read as they are.
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut data = Vec::new();
    loop {
        let frame = client.frame().await.expect("a frame");
        if frame.kind == 0 {
            assert_eq!(frame.stream, 1);
            data.extend_from_slice(&frame.payload);
        }
        if frame.stream == 1 && frame.flags & 1 != 0 {
            break;
        }
    }
    assert_eq!(data, b"/first");
}

#[tokio::test]
async fn a_proxy_that_leaves_says_goodbye_and_finishes_what_runs() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let (response, _) = client.begin(get("/"), true).await;
    let mut peer = upstream.accept().await;
    peer.head().await.expect("a head");
    mesh.drain.start();
    until("new requests are refused", || {
        // The client has been told when it may open no more streams.
        let mut ready = std::pin::pin!(client.try_ready());
        let waker = futures_util::task::noop_waker();
        matches!(ready.as_mut().poll(&mut std::task::Context::from_waker(&waker)), std::task::Poll::Ready(Err(_)))
    })
    .await;
    peer.send(ok("last")).await;
    assert_eq!(drink(response.await.expect("an answer").into_body()).await.expect("a body").0, b"last");
    until("the connection has ended", || mesh.connections() == 0).await;
}
