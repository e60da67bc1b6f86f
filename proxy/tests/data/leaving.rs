//! Who leaves takes no request along: a proxy that drains, an endpoint that does, an application that closes what is idle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use engine::proto::core::HealthStatus;
use mesh_proxy::Edge;
use runtime::drain::Drained;

use crate::mesh::{Mesh, Peer, Upstream, forward, get, ok, until};

/// What clients have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
}

impl Seen {
    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

/// A client that asks one request after the other, at the first of the proxies until that tells it to go, and makes a new
/// connection only when it is told to.
async fn client(nth: usize, proxies: [SocketAddr; 2], seen: Arc<Seen>) {
    let mut connection: Option<Peer> = None;
    let (mut at, mut proxy) = (nth, proxies[0]);
    while !seen.stop.load(Ordering::Relaxed) {
        at += 1;
        let mut peer = match connection.take() {
            Some(peer) => peer,
            None => Peer::connect(proxy).await,
        };
        let request = match at % 3 {
            0 => "POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nmoney".to_owned(),
            1 => "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
            _ => get("/"),
        };
        match peer.try_ask(&request).await {
            Some(answer) if answer.status() == 200 => {
                seen.answered.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") == Some("close") {
                    proxy = proxies[1];
                } else {
                    connection = Some(peer);
                }
            }
            _ => drop(seen.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_a_proxy_leaves_under_load() {
    for edge in [Edge::Gateway, Edge::Inbound] {
        let upstream = Upstream::new().await;
        let (leaving, staying) = (Mesh::new(), Mesh::new());
        let mut proxies = Vec::new();
        for mesh in [&leaving, &staying] {
            mesh.cluster("up", &[upstream.address]);
            mesh.routes("http", vec![forward("up")]);
            proxies.push(mesh.http("http", edge).await);
        }
        upstream.serve(&staying.tasks, |_| ok("up"));
        let seen = Arc::new(Seen::default());
        for nth in 0..8 {
            staying.tasks.spawn("client", client(nth, [proxies[0], proxies[1]], Arc::clone(&seen)));
        }
        until("the load runs", || seen.answered() > 200).await;
        let drained = leaving.drain.run(&leaving.tasks, Duration::from_secs(8)).await;
        assert_eq!(drained, Drained::Finished);
        let after = seen.answered();
        until("the load goes on elsewhere", || seen.answered() > after + 200).await;
        seen.stop.store(true, Ordering::Relaxed);
        assert_eq!(seen.failed.load(Ordering::Relaxed), 0, "of {} requests", seen.answered());
    }
}

#[tokio::test]
async fn a_request_that_comes_while_the_proxy_leaves_is_served_and_told_so() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    upstream.serve(&mesh.tasks, |_| ok("up"));
    let mut idle = Peer::connect(address).await;
    assert_eq!(idle.ask(get("/")).await.header("connection"), None);
    mesh.drain.start();
    let answer = idle.ask(get("/late")).await;
    assert_eq!((answer.text(), answer.header("connection")), ("up", Some("close")), "on a connection that was idle");
    let answer = Peer::connect(address).await.ask(get("/new")).await;
    assert_eq!((answer.text(), answer.header("connection")), ("up", Some("close")), "on a new one, for a moment");
    until("the port is closed", || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn an_endpoint_that_drains_finishes_what_it_has_and_gets_no_more() {
    let (leaving, staying) = (Upstream::new().await, Upstream::new().await);
    let mesh = Mesh::new();
    mesh.cluster("up", &[leaving.address]);
    mesh.routes("http", vec![forward("up")]);
    let address = mesh.http("http", Edge::Outbound).await;
    let mut client = Peer::connect(address).await;
    client.send(get("/slow")).await;
    let mut server = leaving.accept().await;
    server.message().await.expect("a request");
    mesh.endpoints("up", &[(leaving.address, HealthStatus::Draining), (staying.address, HealthStatus::Healthy)]);
    staying.serve(&mesh.tasks, |_| ok("stays"));
    for _ in 0..20 {
        assert_eq!(Peer::connect(address).await.ask(get("/")).await.text(), "stays");
    }
    server.send(ok("finished")).await;
    assert_eq!(client.message().await.expect("an answer").text(), "finished");
    assert_eq!(client.ask(get("/")).await.text(), "stays", "its idle connection is not used either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_that_close_what_is_idle_cost_no_request() {
    let upstream = Upstream::new().await;
    let (mesh, address) = Mesh::simple(upstream.address).await;
    // The application closes each connection a moment after its second answer, without a word: often just as the next
    // request is on its way.
    let tasks = mesh.tasks.clone();
    mesh.tasks.spawn("upstream", async move {
        loop {
            let mut peer = tokio::select! {
                peer = upstream.next() => peer,
                () = tasks.token().cancelled() => return,
            };
            tasks.spawn("upstream connection", async move {
                for _ in 0..2 {
                    if peer.message().await.is_none() {
                        return;
                    }
                    peer.send(ok("up")).await;
                }
                tokio::task::yield_now().await;
            });
        }
    });
    let seen = Arc::new(Seen::default());
    for nth in 0..8 {
        let seen = Arc::clone(&seen);
        mesh.tasks.spawn("client", async move {
            let mut peer = Peer::connect(address).await;
            for at in 0..100 {
                match peer.try_ask(&get(&format!("/{nth}/{at}"))).await {
                    Some(answer) if answer.status() == 200 => drop(seen.answered.fetch_add(1, Ordering::Relaxed)),
                    _ => drop(seen.failed.fetch_add(1, Ordering::Relaxed)),
                }
            }
        });
    }
    until("all are answered", || seen.answered() + seen.failed.load(Ordering::Relaxed) == 800).await;
    assert_eq!(seen.failed.load(Ordering::Relaxed), 0);
}
