//! As much of a web server and client as four small services need.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

/// The most that a body may hold, in either direction.
const BODY_LIMIT: usize = 64 * 1024;

/// What a service passes on of its caller's headers, so that traces and routing by user work.
const FORWARDED: [&str; 11] = [
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "x-ot-span-context",
    "traceparent",
    "tracestate",
    "user-agent",
];

/// A request with its body read.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// The value of the cookie `user`, set at login.
    pub(crate) fn user(&self) -> Option<&str> {
        let cookies = self.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|line| line.split(';')).find_map(|cookie| cookie.trim().strip_prefix("user="))
    }

    /// The headers to send along with a call on behalf of this one.
    pub(crate) fn forwarded(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in FORWARDED {
            if let Some(value) = self.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        if let Some(cookie) = self.user().and_then(|user| format!("user={user}").parse().ok()) {
            headers.insert(COOKIE, cookie);
        }
        headers
    }
}

pub(crate) type Reply = Response<Full<Bytes>>;

/// A service: answers calls.
pub(crate) trait Site: Send + Sync + 'static {
    /// Answers one call.
    fn answer<'a>(&'a self, call: &'a Call) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
}

/// Serves until SIGTERM or SIGINT, then finishes what runs.
pub(crate) async fn serve(listener: TcpListener, site: Arc<dyn Site>) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let connections = TaskTracker::new();
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            _ = term.recv() => break,
            _ = int.recv() => break,
        };
        let site = site.clone();
        let service = hyper::service::service_fn(move |request| handle(site.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // A caller that goes away is not this server's problem.
            let _ = connection.await;
        });
    }
    connections.close();
    let deadline = Duration::from_secs(5);
    let _ = tokio::time::timeout(deadline, async { tokio::join!(graceful.shutdown(), connections.wait()) }).await;
    Ok(())
}

async fn handle(
    site: Arc<dyn Site>,
    request: Request<hyper::body::Incoming>,
) -> Result<Reply, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Ok(json(StatusCode::PAYLOAD_TOO_LARGE, &error("the body is too large")));
    };
    let call =
        Call { method: head.method, path: head.uri.path().to_owned(), headers: head.headers, body: body.to_bytes() };
    Ok(site.answer(&call).await)
}

/// Asks another service for JSON.
///
/// # Errors
///
/// When there is no answer in time, or it is not 200 with JSON.
pub(crate) async fn get_json(to: &str, path: &str, headers: &HeaderMap, within: Duration) -> anyhow::Result<Value> {
    tokio::time::timeout(within, ask(to, path, headers)).await.with_context(|| format!("{to} took over {within:?}"))?
}

async fn ask(to: &str, path: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("{to} cannot be reached"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).header(HOST, to).body(Full::<Bytes>::default())?;
    request.headers_mut().extend(headers.clone());
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = exchange => answer?,
        end = connection => { end?; bail!("{to} closed the connection") }
    };
    if status != StatusCode::OK {
        bail!("{to} answered {status}");
    }
    serde_json::from_slice(&body).with_context(|| format!("{to} did not answer in JSON"))
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", value.to_string())
}

/// An answer in HTML.
pub(crate) fn html(status: StatusCode, text: String) -> Reply {
    reply(status, "text/html; charset=utf-8", text)
}

/// The JSON of an error.
pub(crate) fn error(message: &str) -> Value {
    serde_json::json!({ "error": message })
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    reply
}
