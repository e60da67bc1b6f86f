//! HTTP/2 by upgrade: a client of HTTP/1.1 that offers to go on with it, as some still do.
//!
//! The codec knows prior knowledge only, so the request that came as text is put into the client's first frames as its
//! stream 1, which is what it is. It goes on as what the client asked in: the text of an application of HTTP/1.1.

use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::Session;
use crate::codec::{Kind, Request};
use crate::conn::Conn;
use crate::failure::Failure;

/// What the client is told.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The largest frame that may be sent before anything was agreed; a larger head stays text.
const MAX_BLOCK: usize = 16 * 1024;

/// The request as the frame that begins stream 1, if it offers to go on with HTTP/2 in the one way in which it may.
pub(super) fn offered(request: &Request, head: &[u8]) -> Option<Vec<u8>> {
    request.field(Kind::Upgrade)?;
    let value = |name: &[u8]| {
        let mut named = request.fields.iter().filter(|field| field.name.of(head).eq_ignore_ascii_case(name));
        let first = named.next()?;
        named.next().is_none().then(|| first.value.of(head))
    };
    let offers = value(b"upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"h2c"));
    if !offers || request.has_body() {
        return None;
    }
    // The settings come once more as the client's first frame.
    let settings = URL_SAFE_NO_PAD.decode(value(b"http2-settings")?).ok()?;
    let nominates = |option: &[u8]| {
        let connection = value(b"connection").unwrap_or_default();
        connection.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(option))
    };
    if settings.len() % 6 != 0 || !nominates(b"upgrade") || !nominates(b"http2-settings") {
        return None;
    }
    let mut block = Vec::new();
    literal(&mut block, b":method", request.method.of(head));
    literal(&mut block, b":scheme", b"http");
    literal(&mut block, b":path", request.path(head));
    literal(&mut block, b":authority", request.host.map(|host| host.of(head)).unwrap_or_default());
    for field in &request.fields {
        if !field.kind.is_hop() && field.kind != Kind::Host && !field.is_nominated {
            literal(&mut block, &field.name.of(head).to_ascii_lowercase(), field.value.of(head));
        }
    }
    if block.len() > MAX_BLOCK {
        return None;
    }
    const HEADERS: u8 = 1;
    const END_OF_STREAM_AND_HEADERS: u8 = 5;
    let [.., a, b, c] = u32::try_from(block.len()).ok()?.to_be_bytes();
    let mut frame = vec![a, b, c, HEADERS, END_OF_STREAM_AND_HEADERS, 0, 0, 0, 1];
    frame.extend_from_slice(&block);
    Some(frame)
}

/// Appends a field that no table is to keep.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        length(block, text.len());
        block.extend_from_slice(text);
    }
}

/// Appends a number with a prefix of seven bits.
fn length(block: &mut Vec<u8>, mut length: usize) {
    const MOST: usize = 127;
    if length < MOST {
        block.push(length as u8);
        return;
    }
    block.push(MOST as u8);
    length -= MOST;
    while length >= 128 {
        block.push((length % 128) as u8 | 128);
        length /= 128;
    }
    block.push(length as u8);
}

impl Session<'_> {
    /// Agrees, and waits for the client's preface and first frame; behind them `first` is put.
    ///
    /// # Errors
    ///
    /// The client goes on with something else, or too slowly.
    pub(super) async fn switch(&mut self, conn: &mut Conn, first: &[u8]) -> Result<Vec<u8>, Failure> {
        conn.tx.extend_from_slice(SWITCHING);
        self.flush(conn).await.map_err(|_| Failure::DownstreamClosed)?;
        self.deadline.set(Instant::now(), Some(self.path.head_timeout));
        let deadline = &mut self.deadline;
        let end = std::future::poll_fn(|cx| {
            loop {
                let bytes = conn.rx.filled();
                let begun = bytes.len().min(PREFACE.len());
                if bytes.get(..begun) != PREFACE.get(..begun) {
                    return Poll::Ready(Err(Failure::BadRequest(crate::codec::Malformed::Frames)));
                }
                if let Some([a, b, c]) = bytes.get(PREFACE.len()..PREFACE.len() + 3) {
                    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                    let end = PREFACE.len() + FRAME_HEAD + length;
                    if length > MAX_BLOCK {
                        return Poll::Ready(Err(Failure::BadRequest(crate::codec::Malformed::Frames)));
                    }
                    if bytes.len() >= end {
                        return Poll::Ready(Ok(end));
                    }
                }
                match conn.poll_read(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::DownstreamClosed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return deadline.poll(cx).map(|()| Err(Failure::SlowRequest)),
                }
            }
        })
        .await?;
        let mut early = conn.rx.filled().get(..end).unwrap_or_default().to_vec();
        conn.rx.consume(end);
        early.extend_from_slice(first);
        Ok(early)
    }
}
