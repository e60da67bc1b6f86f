//! gRPC probes: `grpc.health.v1.Health/Check`, one call on a connection of its own.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Why a gRPC health check has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    /// It is no gRPC.
    #[error("the server does not speak gRPC: {0}")]
    Transport(String),
    /// The call was refused.
    #[error("the health check failed with gRPC status {code}{message}")]
    Status {
        /// The number.
        code: String,
        /// What the server says about it, with what it means.
        message: String,
    },
    /// It says that it does not serve.
    #[error("the server says that it is {0}")]
    NotServing(&'static str),
}

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Largest answer that is read; a right one has two bytes behind its frame's head.
const LARGEST: usize = 4096;

/// Asks a server whether it (or one of its services) serves.
///
/// # Errors
/// When it does not say so.
pub(crate) async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), HealthError> {
    let transport = |error: hyper::Error| HealthError::Transport(error.to_string());
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(transport)?;
    let request = Request::post(format!("http://{authority}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "mesh-node-probe")
        .body(Full::new(request(service)))
        .map_err(|error| HealthError::Transport(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(transport)?;
        let (head, body) = answer.into_parts();
        let read = Limited::new(body, LARGEST).collect().await;
        let read = read.map_err(|error| HealthError::Transport(error.to_string()))?;
        let trailers = read.trailers().cloned().unwrap_or_default();
        status(if trailers.contains_key("grpc-status") { &trailers } else { &head.headers }, head.status.as_u16())?;
        serving(&read.to_bytes())
    };
    tokio::select! {
        biased;
        outcome = exchange => outcome,
        ended = connection => Err(HealthError::Transport(match ended {
            Ok(()) => "it closed the connection".to_owned(),
            Err(error) => error.to_string(),
        })),
    }
}

/// `HealthCheckRequest { service }` in its frame.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn status(headers: &HeaderMap, http: u16) -> Result<(), HealthError> {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let code = text("grpc-status");
    if code == "0" {
        return Ok(());
    }
    if code.is_empty() {
        return Err(HealthError::Transport(format!("it answers HTTP status {http} without a gRPC status")));
    }
    let meaning = match code.as_str() {
        "12" => " (it has no health service)",
        "5" => " (it does not know the service)",
        _ => "",
    };
    let said = text("grpc-message");
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(HealthError::Status { code, message: format!("{meaning}{said}") })
}

/// Reads `HealthCheckResponse { status }` out of its frame; a status that is left out is UNKNOWN.
fn serving(frame: &[u8]) -> Result<(), HealthError> {
    let not = || HealthError::Transport("its answer is not a health status".to_owned());
    let (head, message) = frame.split_at_checked(5).ok_or_else(not)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let status = match message.get(..length).ok_or_else(not)? {
        _ if head[0] != 0 => return Err(not()),
        [] => 0,
        [0x08, status] => *status,
        _ => return Err(not()),
    };
    match status {
        1 => Ok(()),
        0 => Err(HealthError::NotServing("UNKNOWN")),
        2 => Err(HealthError::NotServing("NOT_SERVING")),
        3 => Err(HealthError::NotServing("SERVICE_UNKNOWN")),
        _ => Err(not()),
    }
}

/// For the fuzzer: reading never panics, whatever the bytes.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = serving(bytes);
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers with these bytes and this gRPC status; gives what it was asked too.
    async fn ask(service: &str, answer: &'static [u8], status: &'static str) -> (Result<(), String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        let (asked, mut questions) = tokio::sync::mpsc::channel(1);
        let server = async {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let asked = asked.clone();
                async move {
                    assert_eq!(request.uri().path(), PATH);
                    assert_eq!(request.headers()["te"], "trailers");
                    let question = request.into_body().collect().await.expect("a question").to_bytes();
                    asked.send(question.to_vec()).await.expect("room");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().expect("a header"));
                    let frames =
                        [Frame::data(Bytes::from_static(answer)), Frame::trailers(trailers)].map(Ok::<_, hyper::Error>);
                    let body = StreamBody::new(futures_util::stream::iter(frames));
                    Ok::<_, hyper::Error>(Response::new(body))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        };
        let client = async {
            let stream = TcpStream::connect(address).await.expect("connected");
            check(stream, &address.to_string(), service).await.map_err(|error| error.to_string())
        };
        let outcome = tokio::select! {
            outcome = client => outcome,
            () = server => panic!("the server ended first"),
        };
        (outcome, questions.recv().await.expect("a question"))
    }

    #[tokio::test]
    async fn a_server_is_healthy_when_it_says_that_it_serves() {
        for (answer, status, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], "0", Ok(())),
            (b"\0\0\0\0\x02\x08\x02", "0", Err("the server says that it is NOT_SERVING")),
            (b"\0\0\0\0\0", "0", Err("the server says that it is UNKNOWN")),
            (b"", "12", Err("the health check failed with gRPC status 12 (it has no health service)")),
            (b"", "5", Err("the health check failed with gRPC status 5 (it does not know the service)")),
            (b"\0\0\0\0\x02", "0", Err("the server does not speak gRPC: its answer is not a health status")),
        ] {
            let (outcome, question) = ask("", answer, status).await;
            assert_eq!(outcome, expected.map_err(str::to_owned), "{answer:?}");
            assert_eq!(question, b"\0\0\0\0\0");
        }
        let (outcome, question) = ask("shop.Cart", b"\0\0\0\0\x02\x08\x01", "0").await;
        assert_eq!((outcome, question.as_slice()), (Ok(()), &b"\0\0\0\0\x0b\x0a\x09shop.Cart"[..]));
    }

    #[tokio::test]
    async fn a_server_that_speaks_something_else_is_not_healthy() {
        use tokio::io::AsyncWriteExt as _;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("bound");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        };
        let stream = TcpStream::connect(address).await.expect("connected");
        let (outcome, ()) = tokio::join!(check(stream, "x", ""), server);
        assert!(outcome.expect_err("it is not gRPC").to_string().contains("does not speak gRPC"));
    }
}
