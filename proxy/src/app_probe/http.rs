//! Probes by HTTP and HTTPS, as a kubelet makes them.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Found, HttpProbe, ProbeFailure, Prober};

/// How much of a body is passed on.
const BODY: usize = 4 * 1024;
/// How often a redirect to the same place is followed.
const REDIRECTS: usize = 10;

/// Asks for the page, and for the page that it redirects to if that is at the same place; elsewhere nobody goes, and
/// the redirect is a success.
pub(super) async fn probe(
    prober: &Prober,
    address: SocketAddr,
    probe: &HttpProbe,
    asked: &HeaderMap,
) -> Result<Found, ProbeFailure> {
    let mut path = probe.path.clone();
    for _ in 0..REDIRECTS {
        let request = request(address, probe, &path, asked)?;
        let stream = prober.dial(address).await?;
        let (found, next) = if probe.is_tls {
            let name = ServerName::IpAddress(address.ip().into());
            let stream = prober.tls.connect(name, stream).await;
            ask(address, stream.map_err(|source| ProbeFailure::Tls { address, source })?, request).await?
        } else {
            ask(address, stream, request).await?
        };
        match next {
            Some(next) if next != path => path = next,
            _ => return Ok(found),
        }
    }
    Ok(Found { status: StatusCode::LOOP_DETECTED, body: b"the application redirects for ever\n".to_vec() })
}

fn request(
    address: SocketAddr,
    probe: &HttpProbe,
    path: &str,
    asked: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(path).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(&address.to_string())?);
    // The application sees who asks in truth.
    if let Some(agent) = asked.get(header::USER_AGENT) {
        headers.insert(header::USER_AGENT, agent.clone());
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, _) in &probe.headers {
        headers.remove(name);
    }
    for (name, value) in &probe.headers {
        headers.append(name, value.clone());
    }
    Ok(request)
}

/// Sends one request and reads its answer: what it is, and where it redirects to at the same place.
async fn ask<S>(
    address: SocketAddr,
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(Found, Option<String>), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let not_http = |source| ProbeFailure::NotHttp { address, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(not_http)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(not_http)?;
        let next = redirect(address, &answer);
        let status = answer.status();
        Ok((Found { status, body: beginning(answer).await }, next))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        // Its failure shows in the exchange, whose answer may be there already.
        _ = &mut connection => exchange.await,
    }
}

/// The beginning of a body; what does not come in order is left out, as the status has been said.
async fn beginning(answer: Response<Incoming>) -> Vec<u8> {
    let mut body = Limited::new(answer.into_body(), 1 << 20);
    let mut beginning = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        beginning.extend_from_slice(&data[..data.len().min(BODY - beginning.len())]);
        if beginning.len() == BODY {
            break;
        }
    }
    beginning
}

/// Path and query that an answer redirects to, if that is at the same place.
fn redirect(address: SocketAddr, answer: &Response<Incoming>) -> Option<String> {
    if !answer.status().is_redirection() {
        return None;
    }
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    let place: http::Uri = location.parse().ok()?;
    let is_same = match place.host() {
        None => location.starts_with('/'),
        Some(host) => {
            host.trim_matches(['[', ']']) == address.ip().to_string()
                && place.port_u16().is_none_or(|port| port == address.port())
        }
    };
    let path = place.path_and_query().map(ToString::to_string);
    path.filter(|_| is_same)
}
