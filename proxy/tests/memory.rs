//! Memory while bytes flow, in a process of its own, so that nothing else is counted.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "the harness is shared with other tests")]

#[path = "data/mesh.rs"]
mod mesh;

use std::sync::Arc;
use std::time::Duration;

use mesh::mutual::{CALLER, Domain, Mode, SERVER};
use mesh::{Mesh, Peer, Upstream, forward, get, ok, until};
use mesh_proxy::{Edge, Settings};
use runtime::svid::Peers;
use tokio::sync::Mutex;

const LARGE: usize = 100 * 1024 * 1024;
/// Connections whose handshake stops, and how many of them at a time: what a process may open without asking for more.
const STOPPED: usize = 10_000;
const AT_A_TIME: usize = 400;

/// One at a time, as the process has one memory.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through_bounded_memory() {
    let _alone = ALONE.lock().await;
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

/// The first bytes of a handshake, as a sidecar begins it.
fn hello(svids: &runtime::svid::Svids) -> Vec<u8> {
    let config = svids.client_config(Peers::Members, &[b"mesh-http/1.1"]).expect("a configuration");
    let name = "mesh".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::clone(&config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes it");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_handshakes_that_stop_in_the_middle_are_cut_and_others_are_served() {
    let _alone = ALONE.lock().await;
    let domain = Domain::new();
    let (caller, server) = (domain.join(CALLER), domain.join(SERVER));
    let settings = Settings { handshake_timeout: Duration::from_millis(200), ..Settings::default() };
    let (near, far) = (caller.mesh(), server.mesh_with(settings));
    let upstream = Upstream::new().await;
    far.cluster("app", &[upstream.address]);
    far.routes("in", vec![forward("app")]);
    let inbound = far.inbound("inbound", Mode::Strict, "in", "app").await;
    upstream.serve(&far.tasks, |_| ok("hello"));
    near.by_tls("reviews", inbound, &[SERVER], false);
    near.routes("out", vec![forward("reviews")]);
    let http = near.http("out", Edge::Outbound).await;
    let hello = hello(&caller.svids);

    let mut grown = Vec::new();
    let mut before = 0;
    for wave in 0..STOPPED / AT_A_TIME {
        let mut stopped = Vec::with_capacity(AT_A_TIME);
        for at in 0..AT_A_TIME {
            let mut peer = Peer::connect(inbound).await;
            // In the middle of the first message, or with nothing behind it.
            let until = if at % 2 == 0 { hello.len() } else { hello.len() / 2 };
            peer.send(hello[..until].to_vec()).await;
            stopped.push(peer);
        }
        let answer = Peer::connect(http).await.ask(get("/")).await;
        assert_eq!((answer.status(), answer.text()), (200, "hello"), "others are served meanwhile");
        for peer in &mut stopped {
            peer.rest().await;
        }
        if wave == 0 {
            before = resident();
        }
        grown.push(resident().saturating_sub(before));
    }
    let slow = "mesh_tls_handshakes_total{side=\"server\",result=\"tls_slow\"}";
    let counted = || {
        let metrics = far.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(slow)).map(|value| value.trim().to_owned());
        value.unwrap_or_default()
    };
    // Half a message is none yet: such a connection is closed before a handshake begins.
    until("each is counted", || counted() == (STOPPED / 2).to_string()).await;
    let grown = grown.last().copied().unwrap_or_default();
    assert!(grown < 20 * 1024 * 1024, "memory grew by {grown} bytes after the first of them");
}
