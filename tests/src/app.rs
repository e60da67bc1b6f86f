//! An application for tests: a page, a port that accepts, and the health service of gRPC; it can be made ill and well.
//!
//! It serves HTTP on 8080 (`/health`, `/ill`, `/well`), accepts connections on 9001, and speaks gRPC on 9002. It writes a line
//! for each question about its health: by which way, from where, and by whom.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let is_well = Arc::new(AtomicBool::new(true));
    let (pages, port, health) = (listen(8080).await?, listen(9001).await?, listen(9002).await?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            Ok((stream, peer)) = pages.accept() => drop(connections.spawn(page(stream, peer, Arc::clone(&is_well)))),
            Ok((_, peer)) = port.accept() => println!("tcp from {}", peer.ip()),
            Ok((stream, peer)) = health.accept() => drop(connections.spawn(grpc(stream, peer, Arc::clone(&is_well)))),
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.with_context(|| format!("port {port} cannot be served"))
}

async fn page(stream: TcpStream, peer: SocketAddr, is_well: Arc<AtomicBool>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (status, text) = match request.uri().path() {
            "/health" => {
                let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or("-");
                println!("http from {} by {agent}", peer.ip());
                match is_well.load(Ordering::Relaxed) {
                    true => (StatusCode::OK, "well\n"),
                    false => (StatusCode::INTERNAL_SERVER_ERROR, "ill\n"),
                }
            }
            path @ ("/ill" | "/well") => {
                is_well.store(path == "/well", Ordering::Relaxed);
                (StatusCode::OK, "so be it\n")
            }
            _ => (StatusCode::NOT_FOUND, "/health, /ill, /well\n"),
        };
        let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *answer.status_mut() = status;
        async { Ok::<_, Infallible>(answer) }
    });
    // Who asks sees how it ends.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn grpc(stream: TcpStream, peer: SocketAddr, is_well: Arc<AtomicBool>) {
    let check = service_fn(move |request: Request<Incoming>| {
        println!("grpc from {} to {}", peer.ip(), request.uri().path());
        let state = if is_well.load(Ordering::Relaxed) { 1 } else { 2 };
        async move {
            let _ = request.into_body().collect().await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let data = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state]);
            let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
            let mut answer = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
            answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok::<_, Infallible>(answer)
        }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), check).await;
}
