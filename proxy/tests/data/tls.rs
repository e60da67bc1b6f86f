//! Mutual TLS between two data paths.

use std::net::SocketAddr;

use mesh_proxy::access_log::{AccessLog, Encoding, Format};
use mesh_proxy::{Edge, Settings};

use crate::mesh::mutual::{CALLER, Domain, Member, Mode, SERVER};
use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};

/// Two members with a sidecar each, between a client and an application.
struct Pair {
    caller: Member,
    server: Member,
    domain: Domain,
    near: Mesh,
    far: Mesh,
    /// Where the client connects to: HTTP, and bytes.
    http: SocketAddr,
    bytes: SocketAddr,
    /// Where the far sidecar listens.
    inbound: SocketAddr,
}

impl Pair {
    async fn new(application: SocketAddr, mode: Mode) -> Self {
        Pair::with(application, mode, false, Settings::default()).await
    }

    async fn with(application: SocketAddr, mode: Mode, has_proxy: bool, far: Settings) -> Self {
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

    fn handshakes(&self, side: &str, result: &str) -> u64 {
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
