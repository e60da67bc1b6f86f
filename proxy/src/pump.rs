//! Moves one body from one side to the other, framed anew.
//!
//! Between two connections of HTTP/1.1 bytes go from one's buffer into the other's socket. Where a stream of HTTP/2 takes
//! part they go [piece by piece](carry).

mod carry;
mod messages;

pub(crate) use messages::count as count_messages;

use std::io::Write as _;
use std::task::{Context, Poll, ready};

use crate::codec::{Body, Malformed, Piece};
use crate::conn::Conn;
use crate::side::Side;

use self::carry::Carried;

/// How a body goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As it is: by length, or until the connection closes.
    Raw,
    /// In chunks.
    Chunked,
}

/// Whose fault it is that a body did not get through.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The sender's connection failed.
    Read,
    /// The sender ended in the middle.
    Truncated,
    /// The sender's framing cannot be read.
    Malformed(Malformed),
    /// The receiver's connection failed.
    Write,
}

/// One body on its way.
#[derive(Debug)]
pub(crate) struct Pump {
    body: Body,
    framing: Framing,
    /// Bytes at the front of the sender's buffer that go out as they are.
    direct: usize,
    trailers: Vec<u8>,
    /// Whether all of it has been taken from the sender.
    ended: bool,
    replay: Replay,
    carried: Carried,
    /// Bytes that a stream has taken.
    pub(crate) released: u64,
    /// Bytes of content so far.
    pub(crate) content: u64,
}

/// What has been sent of a body, up to a limit.
#[derive(Debug, Default)]
struct Replay {
    limit: usize,
    bytes: Vec<u8>,
    /// Whether more has been sent than is kept.
    is_lost: bool,
}

impl Replay {
    fn keep(&mut self, bytes: &[u8]) {
        if self.is_lost || bytes.is_empty() {
            return;
        }
        if self.bytes.len() + bytes.len() > self.limit {
            self.is_lost = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Chunks are put together up to this size before they are written.
const COALESCED: usize = 64 * 1024;

impl Pump {
    /// A body that goes out in this framing, where it goes out as text.
    #[must_use]
    pub(crate) fn new(body: Body, framing: Framing) -> Self {
        let ended = body.is_done() && framing == Framing::Raw;
        Pump {
            body,
            framing,
            direct: 0,
            trailers: Vec::new(),
            ended,
            replay: Replay::default(),
            carried: Carried::ended(ended),
            released: 0,
            content: 0,
        }
    }

    /// Keeps what is sent from now on up to so many bytes, so that it can be sent again.
    pub(crate) fn keep(&mut self, limit: usize) {
        self.replay.limit = limit;
    }

    /// Whether all that has been taken from the sender can be sent again.
    #[must_use]
    pub(crate) fn can_restart(&self) -> bool {
        !self.replay.is_lost
    }

    /// Whether what is sent is kept, and all of it so far.
    #[must_use]
    pub(crate) fn is_kept(&self) -> bool {
        self.replay.limit > 0 && !self.replay.is_lost
    }

    /// Lets go of what was kept: it will not be sent again.
    pub(crate) fn keep_no_more(&mut self) {
        self.replay = Replay { is_lost: true, ..Replay::default() };
    }

    /// Begins anew towards another receiver, with what stands in its `tx` before the body.
    pub(crate) fn restart(&mut self, from: &mut Side<'_>, to: &mut Side<'_>) {
        match from {
            Side::Text(from) => from.rx.consume(std::mem::take(&mut self.direct)),
            Side::Stream(from) => self.carried.forget(from),
        }
        let is_empty = self.is_empty();
        match to {
            Side::Text(to) if self.framing == Framing::Chunked => {
                chunk(&mut to.tx, &self.replay.bytes);
                self.carried.begin(&[], is_empty);
                if self.ended {
                    self.put_text_end(to);
                }
            }
            Side::Text(to) => {
                to.tx.extend_from_slice(&self.replay.bytes);
                self.carried.begin(&[], is_empty);
            }
            Side::Stream(_) => self.carried.begin(&self.replay.bytes, is_empty),
        }
    }

    /// Moves what can be moved; ready when all has been written, with what stood before it.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<'_>,
        to: &mut Side<'_>,
    ) -> Poll<Result<(), PumpError>> {
        match (from, to) {
            (Side::Text(from), Side::Text(to)) => self.poll_text(cx, from, to),
            (from, to) => self.poll_carry(cx, from, to),
        }
    }

    /// As [`Pump::poll`], between two connections.
    pub(crate) fn poll_text(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            let wants_bytes = self.take_pieces(from, to).map_err(PumpError::Malformed)?;
            while self.direct > 0 || !to.is_flushed() {
                let body = from.rx.filled().get(..self.direct).unwrap_or_default();
                let written = ready!(to.poll_write(cx, body)).map_err(|_| PumpError::Write)?;
                from.rx.consume(written);
                self.direct -= written;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if wants_bytes && ready!(from.poll_read(cx)).map_err(|_| PumpError::Read)? == 0 {
                match self.body {
                    Body::UntilClose => {
                        self.body = Body::Done;
                        self.end(to);
                    }
                    _ => return Poll::Ready(Err(PumpError::Truncated)),
                }
            }
        }
    }

    /// Takes pieces off the sender's buffer until there is something to write; says whether more bytes are needed.
    fn take_pieces(&mut self, from: &mut Conn, to: &mut Conn) -> Result<bool, Malformed> {
        while !self.ended && self.direct == 0 && to.tx.len() < COALESCED {
            match self.body.next(from.rx.filled())? {
                Piece::More => return Ok(true),
                Piece::Data { data, consumed } => {
                    self.content += data.len() as u64;
                    if self.framing == Framing::Raw {
                        from.rx.consume(data.start);
                        self.direct = data.len();
                        self.replay.keep(from.rx.filled().get(..self.direct).unwrap_or_default());
                    } else {
                        let data = from.rx.filled().get(data).unwrap_or_default();
                        self.replay.keep(data);
                        chunk(&mut to.tx, data);
                        from.rx.consume(consumed);
                    }
                    // A body by length ends with its last byte.
                    if self.body.is_done() {
                        self.end(to);
                    }
                }
                Piece::Trailer { line, consumed } => {
                    if self.framing == Framing::Chunked {
                        let line = from.rx.filled().get(line).unwrap_or_default();
                        crate::codec::copy_trailer(line, &mut self.trailers)?;
                    }
                    from.rx.consume(consumed);
                }
                Piece::End { consumed } => {
                    from.rx.consume(consumed);
                    self.end(to);
                }
            }
        }
        Ok(false)
    }

    fn end(&mut self, to: &mut Conn) {
        self.ended = true;
        if self.framing == Framing::Chunked {
            to.tx.extend_from_slice(b"0\r\n");
            to.tx.extend_from_slice(&self.trailers);
            to.tx.extend_from_slice(b"\r\n");
        }
    }
}

fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // Writing to a vector does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
