//! Memory while bytes flow, in a process of its own, so that nothing else is counted.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

#[path = "data/mesh.rs"]
mod mesh;

use mesh::{Mesh, Peer, Upstream};

const LARGE: usize = 100 * 1024 * 1024;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through_bounded_memory() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    let before = resident();
    let mut client = Peer::connect(address).await;
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.head().await.expect("a head");
    mesh.tasks.spawn("server", async move {
        let block = 1024 * 1024;
        for at in 0..LARGE / block {
            let bytes = server.exactly(block).await;
            assert!(bytes.iter().all(|byte| *byte == at as u8));
        }
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        for at in 0..LARGE / block {
            server.send(vec![at as u8; block]).await;
        }
    });
    for at in 0..LARGE / (1024 * 1024) {
        client.send(vec![at as u8; 1024 * 1024]).await;
    }
    client.head().await.expect("a head");
    let mut seen = 0;
    while seen < LARGE {
        client.exactly(1024 * 1024).await;
        seen += 1024 * 1024;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 * 1024 * 1024, "memory grew by {grown} bytes");
}
