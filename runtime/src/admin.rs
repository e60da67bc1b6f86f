//! A small HTTP server for what operators and the kubelet ask: bounded, and gone in order when told to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::{Extension, Router};
use http::{StatusCode, header};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bounds of an admin server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a client may take to send the head of a request; also the longest idle time of a kept connection.
    pub head: Duration,
    /// How long running requests may go on after the stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 64, head: Duration::from_secs(30), grace: Duration::from_secs(2) }
    }
}

/// Who is connected, as a request's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Serves `router` over HTTP/1.1 on `listener` (plain or [`crate::tls::TlsListener`]) until `stop` is cancelled; then
/// stops accepting, lets running requests finish within the grace, and returns.
pub async fn serve<L>(listener: L, router: Router, limits: Limits, stop: CancellationToken)
where
    L: Listener<Addr = SocketAddr>,
{
    serve_each(listener, |_| router.clone(), limits, stop).await;
}

/// As [`serve`], with the routes of each connection made for it: by whom its certificate names, for example.
pub async fn serve_each<L>(
    mut listener: L,
    router: impl Fn(&L::Io) -> Router + Send,
    limits: Limits,
    stop: CancellationToken,
) where
    L: Listener<Addr = SocketAddr>,
{
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(64 * 1024);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, (io, peer)) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router(&io).layer(Extension(Peer(peer))));
        let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "an admin connection has ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, finished).await.is_err() {
        tracing::debug!("admin connections are cut at the end of the grace");
    }
}

/// Refuses requests whose Host is not this machine by its loopback name or address, so that a page in a browser on this
/// machine cannot reach the server through a name of its own that resolves to loopback.
pub fn loopback_only(router: Router) -> Router {
    router.layer(middleware::from_fn(check_host))
}

async fn check_host(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let known = match host {
        Some(host) => hosts.next().is_none() && is_loopback(host),
        // HTTP/1.0 needs no Host, and browsers do not speak it.
        None => request.headers().get(header::HOST).is_none() && request.version() == http::Version::HTTP_10,
    };
    if known && request.uri().authority().is_none_or(|authority| is_loopback(authority.as_str())) {
        return next.run(request).await;
    }
    let text = "this port answers requests to localhost only: send `Host: localhost`\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Tasks;

    async fn started(router: Router, limits: Limits) -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let tasks = Tasks::new();
        tasks.spawn("admin", serve(listener, router, limits, tasks.token().clone()));
        (address, tasks)
    }

    async fn ask(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[test]
    fn only_loopback_names_are_loopback() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:15000", true),
            ("127.0.0.1:15000", true),
            ("[::1]:15000", true),
            ("[::1]", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:15000", false),
            ("evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host:?}");
        }
    }

    #[tokio::test]
    async fn cve_2024_40632_a_foreign_host_is_refused() {
        let router = loopback_only(Router::new().route("/", get(|| async { "hello" })));
        let (address, tasks) = started(router, Limits::default()).await;
        let evil = ask(address, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
        assert!(evil.starts_with("HTTP/1.1 403"), "{evil}");
        let good = ask(address, "GET / HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n").await;
        assert!(good.ends_with("hello"), "{good}");
        tasks.stop(Duration::from_secs(5)).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut() {
        let limits = Limits { head: Duration::from_millis(50), connections: 1, ..Limits::default() };
        let (address, tasks) = started(Router::new().route("/", get(|| async { "hello" })), limits).await;
        let _silent = ask(address, "").await;
        let good = ask(address, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(good.ends_with("hello"), "{good}");
        tasks.stop(Duration::from_secs(5)).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_running_request_finishes_after_the_stop() {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let ends = Arc::new(std::sync::Mutex::new(Some((begun, may_go_on))));
        let slow = move || {
            let ends = ends.lock().ok().and_then(|mut ends| ends.take());
            async move {
                if let Some((begun, may_go_on)) = ends {
                    let _ = begun.send(());
                    let _ = may_go_on.await;
                }
                "finished"
            }
        };
        let (address, tasks) = started(Router::new().route("/", get(slow)), Limits::default()).await;
        let (answer, ()) = tokio::join!(ask(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), async {
            has_begun.await.expect("the request arrives");
            tasks.token().cancel();
            go_on.send(()).expect("the request waits");
        });
        assert!(answer.ends_with("finished"), "{answer}");
        tasks.join().await;
    }
}
