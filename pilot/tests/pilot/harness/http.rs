//! HTTP/1.1 over TLS, one request per connection.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) async fn get(address: SocketAddr, root: &str, path: &str, token: &str) -> (u16, String) {
    send(address, root, &format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"), "").await
}

pub(crate) async fn post(address: SocketAddr, root: &str, path: &str, content_type: &str, body: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    send(address, root, &head, body).await
}

async fn send(address: SocketAddr, root: &str, head: &str, body: &str) -> (u16, String) {
    let config = runtime::tls::client_config(root.as_bytes(), &[b"http/1.1"]).expect("a root");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = super::SERVER.try_into().expect("a name");
    let mut stream = TlsConnector::from(config).connect(name, stream).await.expect("it is trusted");
    let request = format!("{head}Host: {}\r\nConnection: close\r\n\r\n{body}", super::SERVER);
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    // A server may end TLS without saying so after `Connection: close`.
    let _ = super::within(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}
