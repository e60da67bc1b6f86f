//! A client of HTTP/2 that knows that the server speaks it, and that hides nothing.

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::http::Answer;

/// How often a request is sent anew that has not left.
const TRIES: usize = 5;

/// A connection that is made anew when the server has taken leave of it.
pub struct Client {
    address: String,
    runtime: Runtime,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// What drives connections until the server ends them.
    drivers: JoinSet<hyper::Result<()>>,
}

impl Client {
    /// A client of `host:port`.
    ///
    /// # Panics
    ///
    /// When the machine has no thread left.
    #[must_use]
    pub fn new(address: &str) -> Self {
        // A thread of its own hears what the server says between two requests.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        Client { address: address.to_owned(), runtime, connection: None, drivers: JoinSet::new() }
    }

    /// Sends a request with a body, which may be empty. Only one that has not left is sent again.
    ///
    /// # Errors
    ///
    /// What became of it instead of an answer.
    pub fn ask(&mut self, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<Answer> {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).body(Full::new(body.clone()))?;
        let Client { address, runtime, connection, drivers } = self;
        runtime.block_on(async {
            for _ in 0..TRIES {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => connect(address, drivers).await?,
                };
                if open.ready().await.is_err() {
                    continue;
                }
                match open.try_send_request(request.clone()).await {
                    Ok(response) => {
                        *connection = Some(open);
                        return answer(response).await;
                    }
                    Err(mut error) => {
                        if error.take_message().is_none() {
                            return Err(error.into_error()).context("no answer");
                        }
                    }
                }
            }
            anyhow::bail!("{TRIES} connections ended before the request left")
        })
    }
}

async fn connect(address: &str, drivers: &mut JoinSet<hyper::Result<()>>) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    stream.set_nodelay(true)?;
    let (open, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.context("no greeting")?;
    while drivers.try_join_next().is_some() {}
    drivers.spawn(connection);
    Ok(open)
}

async fn answer(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("half an answer")?.to_bytes();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    Ok(Answer { status: head.status.as_u16(), headers, body: String::from_utf8_lossy(&body).into_owned() })
}
