//! What bodies of 100 MiB, and peers that do their worst, cost in memory: in a process of its own, so that nothing else is
//! counted.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

#[path = "data/frames.rs"]
mod frames;
#[path = "data/mesh.rs"]
mod mesh;
#[path = "data/peers.rs"]
mod peers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::proto::{cluster, core, extension, protobuf, upstream_http};
use frames::{END_HEADERS, END_STREAM, HEADERS, HELLO, bomb, field, frame, greedy, post, request, reset};
use mesh::mutual::{CALLER, Domain, Mode, SERVER};
use mesh::{Mesh, Peer, Upstream, forward, get, until};
use mesh_proxy::{Edge, Settings};
use peers::{H2Client, H2Server};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Counts the bytes that are allocated, and the most that ever were since that was last asked.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "the only way to count memory (docs/adr/0008); it hands everything to the system")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: what is counted is of the process.
static TURN: Mutex<()> = Mutex::const_new(());

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const LARGE: usize = 100 * MIB;

/// The most bytes that were allocated at once meanwhile, beyond those before.
async fn most(work: impl Future<Output = ()>) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work.await;
    MOST.load(Ordering::Relaxed) - before
}

/// What peers send and read here, allocated once.
static BLOCK: [u8; 64 * KIB] = [7; 64 * KIB];

/// Sends so many bytes as the window allows.
async fn pour(mut send: h2::SendStream<Bytes>) {
    let mut left = LARGE;
    while left > 0 {
        send.reserve_capacity(left.min(BLOCK.len()));
        let room = poll_fn(|cx| send.poll_capacity(cx)).await.expect("the stream is open").expect("no reset");
        let now = room.min(left);
        left -= now;
        send.send_data(Bytes::from_static(&BLOCK[..now]), left == 0).expect("sends");
    }
}

/// Takes a body to its end, and says how long it was.
async fn drink(mut body: h2::RecvStream) -> usize {
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("bytes");
        assert!(data.iter().all(|byte| *byte == 7), "the bytes are those that were sent");
        received += data.len();
        body.flow_control().release_capacity(data.len()).expect("it was taken");
    }
    received
}

/// Has a cluster speak HTTP/2 to its endpoints.
fn by_h2(cluster: &mut cluster::Cluster) {
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

/// A server that takes a large body and then sends one.
async fn server(mesh: &Mesh) -> H2Server {
    H2Server::serve(&mesh.tasks, |request, mut respond| async move {
        assert_eq!(drink(request.into_body()).await, LARGE, "the whole body comes");
        pour(respond.send_response(http::Response::new(()), false).expect("sends")).await;
    })
    .await
}

/// Sends 100 MiB by HTTP/2 to what answers there, and takes as many.
async fn exchange(address: SocketAddr, mesh: &Mesh) {
    let client = H2Client::connect(address, &mesh.tasks).await;
    let (response, send) = client.begin(peers::post("/"), false).await;
    pour(send).await;
    assert_eq!(drink(response.await.expect("an answer").into_body()).await, LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through_bounded_memory_by_http2() {
    let _turn = TURN.lock().await;
    let mesh = Mesh::new();
    let server = server(&mesh).await;
    mesh.cluster_with("up", &[server.address], by_h2);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let grown = most(exchange(address, &mesh)).await;
    println!("100 MiB each way by HTTP/2: {} KiB", grown / KIB);
    assert!(grown < 8 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through_two_sidecars_by_mutual_tls() {
    let _turn = TURN.lock().await;
    let domain = Domain::new();
    let (caller, called) = (domain.join(CALLER), domain.join(SERVER));
    let (near, far) = (caller.mesh(), called.mesh());
    let server = server(&far).await;
    far.cluster_with("app", &[server.address], by_h2);
    far.routes("in", vec![forward("app")]);
    let inbound = far.inbound("inbound", Mode::Strict, "in", "app").await;
    near.by_tls("reviews", inbound, &[SERVER], true);
    near.routes("out", vec![forward("reviews")]);
    let address = near.http("out", Edge::Outbound).await;
    let grown = most(exchange(address, &near)).await;
    println!("100 MiB each way through two sidecars by mutual TLS: {} KiB", grown / KIB);
    assert!(grown < 16 * MIB, "{grown} bytes");
    assert!(
        far.metrics().contains("mesh_tls_handshakes_total{side=\"server\",result=\"full\"} 1\n"),
        "{}",
        far.metrics()
    );
}

/// An upstream that answers every request, but never ends the answer.
fn endless(upstream: Upstream, mesh: &Mesh) {
    let all = mesh.tasks.clone();
    mesh.tasks.spawn_until_cancelled("upstream", async move {
        loop {
            let mut server = upstream.next().await;
            all.spawn_until_cancelled("upstream connection", async move {
                if server.head().await.is_none() {
                    return;
                }
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
                while server.stream.write_all(&BLOCK).await.is_ok() {}
            });
        }
    });
}

/// A mesh as it is by default, but for how long it waits for a client that takes nothing.
async fn mesh(upstream: Upstream) -> (Mesh, SocketAddr) {
    let mesh = Mesh::with(Settings { stall_timeout: Duration::from_millis(500), ..Settings::default() });
    mesh.cluster("up", &[upstream.address]);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Inbound).await;
    endless(upstream, &mesh);
    (mesh, address)
}

/// Sends this, and `again` over and over, until the proxy takes no more of it, at most `times`. What it answers is thrown away.
async fn flood(address: SocketAddr, first: &[u8], again: &[u8], times: usize) {
    let (mut from, mut to) = TcpStream::connect(address).await.expect("connects").into_split();
    let sending = async {
        let all = [HELLO, first].into_iter().chain(std::iter::repeat_n(again, times));
        for bytes in all {
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let reading = async { while from.read(&mut [0; KIB]).await.is_ok_and(|count| count > 0) {} };
    tokio::join!(sending, reading);
}

/// Its name, how it begins, what is repeated, how often, and the bytes that it may cost.
type Flood = (&'static str, Vec<u8>, Vec<u8>, usize, usize);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_cost_no_memory() {
    let _turn = TURN.lock().await;
    let (mesh, address) = mesh(Upstream::new().await).await;
    let streams = |of: &dyn Fn(u32) -> Vec<u8>| (0..20_000).flat_map(|nth| of(nth * 2 + 1)).collect::<Vec<u8>>();
    let more = field("x-more", &"x".repeat(100)).repeat(140);
    let floods: [Flood; 8] = [
        ("continuations", frame(HEADERS, 0, 1, &request("GET")), frame(9, 0, 1, &more), 4000, MIB),
        ("empty continuations", frame(HEADERS, 0, 1, &request("GET")), frame(9, 0, 1, &[]).repeat(1000), 1000, MIB),
        ("one head that grows to 50 MiB", vec![], bomb(1, 12_000), 1, MIB),
        ("heads that grow to 160 KiB", streams(&|stream| bomb(stream, 40)), vec![], 0, 2 * MIB),
        ("streams that are reset", streams(&|stream| [post(stream), reset(stream)].concat()), vec![], 0, 16 * MIB),
        ("empty DATA", post(1), frame(0, 0, 1, &[]).repeat(1000), 1000, MIB),
        ("pings", vec![], frame(6, 0, 0, &[0; 8]).repeat(1000), 1000, MIB),
        ("settings", vec![], frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]).repeat(1000), 1000, MIB),
    ];
    for (what, first, again, times, bound) in floods {
        let grown = most(flood(address, &first, &again, times)).await;
        until("it is let go of", || mesh.connections() == 0).await;
        println!("{what}: {} KiB", grown / KIB);
        assert!(grown < bound, "{what}: {grown} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_stay_shut_cost_little_memory() {
    const STREAMS: u32 = 300;
    let _turn = TURN.lock().await;
    let (_mesh, address) = mesh(Upstream::new().await).await;
    // SETTINGS_INITIAL_WINDOW_SIZE of nothing, and many requests at once.
    let shut = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let block = request("GET");
    let asked = (0..STREAMS).flat_map(|nth| frame(HEADERS, END_STREAM | END_HEADERS, nth * 2 + 1, &block));
    let bytes = [&HELLO[..24], &shut, &asked.collect::<Vec<u8>>()].concat();
    let grown = most(async {
        let mut client = Peer::connect(address).await;
        client.send(&bytes).await;
        let mut given_up = 0;
        while given_up < STREAMS {
            let frame = client.frame().await.expect("the connection stays");
            assert_ne!((frame.kind, !frame.payload.is_empty()), (0, true), "nothing may be sent");
            given_up += u32::from(frame.kind == 3);
        }
    })
    .await;
    println!("{STREAMS} streams whose windows stay shut: {} KiB", grown / KIB);
    assert!(grown < 16 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_cost_little_memory() {
    const READERS: usize = 100;
    let _turn = TURN.lock().await;
    let (mesh, address) = mesh(Upstream::new().await).await;
    let grown = most(async {
        let mut clients = Vec::new();
        for _ in 0..READERS {
            let mut client = Peer::connect(address).await;
            client.send(get("/")).await;
            clients.push(client);
        }
        let given_up = format!("mesh_limit_hits_total{{limit=\"slow_reader\"}} {READERS}\n");
        until("all are given up", || mesh.metrics().contains(&given_up)).await;
    })
    .await;
    println!("{READERS} readers of HTTP/1.1 that take nothing: {} KiB", grown / KIB);
    assert!(grown < READERS * 400 * KIB, "{grown} bytes");
    // By HTTP/2 all streams of one connection.
    let grown = most(async {
        let mut client = Peer::connect(address).await;
        client.send(&greedy(READERS as u32)).await;
        until("it is given up", || mesh.metrics().contains("mesh_limit_hits_total{limit=\"slow_reader\"} 200\n")).await;
    })
    .await;
    println!("{READERS} streams of a client that reads nothing: {} KiB", grown / KIB);
    assert!(grown < SPENT + READERS * LEAST, "{grown} bytes");
}

/// What a connection of HTTP/2 may have waiting for its client: with its codec, read ahead, and in the socket's buffer.
const SPENT: usize = 3 * MIB;
/// What each of its streams may have beside that: a piece, its upstream's buffer, and itself.
const LEAST: usize = 48 * KIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_of_streams_from_one_upstream_holds_up_nobody_else() {
    const STREAMS: u32 = 100;
    let _turn = TURN.lock().await;
    let mesh = Mesh::new();
    let server = H2Server::serve(&mesh.tasks, |request, mut respond| async move {
        let ends = request.uri().path() == "/short";
        let send = respond.send_response(http::Response::new(()), ends).expect("sends");
        if !ends {
            pour_endlessly(send).await;
        }
    })
    .await;
    mesh.cluster_with("up", &[server.address], by_h2);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let grown = most(async {
        let mut greedy_client = Peer::connect(address).await;
        greedy_client.send(&greedy(STREAMS)).await;
        let other = H2Client::connect(address, &mesh.tasks).await;
        for _ in 0..100 {
            assert_eq!(other.get("/short").await.status, 200);
        }
        let (response, _send) = other.begin(peers::get("/"), true).await;
        let mut body = response.await.expect("an answer").into_body();
        let mut received = 0;
        while received < LARGE {
            let data = body.data().await.expect("no end").expect("bytes");
            received += data.len();
            body.flow_control().release_capacity(data.len()).expect("it was taken");
        }
    })
    .await;
    println!("{STREAMS} streams from one upstream that a client does not read: {} KiB", grown / KIB);
    assert!(grown < 16 * MIB, "{grown} bytes");
}

/// Sends bytes as the window allows until the stream is reset.
async fn pour_endlessly(mut send: h2::SendStream<Bytes>) {
    loop {
        send.reserve_capacity(BLOCK.len());
        let Some(Ok(room)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
        if send.send_data(Bytes::from_static(&BLOCK[..room.min(BLOCK.len())]), false).is_err() {
            return;
        }
    }
}
