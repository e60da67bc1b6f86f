//! The peers of a data path: what a client or a server sees of its connection.

use std::collections::HashMap;
use std::net::SocketAddr;

use runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::SOON;

/// A connection as a client or server sees it.
pub struct Peer {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message1 {
    pub first: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub trailers: String,
}

/// A frame of HTTP/2 as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Message1 {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Peer { stream, read: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Peer::new(TcpStream::connect(address).await.expect("connects"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sends");
    }

    /// Reads once more; `false` at the end.
    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        match tokio::time::timeout(SOON, reading).await.expect("bytes come soon") {
            Ok(count) => count > 0,
            Err(_) => false,
        }
    }

    /// Reads a head and gives its text.
    pub async fn head(&mut self) -> Option<(String, HashMap<String, String>)> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.lines();
        let first = lines.next().expect("a line").to_owned();
        let fields = lines.filter_map(|line| line.split_once(": "));
        Some((first, fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()))
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "the connection ended after {} bytes of {count}", self.read.len());
        }
        self.read.drain(..count).collect()
    }

    /// Reads until the end and gives what came, and whether the end was in good order.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            let reading = self.stream.read_buf(&mut self.read);
            match tokio::time::timeout(SOON, reading).await.expect("the end comes soon") {
                Ok(0) => return (std::mem::take(&mut self.read), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.read), false),
            }
        }
    }

    /// Reads a line without its end.
    pub async fn exactly_line(&mut self) -> String {
        self.line().await
    }

    /// Reads a frame of HTTP/2; none at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        while self.read.len() < 9 {
            if !self.more().await {
                return None;
            }
        }
        let length = usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
        while self.read.len() < 9 + length {
            if !self.more().await {
                return None;
            }
        }
        let bytes: Vec<u8> = self.read.drain(..9 + length).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.read.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return String::from_utf8(line).expect("text").trim_end().to_owned();
            }
            assert!(self.more().await, "the connection ended in a line");
        }
    }

    /// Reads a whole message with the body that its head states; none at the end of the connection.
    pub async fn message(&mut self) -> Option<Message1> {
        let (first, headers) = self.head().await?;
        let mut message = Message1 { first, headers, body: Vec::new(), trailers: String::new() };
        if message.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).expect("a size");
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                message.trailers.push_str(&line);
            }
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().expect("a length");
            message.body = self.exactly(length).await;
        }
        Some(message)
    }

    /// Sends bytes and reads a message.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Message1 {
        self.send(bytes).await;
        self.message().await.expect("an answer")
    }

    /// As [`Peer::ask`], for when the connection may end instead.
    pub async fn try_ask(&mut self, bytes: impl AsRef<[u8]>) -> Option<Message1> {
        self.stream.write_all(bytes.as_ref()).await.ok()?;
        self.message().await
    }
}

/// An upstream whose connections the test takes one by one.
pub struct Upstream {
    pub address: SocketAddr,
    socket: TcpListener,
}

impl Upstream {
    pub async fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Upstream { address: socket.local_addr().expect("an address"), socket }
    }

    #[allow(dead_code, reason = "for the tests in a namespace")]
    /// At an address of its own.
    pub fn at(address: SocketAddr) -> Self {
        Upstream { address, socket: mesh_proxy::sockets::bind(address).expect("binds") }
    }

    /// The next connection.
    pub async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(SOON, self.socket.accept()).await.expect("a connection comes soon");
        Peer::new(accepted.expect("accepts").0)
    }

    /// The next connection, however long it takes.
    pub async fn next(&self) -> Peer {
        Peer::new(self.socket.accept().await.expect("accepts").0)
    }

    /// Whether a connection has come that nobody has taken.
    pub async fn has_connection(&self) -> bool {
        futures_util::poll!(std::pin::pin!(self.socket.accept())).is_ready()
    }

    /// Serves every connection for as long as `tasks` run: answers each request with what `answer` makes of it.
    pub fn serve(self, tasks: &Tasks, answer: impl Fn(&Message1) -> Vec<u8> + Send + Sync + Clone + 'static) {
        let all = tasks.clone();
        tasks.spawn("upstream", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = self.socket.accept() => accepted,
                    () = all.token().cancelled() => return,
                };
                let answer = answer.clone();
                all.spawn("upstream connection", async move {
                    let mut peer = Peer::new(accepted.expect("accepts").0);
                    while let Some(request) = peer.message().await {
                        peer.send(answer(&request)).await;
                    }
                });
            }
        });
    }
}
