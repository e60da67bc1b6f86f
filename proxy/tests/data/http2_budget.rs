//! What streams of one connection share while they wait for its client, and that none of them waits for ever.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_proxy::Edge;

use super::frames::{END_HEADERS, END_STREAM, HEADERS, frame, greedy, request};
use super::http2::to_h2;
use super::mesh::{Mesh, Peer, Upstream, forward, until};
use super::peers::{H2Client, H2Server, drink, get};

const STREAMS: u32 = 100;
const BODY: usize = 512 * 1024;

/// Bytes that are others at each place, as far as a mistake could move them.
fn body() -> Vec<u8> {
    (0..BODY).map(|at| (at % 251) as u8).collect()
}

/// A mesh before an upstream of HTTP/1.1 that answers everything with [`body`], by its length or in chunks.
/// Says how often it has been asked.
async fn mesh(in_chunks: bool) -> (Mesh, SocketAddr, Arc<AtomicUsize>) {
    let mesh = Mesh::new();
    let upstream = Upstream::new().await;
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    let text = body();
    let answer = if in_chunks {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in text.chunks(10_000) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    } else {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").into_bytes(), text].concat()
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    upstream.serve(&mesh.tasks, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        answer.clone()
    });
    let address = mesh.http("http", Edge::Outbound).await;
    (mesh, address, asked)
}

/// Reads all answers of a client that has asked for more than anybody keeps for it.
async fn read_all(mut client: Peer) {
    let expected = body();
    let mut received: HashMap<u32, usize> = HashMap::new();
    let mut ended = 0;
    while ended < STREAMS {
        let frame = client.frame().await.expect("the connection stays");
        assert_ne!(frame.kind, 3, "no stream is reset");
        if frame.kind == 0 {
            let at = received.entry(frame.stream).or_default();
            let end = *at + frame.payload.len();
            assert!(expected.get(*at..end) == Some(&frame.payload), "stream {} at {at}", frame.stream);
            *at = end;
        }
        ended += u32::from(frame.kind <= 1 && frame.flags & END_STREAM != 0);
    }
    assert!(received.len() == STREAMS as usize && received.values().all(|count| *count == BODY), "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pauses_gets_every_byte_of_every_stream() {
    for in_chunks in [false, true] {
        let (mesh, address, asked) = mesh(in_chunks).await;
        let mut client = Peer::connect(address).await;
        client.send(&greedy(STREAMS)).await;
        until("all are being answered", || asked.load(Ordering::SeqCst) >= STREAMS as usize).await;
        // The connection is stuck while others go on.
        let other = H2Client::with_windows(address, &mesh.tasks, 65_535, 1 << 20).await;
        assert!(other.get("/").await.body == body());
        read_all(client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_hold_up_no_other_of_their_connection() {
    let (mesh, address, _) = mesh(false).await;
    let client = H2Client::with_windows(address, &mesh.tasks, 32 * 1024, 1 << 30).await;
    let mut unread = Vec::new();
    for _ in 0..STREAMS / 2 {
        let (response, _) = client.begin(get("/"), true).await;
        unread.push(response.await.expect("an answer").into_body());
    }
    for _ in 0..STREAMS / 2 {
        assert!(client.get("/").await.body == body());
    }
    for recv in unread {
        assert!(drink(recv).await.expect("a body").0 == body());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_is_taken_back_holds_up_no_other_stream() {
    let (_mesh, address, asked) = mesh(false).await;
    let mut client = Peer::connect(address).await;
    client.send(&greedy(STREAMS)).await;
    until("all are being answered", || asked.load(Ordering::SeqCst) >= STREAMS as usize).await;
    // What the proxy has taken for these streams cannot go out any more.
    let shut = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let last = STREAMS * 2 + 1;
    let head = frame(HEADERS, END_STREAM | END_HEADERS, last, &request("GET"));
    let open = frame(8, 0, last, &(BODY as u32).to_be_bytes());
    client.send(&[shut, head, open].concat()).await;
    let mut received = 0;
    while received < BODY {
        let frame = client.frame().await.expect("the connection stays");
        received += if frame.kind == 0 && frame.stream == last { frame.payload.len() } else { 0 };
    }
}

// On one thread: each has a connection of its own.
#[tokio::test]
async fn streams_of_one_client_that_are_not_read_leave_an_upstreams_connection_to_others() {
    let mesh = Mesh::new();
    let server = H2Server::serve(&mesh.tasks, |_, mut respond| async move {
        let mut send = respond.send_response(http::Response::new(()), false).expect("sends");
        send.send_data(body().into(), true).expect("sends");
    })
    .await;
    let address = to_h2(&mesh, server.address).await;
    let client = H2Client::with_windows(address, &mesh.tasks, 16 * 1024, 1 << 30).await;
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        let (response, _) = client.begin(get("/"), true).await;
        unread.push(response.await.expect("an answer").into_body());
    }
    let other = H2Client::with_windows(address, &mesh.tasks, 65_535, 1 << 20).await;
    for _ in 0..10 {
        assert!(other.get("/").await.body == body());
    }
    assert_eq!(mesh.path.h2_upstreams(), 1, "all share one connection");
    for recv in unread {
        assert!(drink(recv).await.expect("a body").0 == body());
    }
}
