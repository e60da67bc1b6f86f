//! Clients of HTTP/2 that send what brings nothing: each is cut within its bound, and others are served meanwhile.

use std::time::Duration;

use mesh_proxy::frames::FrameLimits;
use mesh_proxy::{Edge, H2, Settings};

use super::mesh::{Mesh, Peer, Upstream, forward, ok};
use super::peers::H2Client;

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that no table keeps.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    assert!(value.len() < 127);
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

/// The fields that every request has.
fn request(method: &str) -> Vec<u8> {
    [field(":method", method), field(":scheme", "http"), field(":path", "/"), field(":authority", "test")].concat()
}

const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8u32.to_be_bytes())
}

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

/// A mesh with low bounds, whose upstream never ends its answer.
async fn mesh() -> (Mesh, std::net::SocketAddr) {
    let frames = FrameLimits { resets: 20, pings: 50, settings: 20, priorities: 50, empty: 50, window_updates: 100 };
    let settings = Settings {
        h2: H2 { frames, streams: 100, ..H2::default() },
        head_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let mesh = Mesh::with(settings);
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    upstream.serve(&mesh.tasks, |_| ok("x"));
    let address = mesh.http("http", Edge::Outbound).await;
    (mesh, address)
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
async fn streams_that_are_reset_as_soon_as_they_are_open_are_cut_off() {
    let (mesh, address) = mesh().await;
    let rapid: Vec<u8> = (0..2000).flat_map(|nth| [post(nth * 2 + 1), reset(nth * 2 + 1)].concat()).collect();
    let (goaway, _) = flood(address, &rapid).await;
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{goaway:?}");
    assert!(mesh.metrics().contains("mesh_h2_connections_cut_total{reason=\"resets\"} 1\n"));
}

#[tokio::test]
async fn streams_that_the_proxy_is_made_to_reset_are_cut_off() {
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
async fn heads_that_do_not_end_are_cut_off() {
    let (mesh, address) = mesh().await;
    let more = field("x-more", &"x".repeat(100));
    let endless = [frame(HEADERS, END_STREAM, 1, &request("GET")), frame(9, 0, 1, &more).repeat(50_000)].concat();
    let (goaway, _) = flood(address, &endless).await;
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM || code == PROTOCOL_ERROR), "{goaway:?}");
    assert!(mesh.connections() <= 1);
    assert_eq!(H2Client::connect(address, &mesh.tasks).await.get("/").await.status, 200);
}

#[tokio::test]
async fn heads_that_grow_when_they_are_unpacked_are_refused() {
    let (mesh, address) = mesh().await;
    // A field of 4,000 bytes that the table keeps, and then 500 times one byte that stands for it.
    let value = "y".repeat(4000);
    let mut bomb = request("GET");
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(value.as_bytes());
    bomb.extend([0x80 | 62; 500]);
    let mut client = Peer::connect(address).await;
    client.send([HELLO, &frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)].concat()).await;
    let mut refused = false;
    while let Some(frame) = client.frame().await {
        if frame.stream == 1 {
            refused = frame.kind == 3 || frame.kind == 1;
            break;
        }
        if frame.kind == 7 {
            refused = true;
            break;
        }
    }
    assert!(refused);
    assert_eq!(H2Client::connect(address, &mesh.tasks).await.get("/").await.status, 200);
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
async fn heads_that_http2_does_not_have_are_refused() {
    let (mesh, address) = mesh().await;
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
        // Reset, the connection ended, or answered with 400 (entry 12 of the static table).
        let is_refused = frame.kind == 3 || frame.kind == 7 || frame.payload.first() == Some(&0x8c);
        assert!(is_refused, "{what}: {frame:?}");
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
    let (mesh, address) = mesh().await;
    let mut client = Peer::connect(address).await;
    let opened: Vec<u8> = (0..101).flat_map(|nth| post(nth * 2 + 1)).collect();
    client.send([HELLO, &opened].concat()).await;
    let refused = loop {
        let frame = client.frame().await.expect("the connection stays");
        if frame.kind == 3 {
            break frame.stream;
        }
    };
    assert_eq!(refused, 201);
    assert_eq!(mesh.connections(), 1);
}
