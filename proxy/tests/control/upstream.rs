//! Servers and clients that speak just enough HTTP.

use std::net::SocketAddr;

use runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::SOON;

/// A server that answers every request with one text.
pub async fn answering(tasks: &Tasks, text: &'static str) -> SocketAddr {
    let (_, now) = watch::channel(());
    holding(tasks, text, now).await
}

/// A server that answers each request once `release` has changed, or its sender is gone.
pub async fn holding(tasks: &Tasks, text: &'static str, release: watch::Receiver<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let connections = tasks.clone();
    tasks.spawn_until_cancelled("upstream", async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn_until_cancelled("upstream connection", answer(stream, text, release.clone()));
        }
    });
    address
}

/// A server that tells of the head of each request that it gets.
pub async fn noting(tasks: &Tasks) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (heads, received) = mpsc::channel(8);
    tasks.spawn_until_cancelled("upstream", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    break;
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = heads.send(String::from_utf8_lossy(&head).into_owned()).await;
        }
    });
    (address, received)
}

async fn answer(mut stream: TcpStream, text: &'static str, mut release: watch::Receiver<()>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let _ = release.changed().await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// One request on a connection of its own: the whole answer, or `None` when nobody listens.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(SOON, exchange).await.expect("it answers in time")
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status")
}
