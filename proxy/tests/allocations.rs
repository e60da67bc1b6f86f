//! What a request costs in allocations, in a process of its own, so that nothing else is counted.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "data/mesh.rs"]
mod mesh;

use mesh::mutual::{CALLER, Domain, Mode, SERVER};
use mesh::{Mesh, Upstream, forward};

/// Counts what is allocated.
struct Counting;

/// What one test does is not counted by another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "the only way to count allocations (docs/adr/0008); it hands everything to the system")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUEST: &[u8] =
    b"GET /reviews/0?u=1 HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: test\r\nAccept: */*\r\nX: y\r\n\r\n";
const UPLOAD: &[u8] =
    b"POST /reviews HTTP/1.1\r\nHost: reviews:9080\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
const WARM: usize = 200;
const COUNTED: usize = 1000;

/// An upstream that allocates nothing for a request.
async fn answer(upstream: Upstream) {
    let mut stream = upstream.next().await.stream;
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        if bytes[..count].ends_with(b"\r\n\r\n") && stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

async fn ask(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.expect("sends");
    let (mut bytes, mut read) = ([0; 4096], 0);
    while !bytes[..read].ends_with(b"hello") {
        let count = stream.read(&mut bytes[read..]).await.expect("an answer");
        assert!(count > 0, "the connection ended");
        read += count;
    }
}

/// Allocations for each request when nothing is new any more, as a whole number of thousandths.
async fn measure_at(address: std::net::SocketAddr, request: &[u8]) -> usize {
    let mut client = TcpStream::connect(address).await.expect("connects");
    for _ in 0..WARM {
        ask(&mut client, request).await;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..COUNTED {
        ask(&mut client, request).await;
    }
    (ALLOCATIONS.load(Ordering::Relaxed) - before) * 1000 / COUNTED
}

async fn measure(request: &[u8]) -> usize {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    mesh.tasks.spawn("upstream", answer(upstream));
    measure_at(address, request).await
}

/// Two proxies with mutual TLS between them; HTTP comes in at the first address, opaque bytes at the second.
async fn two_by_tls(upstream: &Upstream) -> ([Mesh; 2], [std::net::SocketAddr; 2]) {
    let domain = Domain::new();
    let (near, far) = (domain.join(CALLER).mesh(), domain.join(SERVER).mesh());
    far.cluster("app", &[upstream.address]);
    far.routes("inbound", vec![forward("app")]);
    let inbound = far.inbound("inbound", Mode::Strict, "inbound", "app").await;
    near.by_tls("up", inbound, &[SERVER], false);
    near.routes("http", vec![forward("up")]);
    let addresses = [near.http("http", mesh_proxy::Edge::Outbound).await, near.tcp("tcp", "up").await];
    ([near, far], addresses)
}

#[tokio::test]
async fn a_request_allocates_no_more_than_this() {
    let _alone = ALONE.lock().await;
    let (get, upload) = (measure(REQUEST).await, measure(UPLOAD).await);
    println!("allocations per thousand requests: GET {get}, POST in chunks {upload}");
    // One: the box in which a request is served, so that a connection without one does not hold its memory. The runtime's
    // timers have the rest.
    assert!(get <= 1_010, "a GET allocates {get} times per thousand");
    assert!(upload <= 1_010, "a POST in chunks allocates {upload} times per thousand");
}

/// Gives back every byte that comes.
async fn echo(upstream: Upstream) {
    let mut stream = upstream.next().await.stream;
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        if stream.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn tls_allocates_nothing_for_a_record() {
    let _alone = ALONE.lock().await;
    let upstream = Upstream::new().await;
    let ([near, _far], [http, _]) = two_by_tls(&upstream).await;
    near.tasks.spawn("upstream", answer(upstream));
    let get = measure_at(http, REQUEST).await;

    let upstream = Upstream::new().await;
    let ([near, _far], [_, tcp]) = two_by_tls(&upstream).await;
    near.tasks.spawn("upstream", echo(upstream));
    let mut client = TcpStream::connect(tcp).await.expect("connects");
    let mut bytes = [0; 1024];
    let mut message = async |_| {
        client.write_all(&[b'x'; 1024]).await.expect("sends");
        client.read_exact(&mut bytes).await.expect("an answer");
        ALLOCATIONS.load(Ordering::Relaxed)
    };
    for nth in 0..WARM {
        message(nth).await;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut after = before;
    for nth in 0..COUNTED {
        after = message(nth).await;
    }
    let each = (after - before) * 1000 / COUNTED;

    let (mut from, mut to) = client.into_split();
    const MIBS: usize = 64;
    let sending = async {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..MIBS {
            to.write_all(&piece).await.expect("sends");
        }
    };
    let receiving = async {
        let mut into = vec![0; 1 << 20];
        for _ in 0..MIBS {
            from.read_exact(&mut into).await.expect("comes back");
        }
    };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    tokio::join!(sending, receiving);
    let records = 2 * MIBS * 64;
    let bulk = (ALLOCATIONS.load(Ordering::Relaxed) - before) * 1000 / records;
    println!("allocations per thousand: GET through two proxies {get}, messages {each}, records of 16 KiB {bulk}");
    // One in each proxy: see above.
    assert!(get <= 2_010, "a GET allocates {get} times per thousand");
    assert!(each <= 10, "a small message allocates {each} times per thousand");
    assert!(bulk <= 50, "a record allocates {bulk} times per thousand");
}
