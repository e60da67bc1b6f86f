//! Clients of HTTP/2 that send what brings nothing: each is cut within its bound, and others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_proxy::frames::FrameLimits;
use mesh_proxy::{Edge, H2, Settings};

use super::frames::{END_HEADERS, END_STREAM, HEADERS, HELLO, bomb, field, frame, post, request, reset};
use super::mesh::{Mesh, Peer, Upstream, forward, ok};
use super::peers::H2Client;

/// How a connection ended: the reason of its GOAWAY, and the streams that were reset with theirs.
async fn end(mut client: Peer) -> (Option<u32>, Vec<(u32, u32)>) {
    let (mut reason, mut resets) = (None, Vec::new());
    while let Some(frame) = client.frame().await {
        let number = |at: usize| frame.payload.get(at..at + 4).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]));
        match frame.kind {
            7 => reason = number(4),
            3 => resets.push((frame.stream, number(0).expect("a reason"))),
            _ => {}
        }
    }
    (reason, resets)
}

/// A mesh with low bounds.
async fn mesh() -> (Mesh, std::net::SocketAddr) {
    let (mesh, address, _) = counting(Edge::Outbound).await;
    (mesh, address)
}

/// A mesh with low bounds, and how many requests its upstream has seen.
async fn counting(edge: Edge) -> (Mesh, std::net::SocketAddr, Arc<AtomicUsize>) {
    let frames = FrameLimits { resets: 20, pings: 50, settings: 20, priorities: 50, empty: 50, window_updates: 100 };
    let settings = Settings {
        h2: H2 { frames, streams: 150, ..H2::default() },
        head_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let mesh = Mesh::with(settings);
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    upstream.serve(&mesh.tasks, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        ok("x")
    });
    let address = mesh.http("http", edge).await;
    (mesh, address, seen)
}

/// Nothing of what was sent so far has reached the upstream, and others are served.
async fn nothing_came_through(mesh: &Mesh, address: std::net::SocketAddr, seen: &AtomicUsize, what: &str) {
    let before = seen.swap(0, Ordering::SeqCst);
    assert_eq!(before, 0, "{what}: the upstream has seen it");
    assert_eq!(H2Client::connect(address, &mesh.tasks).await.get("/").await.status, 200, "others are served: {what}");
    assert_eq!(seen.swap(0, Ordering::SeqCst), 1, "{what}: the upstream has seen it");
}

const ENHANCE_YOUR_CALM: u32 = 11;
const PROTOCOL_ERROR: u32 = 1;

/// Sends all of it if the proxy takes it, and says how the connection ended.
async fn flood(address: std::net::SocketAddr, bytes: &[u8]) -> (Option<u32>, Vec<(u32, u32)>) {
    use tokio::io::AsyncWriteExt as _;
    let mut client = Peer::connect(address).await;
    // The proxy may have cut it before all was sent.
    let _ = client.stream.write_all(HELLO).await;
    let _ = client.stream.write_all(bytes).await;
    end(client).await
}

#[tokio::test]
async fn frames_that_bring_nothing_are_cut_off() {
    let (mesh, address) = mesh().await;
    let opened = post(1);
    let floods: [(&str, Vec<u8>); 6] = [
        ("pings", frame(6, 0, 0, &[0; 8]).repeat(200)),
        ("settings", frame(4, 0, 0, &[]).repeat(100)),
        ("priorities", frame(2, 0, 3, &[0, 0, 0, 0, 1]).repeat(200)),
        ("empty_frames", [opened.clone(), frame(0, 0, 1, &[]).repeat(200)].concat()),
        ("window_updates", frame(8, 0, 0, &1u32.to_be_bytes()).repeat(400)),
        ("unknown_frames", frame(0x4a, 0, 0, b"x").repeat(200)),
    ];
    for (reason, bytes) in floods {
        let (goaway, _) = flood(address, &bytes).await;
        assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{reason}: {goaway:?}");
        let metrics = mesh.metrics();
        let counted = format!("mesh_h2_connections_cut_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&counted), "{reason}:\n{metrics}");
        let other = H2Client::connect(address, &mesh.tasks).await;
        assert_eq!(other.get("/").await.status, 200, "others are served after {reason}");
    }
}

#[tokio::test]
async fn cve_2023_44487_streams_that_are_reset_as_soon_as_they_are_open_are_cut_off() {
    let (mesh, address) = mesh().await;
    let rapid: Vec<u8> = (0..2000).flat_map(|nth| [post(nth * 2 + 1), reset(nth * 2 + 1)].concat()).collect();
    let (goaway, _) = flood(address, &rapid).await;
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{goaway:?}");
    assert!(mesh.metrics().contains("mesh_h2_connections_cut_total{reason=\"resets\"} 1\n"));
}

#[tokio::test]
async fn cve_2025_8671_streams_that_the_proxy_is_made_to_reset_are_cut_off() {
    let (mesh, address) = mesh().await;
    // A body that is longer than was said is an error of the stream, which its server must reset.
    let short = [request("POST"), field("content-length", "1")].concat();
    let made: Vec<u8> = (0..2000)
        .flat_map(|nth| {
            let stream = nth * 2 + 1;
            [frame(HEADERS, END_HEADERS, stream, &short), frame(0, END_STREAM, stream, b"xx")].concat()
        })
        .collect();
    let (goaway, _) = flood(address, &made).await;
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{goaway:?}");
    assert!(mesh.metrics().contains("mesh_h2_connections_cut_total{reason=\"resets\"} 1\n"));
}

#[tokio::test]
async fn cve_2024_27919_heads_that_do_not_end_are_cut_off() {
    let (mesh, address, seen) = counting(Edge::Outbound).await;
    let more = field("x-more", &"x".repeat(100));
    let endless = [frame(HEADERS, END_STREAM, 1, &request("GET")), frame(9, 0, 1, &more).repeat(50_000)].concat();
    let (goaway, _) = flood(address, &endless).await;
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{goaway:?}");
    let metrics = mesh.metrics();
    assert!(metrics.contains("mesh_h2_connections_cut_total{reason=\"continuations\"} 1\n"), "{metrics}");
    nothing_came_through(&mesh, address, &seen, "a head that does not end").await;
}

/// What the codec says when a head is over its bound: `:status: 431`, packed, and nothing more.
const TOO_LARGE: &[u8] = &[0x48, 0x83, 0x69, 0x90, 0xff];

#[tokio::test]
async fn cve_2026_47774_heads_that_grow_when_they_are_unpacked_are_refused() {
    let (mesh, address, seen) = counting(Edge::Outbound).await;
    // Over the bound of 64 KiB, but not by far: 160 KiB.
    let mut client = Peer::connect(address).await;
    client.send([HELLO, &bomb(1, 40)].concat()).await;
    let answer = loop {
        let frame = client.frame().await.expect("the connection stays");
        if frame.stream == 1 {
            break frame;
        }
    };
    assert_eq!((answer.kind, &*answer.payload), (HEADERS, TOO_LARGE), "it is answered, with 431");
    assert_eq!(answer.flags & END_STREAM, END_STREAM);
    nothing_came_through(&mesh, address, &seen, "a head of 160 KiB").await;
    // By far: 2 MiB.
    let (goaway, _) = flood(address, &bomb(1, 500)).await;
    assert_eq!(goaway, Some(ENHANCE_YOUR_CALM));
    let metrics = mesh.metrics();
    assert!(metrics.contains("mesh_h2_connections_cut_total{reason=\"unpacked_head\"} 1\n"), "{metrics}");
    nothing_came_through(&mesh, address, &seen, "a head of 2 MiB").await;
}

#[tokio::test]
async fn too_many_fields_are_refused_and_told_of() {
    let (mesh, address) = mesh().await;
    let client = H2Client::connect(address, &mesh.tasks).await;
    let mut request = super::peers::get("/");
    for nth in 0..101 {
        let name = http::HeaderName::from_bytes(format!("x-{nth}").as_bytes()).expect("a name");
        request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
    }
    let answer = client.ask(request).await;
    assert_eq!((answer.status, answer.header("x-mesh-failure")), (431, Some("too_large")));
    let mut request = super::peers::get("/");
    for nth in 0..200 {
        let crumb = http::HeaderValue::from_str(&format!("c{nth}=1")).expect("a value");
        request.headers_mut().append("cookie", crumb);
    }
    assert_eq!(client.ask(request).await.status, 200, "the crumbs of a cookie are one field");
}

#[tokio::test]
async fn cve_2023_27491_heads_that_http2_does_not_have_are_refused() {
    let (mesh, address, seen) = counting(Edge::Outbound).await;
    for (what, extra) in [
        ("an upper-case name", field("X-A", "1")),
        ("a field of the connection", field("connection", "close")),
        ("a transfer encoding", field("transfer-encoding", "chunked")),
        ("an encoding other than trailers", field("te", "gzip")),
        ("a pseudo-header behind a field", [field("x-a", "1"), field(":path", "/b")].concat()),
        ("a line end in a value", field("x-a", "1\r\nx-b: 2")),
        ("two lengths", [field("content-length", "1"), field("content-length", "2")].concat()),
        ("a length by another name", field("content_length", "1")),
        ("another host", field("host", "other")),
    ] {
        let mut client = Peer::connect(address).await;
        let block = [request("GET"), extra].concat();
        client.send([HELLO, &frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)].concat()).await;
        let frame = loop {
            let frame = client.frame().await.unwrap_or_else(|| panic!("{what}: the connection ended"));
            if frame.stream == 1 || frame.kind == 7 {
                break frame;
            }
        };
        // Reset or ended for what it is, or answered with 400 (entry 12 of the static table).
        let is_refused = match frame.kind {
            3 => frame.payload == PROTOCOL_ERROR.to_be_bytes(),
            7 => frame.payload.get(4..8) == Some(&PROTOCOL_ERROR.to_be_bytes()),
            _ => frame.kind == HEADERS && frame.payload.first() == Some(&0x8c),
        };
        assert!(is_refused, "{what}: {frame:?}");
        nothing_came_through(&mesh, address, &seen, what).await;
    }
    assert!(mesh.metrics().contains("response_flags=\"DPE\""));
}

#[tokio::test]
async fn a_preface_that_does_not_come_is_not_waited_for() {
    let (mesh, address) = mesh().await;
    let mut client = Peer::connect(address).await;
    client.send(&HELLO[..20]).await;
    let (_, _) = client.rest().await;
    let mut client = Peer::connect(address).await;
    client.send(&HELLO[..24]).await;
    end(client).await;
    assert!(mesh.metrics().contains("mesh_h2_connections_cut_total{reason=\"slow_preface\"} 2\n"));
    assert_eq!(H2Client::connect(address, &mesh.tasks).await.get("/").await.status, 200);
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused() {
    // A client outside the mesh may have fewer.
    for (edge, bound) in [(Edge::Outbound, 150), (Edge::Gateway, 100)] {
        let (mesh, address, _) = counting(edge).await;
        let mut client = Peer::connect(address).await;
        let opened: Vec<u8> = (0..bound + 3).flat_map(|nth| post(nth * 2 + 1)).collect();
        client.send([HELLO, &opened].concat()).await;
        let (mut told, mut refused) = (None, Vec::new());
        while refused.len() < 3 {
            let frame = client.frame().await.expect("the connection stays");
            match frame.kind {
                // SETTINGS_MAX_CONCURRENT_STREAMS
                4 if frame.flags == 0 => {
                    told = frame
                        .payload
                        .chunks(6)
                        .find(|setting| setting[..2] == [0, 3])
                        .map(|setting| setting[2..].to_vec());
                }
                3 => refused.push((frame.stream, frame.payload)),
                _ => {}
            }
        }
        assert_eq!(told, Some(bound.to_be_bytes().to_vec()), "{edge:?}: the client was told");
        let expected = [0, 1, 2].map(|nth| ((bound + nth) * 2 + 1, 7u32.to_be_bytes().to_vec()));
        assert_eq!(refused, expected, "{edge:?}");
        assert_eq!(mesh.connections(), 1);
        let metrics = mesh.metrics();
        assert!(metrics.contains("mesh_limit_hits_total{limit=\"streams\"} 3\n"), "{metrics}");
    }
}
