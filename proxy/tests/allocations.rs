//! What a request costs in allocations, in a process of its own, so that nothing else is counted.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "data/mesh.rs"]
mod mesh;

use mesh::{Mesh, Upstream};

/// Counts what is allocated.
struct Counting;

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
async fn measure(request: &[u8]) -> usize {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    mesh.tasks.spawn("upstream", answer(upstream));
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

#[tokio::test]
async fn a_request_allocates_no_more_than_this() {
    let (get, upload) = (measure(REQUEST).await, measure(UPLOAD).await);
    println!("allocations per thousand requests: GET {get}, POST in chunks {upload}");
    // One: the box in which a request is served, so that a connection without one does not hold its memory. The runtime's
    // timers have the rest.
    assert!(get <= 1_010, "a GET allocates {get} times per thousand");
    assert!(upload <= 1_010, "a POST in chunks allocates {upload} times per thousand");
}
