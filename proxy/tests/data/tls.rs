//! Mutual TLS between two data paths.

use std::net::SocketAddr;
use std::time::Duration;

use engine::Kind;
use engine::text::from_json;
use mesh_proxy::access_log::{AccessLog, Encoding, Format};
use mesh_proxy::{Edge, Settings};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::http2::by_h2;
use crate::mesh::mutual::{CALLER, Domain, Member, Mode, SERVER};
use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};
use crate::peers::{H2Client, H2Server, post};

/// Two members with a sidecar each, between a client and an application.
pub struct Pair {
    pub caller: Member,
    pub server: Member,
    pub domain: Domain,
    pub near: Mesh,
    pub far: Mesh,
    /// Where the client connects to: HTTP, and bytes.
    pub http: SocketAddr,
    pub bytes: SocketAddr,
    /// Where the far sidecar listens.
    pub inbound: SocketAddr,
}

impl Pair {
    pub async fn new(application: SocketAddr, mode: Mode) -> Self {
        Pair::with(application, mode, false, Settings::default()).await
    }

    pub async fn with(application: SocketAddr, mode: Mode, has_proxy: bool, far: Settings) -> Self {
        let domain = Domain::new();
        let (caller, server) = (domain.join(CALLER), domain.join(SERVER));
        let (near, far) = (caller.mesh(), server.mesh_with(far));
        far.cluster("app", &[application]);
        far.routes("in", vec![forward("app")]);
        let inbound = far.inbound("inbound", mode, "in", "app").await;
        near.by_tls("reviews", inbound, &[SERVER], has_proxy);
        near.routes("out", vec![forward("reviews")]);
        let http = near.http("out", Edge::Outbound).await;
        let bytes = near.tcp("bytes", "reviews").await;
        Pair { caller, server, domain, near, far, http, bytes, inbound }
    }

    pub fn handshakes(&self, side: &str, result: &str) -> u64 {
        let mesh = if side == "server" { &self.far } else { &self.near };
        count(&mesh.metrics(), &format!("mesh_tls_handshakes_total{{side=\"{side}\",result=\"{result}\"}}"))
    }
}

/// The value of a series; 0 if it is not there.
fn count(metrics: &str, series: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

#[tokio::test]
async fn a_request_goes_through_two_sidecars_by_tls_and_both_know_whom_they_speak_to() {
    let upstream = Upstream::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let format = "%RESPONSE_CODE% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION%\n";
    let format = Format::new(Encoding::Text, Some(format)).expect("a format");
    let log = AccessLog::open(&file, format).expect("opens");
    let settings = Settings { access_log: Some(log), ..Settings::default() };
    let pair = Pair::with(upstream.address, Mode::Strict, false, settings).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let mut client = Peer::connect(pair.http).await;
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the lines are written", || lines().lines().count() == 3).await;
    assert_eq!(lines().lines().next(), Some(&*format!("200 {CALLER} TLSv1.3")));
    for (mesh, reporter) in [(&pair.near, "source"), (&pair.far, "destination")] {
        let metrics = mesh.metrics();
        let line = metrics.lines().find(|line| line.starts_with("istio_requests_total{")).expect("it is counted");
        for label in [
            format!("reporter=\"{reporter}\""),
            format!("source_principal=\"{CALLER}\""),
            format!("destination_principal=\"{SERVER}\""),
            "connection_security_policy=\"mutual_tls\"".to_owned(),
        ] {
            assert!(line.contains(&label), "{label} is not in {line}");
        }
    }
    // One connection carried all of them.
    assert_eq!((pair.handshakes("client", "full"), pair.handshakes("server", "full")), (1, 1));
}

#[tokio::test]
async fn nothing_of_http_is_on_the_wire_between_two_sidecars() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    upstream.serve(&pair.far.tasks, |_| ok("a secret answer"));
    // Somebody in between passes on what it sees.
    let between = Upstream::new().await;
    pair.near.by_tls("reviews", between.address, &[SERVER], false);
    let mut client = Peer::connect(pair.http).await;
    let inbound = pair.inbound;
    let listening = async {
        let mut near = between.accept().await.stream;
        let mut far = tokio::net::TcpStream::connect(inbound).await.expect("connects");
        let mut seen = (Vec::new(), Vec::new());
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        tokio::join!(pass(near_read, far_write, &mut seen.0), pass(far_read, near_write, &mut seen.1));
        seen
    };
    let asking = async {
        let answer = client.ask(get("/a/secret/path")).await;
        drop(client);
        // The idle connection is closed after a while.
        drop(pair);
        answer
    };
    let (answer, (out, back)) = tokio::join!(asking, listening);
    assert_eq!(answer.text(), "a secret answer");
    for (bytes, word) in [(&out, "secret"), (&back, "secret"), (&out, "HTTP/1"), (&back, "HTTP/1")] {
        // The version stands in ALPN's word, which everybody may read: not that of a request.
        let text = String::from_utf8_lossy(bytes).replace("mesh-http/1.1", "").to_ascii_lowercase();
        assert!(!text.contains(&word.to_ascii_lowercase()), "{word} is on the wire");
    }
    assert!(out.starts_with(&[0x16, 3]), "it begins with a handshake");
}

#[tokio::test]
async fn a_client_hello_that_is_late_is_tls_all_the_same() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let between = Upstream::new().await;
    pair.near.by_tls("reviews", between.address, &[SERVER], false);
    let mut client = Peer::connect(pair.http).await;
    let passing = async {
        let mut near = between.accept().await.stream;
        let mut far = tokio::net::TcpStream::connect(pair.inbound).await.expect("connects");
        let silent = || count(&pair.far.metrics(), "mesh_protocol_detection_total{result=\"silent\"}") == 1;
        until("nothing has come for as long as the listener waits", silent).await;
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    let asking = client.ask(get("/"));
    tokio::pin!(asking);
    let answer = tokio::select! {
        answer = &mut asking => answer,
        () = passing => asking.await,
    };
    assert_eq!(answer.text(), "hello");
}

/// Passes bytes on until their end, and keeps them.
async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    seen: &mut Vec<u8>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        seen.extend_from_slice(&bytes[..count]);
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn many_requests_share_one_connection_by_tls() {
    let upstream = Upstream::new().await;
    let pair = Pair::with(upstream.address, Mode::Strict, true, Settings::default()).await;
    upstream.serve(&pair.far.tasks, |request| ok(request.first.split(' ').nth(1).expect("a path")));
    let asking = (0..20).map(|nth| async move {
        let mut client = Peer::connect(pair.http).await;
        for _ in 0..5 {
            let path = format!("/{nth}");
            assert_eq!(client.ask(get(&path)).await.text(), path);
        }
    });
    futures_util::future::join_all(asking).await;
    assert_eq!(pair.near.path.h2_upstreams(), 1);
    assert_eq!((pair.handshakes("client", "full"), pair.handshakes("server", "full")), (1, 1));
    let line = pair.near.metrics();
    let line = line.lines().find(|line| line.starts_with("istio_requests_total{")).expect("it is counted");
    assert!(line.contains(&format!("destination_principal=\"{SERVER}\"")), "{line}");
}

#[tokio::test]
async fn calls_of_grpc_keep_their_trailers() {
    let tasks = runtime::Tasks::new();
    let application = H2Server::serve(&tasks, |request, mut respond| async move {
        let body = crate::peers::drink(request.into_body()).await.expect("a body").0;
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).expect("a response");
        let mut send = respond.send_response(head, false).expect("sends");
        send.send_data(body.into(), false).expect("sends");
        let status = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        send.send_trailers(status).expect("sends");
    })
    .await;
    let pair = Pair::with(application.address, Mode::Strict, true, Settings::default()).await;
    pair.far.cluster_with("app", &[application.address], by_h2);
    pair.near.by_tls_with(("reviews", pair.inbound), &[SERVER], true, by_h2);
    let client = H2Client::connect(pair.http, &pair.near.tasks).await;
    let mut request = post("/Greeter/Hello");
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let answer = client.try_ask(request, b"\0\0\0\0\x01x", None).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"\0\0\0\0\x01x"[..]));
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
    assert_eq!(pair.handshakes("server", "full"), 1);
    tasks.token().cancel();
}

#[tokio::test]
async fn each_side_of_an_opaque_connection_ends_by_itself() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    let mut client = Peer::connect(pair.bytes).await;
    client.send("all that I say").await;
    client.stream.shutdown().await.expect("shuts down");
    let mut server = upstream.accept().await;
    assert_eq!(server.rest().await, (b"all that I say".to_vec(), true));
    let long: Vec<u8> = (0..3_000_000u32).map(|nth| nth.to_le_bytes()[1]).collect();
    let (sent, received) = tokio::join!(
        async {
            server.send(&long).await;
            server.stream.shutdown().await
        },
        client.rest()
    );
    sent.expect("shuts down");
    assert!(received == (long, true), "what comes after the end of the other side comes whole");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    let mut client = Peer::connect(pair.bytes).await;
    let mut server = upstream.accept().await;
    server.send("220 hello\r\n").await;
    assert_eq!(client.exactly(11).await, b"220 hello\r\n");
    client.send("EHLO x\r\n").await;
    assert_eq!(server.exactly(8).await, b"EHLO x\r\n");
}

#[tokio::test]
async fn a_reset_stays_a_reset() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    let mut client = Peer::connect(pair.bytes).await;
    client.send("x").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.exactly(1).await, b"x");
    server.send("half of it").await;
    assert_eq!(client.exactly(10).await, b"half of it");
    socket2::SockRef::from(&server.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(server);
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn a_permissive_port_takes_both_and_a_strict_one_tls_alone() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Permissive).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let mut plain = Peer::connect(pair.inbound).await;
    assert_eq!(plain.ask(get("/")).await.text(), "hello");
    assert_eq!(Peer::connect(pair.http).await.ask(get("/")).await.text(), "hello");
    let metrics = pair.far.metrics();
    for policy in ["none", "mutual_tls"] {
        let label = format!("connection_security_policy=\"{policy}\"");
        let line = metrics.lines().find(|line| line.starts_with("istio_requests_total{") && line.contains(&label));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{label}: {metrics}");
    }
    pair.far.set_mode(("inbound", pair.inbound), Mode::Strict, "in", "app");
    let refused = Peer::connect(pair.inbound).await.try_ask(get("/")).await;
    assert!(refused.is_none(), "clear text is answered: {refused:?}");
    assert_eq!(Peer::connect(pair.http).await.ask(get("/")).await.text(), "hello");
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_another_server_is_wanted() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let mut client = Peer::connect(pair.http).await;
    assert_eq!(client.ask(get("/")).await.status(), 200);
    assert_eq!(pair.near.path.idle_upstreams(), 1);
    pair.near.by_tls("reviews", pair.inbound, &["spiffe://cluster.local/ns/shop/sa/other"], false);
    let refused = client.ask(get("/")).await;
    assert_eq!((refused.status(), refused.header("x-mesh-failure")), (503, Some("tls_not_expected")));
    // The same words as before are the same way as before.
    pair.near.by_tls("reviews", pair.inbound, &[SERVER], false);
    assert_eq!(client.ask(get("/")).await.status(), 200);
    assert_eq!(pair.handshakes("client", "full"), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_not_used_again() {
    let upstream = Upstream::new().await;
    let far = Settings { idle_timeout: Duration::from_millis(20), ..Settings::default() };
    let pair = Pair::with(upstream.address, Mode::Strict, false, far).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let mut client = Peer::connect(pair.http).await;
    // A request that cannot be sent twice: nothing hides that a connection was gone.
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx";
    for _ in 0..3 {
        assert_eq!(client.ask(post).await.status(), 200);
        until("the far side has closed", || pair.far.connections() == 0).await;
    }
    assert_eq!(pair.handshakes("server", "full") + pair.handshakes("server", "resumed"), 3);
}

/// Opens an opaque connection, and closes it when a byte has gone both ways.
async fn touch(pair: &Pair, upstream: &Upstream) -> bool {
    let mut client = Peer::connect(pair.bytes).await;
    client.stream.write_all(b"x").await.expect("sends");
    let serving = async {
        let mut server = upstream.accept().await;
        assert_eq!(server.exactly(1).await, b"x");
        server.send("y").await;
        server.stream.shutdown().await.expect("shuts down");
        server
    };
    let ending = client.rest();
    tokio::pin!(serving, ending);
    tokio::select! {
        _server = &mut serving => ending.await.0 == b"y",
        // Refused before the application has seen anything.
        (bytes, _) = &mut ending => bytes == b"y",
    }
}

#[tokio::test]
async fn sessions_are_resumed_between_the_same_certificates_alone() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    let seen = || (pair.handshakes("client", "full"), pair.handshakes("client", "resumed"));
    assert!(touch(&pair, &upstream).await);
    assert!(touch(&pair, &upstream).await);
    assert_eq!(seen(), (1, 1), "the second connection builds on the first");
    assert!(touch(&pair, &upstream).await);
    assert_eq!(seen(), (1, 2));
    pair.domain.renew(&pair.server);
    assert!(touch(&pair, &upstream).await);
    assert_eq!(seen(), (2, 2), "the server has another certificate");
    pair.domain.renew(&pair.caller);
    assert!(touch(&pair, &upstream).await);
    assert_eq!(seen(), (3, 2), "the caller has another certificate");
    assert!(touch(&pair, &upstream).await);
    assert_eq!(seen(), (3, 3));
    assert_eq!(pair.handshakes("server", "resumed"), 3);
}

#[tokio::test]
async fn a_session_is_not_resumed_with_a_peer_whose_root_is_gone() {
    for is_caller in [true, false] {
        let upstream = Upstream::new().await;
        let pair = Pair::new(upstream.address, Mode::Strict).await;
        assert!(touch(&pair, &upstream).await);
        // The one keeps its certificate, and trusts another root than that of the other.
        let (member, side) = if is_caller { (&pair.caller, "client") } else { (&pair.server, "server") };
        let other = Domain::new().root.bundle(&member.id).expect("a bundle");
        member.publisher.publish_bundle(other);
        assert!(!touch(&pair, &upstream).await, "{side}");
        assert_eq!(pair.handshakes(side, "tls_unknown_root"), 1, "{side}");
        assert_eq!(pair.handshakes(side, "resumed"), 0, "{side}");
    }
}

#[tokio::test]
async fn certificates_are_renewed_under_load_and_nothing_is_lost() {
    let upstream = Upstream::new().await;
    let pair = Pair::with(upstream.address, Mode::Strict, true, Settings::default()).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let mut client = Peer::connect(pair.http).await;
    for nth in 0..60 {
        if nth % 5 == 0 {
            pair.domain.renew(&pair.caller);
            pair.domain.renew(&pair.server);
            // New connections have the new certificates, old ones go on.
            pair.near.by_tls("reviews", pair.inbound, &[SERVER], nth % 10 == 0);
        }
        let answer = client.ask(get("/")).await;
        assert_eq!((answer.status(), answer.text()), (200, "hello"), "request {nth}");
    }
    let line = pair.near.metrics();
    assert!(!line.contains("result=\"tls_"), "{line}");
}

#[tokio::test]
async fn the_application_is_told_who_calls_only_where_that_is_set_and_by_the_mesh_alone() {
    let asking = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-Client-Cert: By=me;URI=spiffe://cluster.local/ns/a/sa/admin\r\n\r\n";
    for client_cert in [false, true] {
        for has_proxy in [false, true] {
            let upstream = Upstream::new().await;
            let far = Settings { client_cert, ..Settings::default() };
            let pair = Pair::with(upstream.address, Mode::Permissive, has_proxy, far).await;
            upstream
                .serve(&pair.far.tasks, |request| ok(request.header("x-forwarded-client-cert").unwrap_or("nothing")));
            let told = Peer::connect(pair.http).await.ask(asking).await;
            let expected = if client_cert { format!("By={SERVER};URI={CALLER}") } else { "nothing".to_owned() };
            assert_eq!(told.text(), expected);
            // In clear text nothing is proved.
            assert_eq!(Peer::connect(pair.inbound).await.ask(asking).await.text(), "nothing");
        }
    }
}

/// An inbound listener that lets in one caller alone, by HTTP and by bytes.
fn letting_in(caller: &str, address: SocketAddr) -> serde_json::Value {
    let url = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let policy = json!({ "permissions": [{ "any": true }],
        "principals": [{ "authenticated": { "principal_name": { "exact": caller } } }] });
    let rules = json!({ "policies": { "the policy": policy } });
    let http_rules = json!({ "@type": url("filters.http.rbac.v3.RBAC"), "rules": rules });
    let tcp_rules = json!({ "@type": url("filters.network.rbac.v3.RBAC"), "rules": rules, "stat_prefix": "tcp." });
    let router = json!({ "@type": url("filters.http.router.v3.Router") });
    let manager = json!({ "@type": url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "http_filters": [{ "name": "rules", "typed_config": http_rules }, { "name": "router", "typed_config": router }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }] }] } });
    let proxy =
        json!({ "@type": url("filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "tcp", "cluster": "app" });
    let chain = |words: &[&str], filters: serde_json::Value| {
        json!({
        "filter_chain_match": { "transport_protocol": "tls", "application_protocols": words },
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": url("transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": words,
                "tls_certificate_sds_secret_configs": [{ "name": "default" }],
                "validation_context_sds_secret_config": { "name": "ROOTCA" } } } },
        "filters": filters })
    };
    let inspector = json!({ "@type": url("filters.listener.tls_inspector.v3.TlsInspector") });
    let (ip, port) = (address.ip().to_string(), address.port());
    json!({ "name": "inbound", "address": { "socket_address": { "address": ip, "port_value": port } },
        "listener_filters": [{ "name": "tls", "typed_config": inspector }],
        "filter_chains": [
            chain(&["mesh-h2", "mesh-http/1.1"], json!([{ "name": "http", "typed_config": manager }])),
            chain(&["mesh"], json!([{ "name": "rules", "typed_config": tcp_rules }, { "name": "tcp", "typed_config": proxy }]))] })
}

#[tokio::test]
async fn rules_ask_for_the_identity_that_a_certificate_proves() {
    let upstream = Upstream::new().await;
    let pair = Pair::new(upstream.address, Mode::Strict).await;
    upstream.serve(&pair.far.tasks, |_| ok("hello"));
    let listener = from_json(Kind::Listener, &letting_in(CALLER, pair.inbound), "inbound").expect("a listener");
    pair.far.put_body(Kind::Listener, "inbound", listener.body.to_vec());
    let other = pair.domain.join("spiffe://cluster.local/ns/shop/sa/details").mesh();
    for has_proxy in [false, true] {
        other.by_tls("reviews", pair.inbound, &[SERVER], has_proxy);
        pair.near.by_tls("reviews", pair.inbound, &[SERVER], has_proxy);
        other.routes("out", vec![forward("reviews")]);
        let http = other.http(if has_proxy { "h2" } else { "out" }, Edge::Outbound).await;
        other.routes("h2", vec![forward("reviews")]);
        assert_eq!(Peer::connect(pair.http).await.ask(get("/")).await.status(), 200);
        let refused = Peer::connect(http).await.ask(get("/")).await;
        assert_eq!((refused.status(), refused.header("x-mesh-failure")), (403, Some("policy_denied")));
    }
    let mut let_in = Peer::connect(pair.bytes).await;
    assert_eq!(let_in.ask(get("/")).await.text(), "hello");
    let mut kept_out = Peer::connect(other.tcp("bytes", "reviews").await).await;
    assert!(kept_out.try_ask(get("/")).await.is_none());
}

#[tokio::test]
async fn nothing_that_was_made_as_another_is_used_again() {
    const RENAMED: &str = "spiffe://cluster.local/ns/shop/sa/renamed";
    for has_proxy in [false, true] {
        let upstream = Upstream::new().await;
        let pair = Pair::with(upstream.address, Mode::Strict, has_proxy, Settings::default()).await;
        upstream.serve(&pair.far.tasks, |_| ok("hello"));
        let mut client = Peer::connect(pair.http).await;
        assert_eq!(client.ask(get("/")).await.status(), 200);
        let renamed = Member { id: RENAMED.parse().expect("an identity"), ..pair.caller };
        pair.domain.renew(&renamed);
        let label = format!("source_principal=\"{RENAMED}\"");
        // The connections of before are given up as soon as the news is heard.
        let is_known = async {
            while !pair.far.metrics().contains(&label) {
                assert_eq!(client.ask(get("/")).await.status(), 200);
            }
        };
        tokio::time::timeout(crate::mesh::SOON, is_known).await.expect("requests go as the new one soon");
    }
}
