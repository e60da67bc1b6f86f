//! Probes by gRPC: `grpc.health.v1.Health/Check`.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use runtime::Tasks;

use super::{Found, ProbeFailure, Prober};

/// The most that an answer may hold: a health service answers with two bytes.
const ANSWER: usize = 16 * 1024;

/// Runs the parts of an HTTP/2 connection.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn_until_cancelled("app-probe", future);
    }
}

/// Asks the health service for `service`.
pub(super) async fn probe(prober: &Prober, address: SocketAddr, service: &str) -> Result<Found, ProbeFailure> {
    let not_http = |source| ProbeFailure::NotHttp { address, source };
    let stream = prober.dial(address).await?;
    let spawner = Spawner(prober.tasks.clone());
    let (mut sender, connection) = http2::handshake(spawner, TokioIo::new(stream)).await.map_err(not_http)?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, HeaderValue::from_static("mesh-proxy-probe"))
        .body(Full::new(question(service)))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(not_http)?;
        let (head, mut body) = answer.into_parts();
        let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = body.frame().await {
            match frame.map_err(not_http)?.into_data() {
                Ok(data) if message.len() + data.len() <= ANSWER => message.put(data),
                Ok(_) => break,
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        judge(address, service, (head.status, &head.headers, &trailers), &message)
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

/// `HealthCheckRequest { service }` in a gRPC frame.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or(0));
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

/// What an answer amounts to.
fn judge(
    address: SocketAddr,
    service: &str,
    (status, headers, trailers): (StatusCode, &HeaderMap, &HeaderMap),
    message: &[u8],
) -> Result<Found, ProbeFailure> {
    let said = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name));
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    match said("grpc-status").as_deref() {
        Some("0") if status == StatusCode::OK => {}
        grpc => {
            let status = grpc.map_or_else(|| format!("missing (HTTP {})", status.as_u16()), str::to_owned);
            let message = said("grpc-message").map(|message| format!(": {message}")).unwrap_or_default();
            return Err(ProbeFailure::Grpc { address, status, message });
        }
    }
    let word = match serving(message) {
        Some(1) => return Ok(Found { status: StatusCode::OK, body: b"SERVING\n".to_vec() }),
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        Some(0) => "UNKNOWN",
        _ => "not said in a way that is understood",
    };
    Err(ProbeFailure::NotServing { address, service: service.to_owned(), word })
}

/// The field `status` of a `HealthCheckResponse` in an uncompressed gRPC frame; 0 when it is left out.
fn serving(mut frame: &[u8]) -> Option<u64> {
    let is_compressed = frame.try_get_u8().ok()? != 0;
    let length = usize::try_from(frame.try_get_u32().ok()?).ok()?;
    let mut message = frame.get(..length).filter(|_| !is_compressed)?;
    let mut status = 0;
    while message.has_remaining() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// For the fuzzer: reading never panics, whatever the bytes, and what stands behind the message changes nothing.
///
/// # Panics
///
/// When it does.
pub(crate) fn fuzz_answer(bytes: &[u8]) {
    let said = serving(bytes);
    if said.is_some() {
        assert_eq!(serving(&[bytes, b"more"].concat()), said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_whatever_else_an_answer_holds() {
        for (frame, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            // A field that is new to us, before the status.
            (&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 8, 1], Some(1)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[0, 0], None),
            (&[0, 0, 0, 0, 1, 8], None),
        ] {
            assert_eq!(serving(frame), expected, "{frame:?}");
        }
    }

    #[test]
    fn a_question_is_a_frame_with_the_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&question(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }
}
