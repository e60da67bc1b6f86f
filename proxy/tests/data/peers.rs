//! Clients and servers of HTTP/2 for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};

use super::mesh::SOON;

/// A client with one connection.
#[derive(Clone)]
pub struct H2Client {
    send: SendRequest<Bytes>,
}

/// A whole response.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl H2Client {
    pub async fn connect(address: SocketAddr, tasks: &Tasks) -> Self {
        H2Client::with_window(address, tasks, 65_535).await
    }

    /// A client that takes so many bytes of a stream before it has released them.
    pub async fn with_window(address: SocketAddr, tasks: &Tasks, window: u32) -> Self {
        H2Client::with_windows(address, tasks, window, 65_535).await
    }

    /// As [`H2Client::with_window`], and so many of all streams.
    pub async fn with_windows(address: SocketAddr, tasks: &Tasks, window: u32, of_all: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(of_all);
        let (send, connection) = builder.handshake(stream).await.expect("greets");
        tasks.spawn_until_cancelled("client", async move {
            let _ = connection.await;
        });
        H2Client { send }
    }

    /// Waits until another stream may be opened.
    pub async fn try_ready(&self) -> Result<(), h2::Error> {
        self.send.clone().ready().await.map(drop)
    }

    /// Sends a head.
    pub async fn begin(&self, request: Request<()>, ends: bool) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.send.clone().ready().await.expect("the connection is open");
        ready.send_request(request, ends).expect("sends")
    }

    /// Sends a request and gives what came of it.
    pub async fn try_ask(
        &self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Whole, h2::Error> {
        let ends = body.is_empty() && trailers.is_none();
        let mut ready = self.send.clone().ready().await?;
        let (response, mut send) = ready.send_request(request, ends)?;
        if !ends {
            send.send_data(Bytes::copy_from_slice(body), trailers.is_none())?;
            if let Some(trailers) = trailers {
                send.send_trailers(trailers)?;
            }
        }
        let whole = async {
            let (parts, recv) = response.await?.into_parts();
            let (body, trailers) = drink(recv).await?;
            Ok(Whole { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
        };
        tokio::time::timeout(SOON, whole).await.expect("an answer comes soon")
    }

    pub async fn ask(&self, request: Request<()>) -> Whole {
        self.try_ask(request, &[], None).await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Whole {
        self.ask(get(path)).await
    }
}

/// A GET of a path.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).expect("a request")
}

/// A POST to a path.
pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).body(()).expect("a request")
}

/// Reads a body to its end.
pub async fn drink(mut recv: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = recv.data().await {
        let data = data?;
        recv.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, recv.trailers().await?))
}

/// Sends a whole response.
pub fn reply(respond: &mut SendResponse<Bytes>, status: u16, body: &str) {
    let response = Response::builder().status(status).body(()).expect("a response");
    let mut send = respond.send_response(response, body.is_empty()).expect("sends");
    if !body.is_empty() {
        send.send_data(Bytes::copy_from_slice(body.as_bytes()), true).expect("sends");
    }
}

/// A server of HTTP/2.
pub struct H2Server {
    pub address: SocketAddr,
    /// Connections that it has accepted.
    pub connections: Arc<AtomicUsize>,
}

impl H2Server {
    /// Answers each request by what `answer` does with it.
    pub async fn serve<F, A>(tasks: &Tasks, answer: A) -> Self
    where
        A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + Clone + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        H2Server::with(tasks, h2::server::Builder::new(), answer).await
    }

    /// As [`H2Server::serve`], in a way.
    pub async fn with<F, A>(tasks: &Tasks, builder: h2::server::Builder, answer: A) -> Self
    where
        A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + Clone + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = H2Server { address: socket.local_addr().expect("an address"), connections: Arc::default() };
        let (all, connections) = (tasks.clone(), Arc::clone(&server.connections));
        tasks.spawn_until_cancelled("server", async move {
            loop {
                let (stream, _) = socket.accept().await.expect("accepts");
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, builder, tasks) = (answer.clone(), builder.clone(), all.clone());
                all.spawn_until_cancelled("server connection", async move {
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tasks.spawn_until_cancelled("server stream", answer(request, respond));
                    }
                });
            }
        });
        server
    }

    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
