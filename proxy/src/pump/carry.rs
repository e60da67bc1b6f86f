//! A body on its way to or from a stream of HTTP/2: piece by piece, and never more than one that the receiver has not
//! taken. What has been taken from a stream is released as it goes on, so a slow receiver stops the sender.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;

use super::messages::Messages;
use super::{COALESCED, Framing, Pump, PumpError, chunk};
use crate::codec::{Body, Malformed, Piece};
use crate::conn::Conn;
use crate::headers::h2::{grpc_status, trailer_of_text, write_trailers};
use crate::side::Side;
use crate::stream::{Came, Stream};

/// The piece on its way, and what a stream needs beside it.
#[derive(Debug, Default)]
pub(super) struct Carried {
    piece: Bytes,
    /// Bytes of the piece that the sender counts as not received.
    owed: usize,
    trailers: Option<Box<HeaderMap>>,
    /// Whether the receiver has been told the end.
    pub(super) has_put_end: bool,
    /// What gRPC says of the call, at its end.
    grpc_status: Option<u8>,
    /// Messages of gRPC, if they are counted.
    messages: Option<Messages>,
}

impl Carried {
    /// Nothing is on its way; with `has_put_end` nothing will be.
    pub(super) fn ended(has_put_end: bool) -> Self {
        Carried { has_put_end, ..Carried::default() }
    }

    /// Throws the piece away; it is kept for another try, or there is none.
    pub(super) fn forget(&mut self, from: &mut Stream) {
        from.release(std::mem::take(&mut self.owed));
    }

    /// Begins with what was sent before.
    pub(super) fn begin(&mut self, sent: &[u8], has_put_end: bool) {
        self.piece = Bytes::copy_from_slice(sent);
        self.has_put_end = has_put_end;
    }

    fn put(&mut self, count: usize, from: &mut Side<'_>) {
        let released = count.min(self.owed);
        self.owed -= released;
        if let Side::Stream(from) = from {
            from.release(released);
        }
    }
}

/// A stream's error as its reader sees it.
fn unreadable(error: &h2::Error) -> PumpError {
    if error.is_library() { PumpError::Malformed(Malformed::Frames) } else { PumpError::Read }
}

impl Pump {
    /// A body that comes by a stream.
    #[must_use]
    pub(crate) fn of_stream(has_ended: bool, framing: Framing) -> Self {
        let mut pump = Pump::new(if has_ended { Body::Done } else { Body::UntilClose }, framing);
        (pump.ended, pump.carried.has_put_end) = (has_ended, has_ended);
        pump
    }

    /// What gRPC says of the call in the trailers, once they have come.
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        self.carried.grpc_status
    }

    /// Counts messages of gRPC if `is_grpc`.
    #[must_use]
    pub(crate) fn counting(mut self, is_grpc: bool) -> Self {
        self.carried.messages = is_grpc.then(Messages::default);
        self
    }

    /// How many messages have come so far, if they are counted.
    #[must_use]
    pub(crate) fn messages(&self) -> u64 {
        self.carried.messages.map_or(0, |messages| messages.count)
    }

    /// Whether nothing follows the head.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.ended && self.content == 0 && self.trailers.is_empty() && self.carried.trailers.is_none()
    }

    /// Whether bytes wait for their receiver.
    pub(crate) fn is_held_up(&self) -> bool {
        !self.carried.piece.is_empty() || self.direct > 0
    }

    pub(super) fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<'_>,
        to: &mut Side<'_>,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            let put = self.poll_put(cx, from, to);
            self.count_ahead(put.is_pending(), from, to);
            ready!(put)?;
            if self.ended {
                if !self.carried.has_put_end {
                    self.put_end(to)?;
                }
                return to.poll_flush(cx).map_err(|_| PumpError::Write);
            }
            let most = if let Side::Stream(to) = to { to.budget.may_read() } else { usize::MAX };
            match self.poll_take(cx, from, most) {
                Poll::Ready(taken) => taken?,
                Poll::Pending => {
                    ready!(to.poll_flush(cx)).map_err(|_| PumpError::Write)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Counts what was read and waits. What comes by a stream its sender counts, by its window.
    fn count_ahead(&self, waits: bool, from: &mut Side<'_>, to: &mut Side<'_>) {
        match (from, to) {
            (Side::Text(from), Side::Stream(to)) if waits => {
                // No buffer is held over a wait.
                from.rx.release();
                to.hold_ahead(self.carried.piece.len() + from.memory());
            }
            (_, Side::Stream(to)) => to.hold_ahead(0),
            _ => {}
        }
    }

    /// Hands the piece over.
    fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side<'_>,
        to: &mut Side<'_>,
    ) -> Poll<Result<(), PumpError>> {
        match to {
            Side::Stream(to) => {
                let ends = self.ended && self.trailers.is_empty() && self.carried.trailers.is_none();
                while !self.carried.piece.is_empty() {
                    let sent = ready!(to.poll_send(cx, &mut self.carried.piece, ends)).map_err(|_| PumpError::Write)?;
                    self.released += sent as u64;
                    self.carried.put(sent, from);
                    self.carried.has_put_end = ends && self.carried.piece.is_empty();
                }
            }
            Side::Text(to) if self.framing == Framing::Raw => {
                while !self.carried.piece.is_empty() {
                    let written = ready!(to.poll_write(cx, &self.carried.piece)).map_err(|_| PumpError::Write)?;
                    self.carried.piece.advance(written);
                    self.carried.put(written, from);
                }
            }
            Side::Text(to) => {
                if to.tx.len() >= COALESCED {
                    ready!(to.poll_flush(cx)).map_err(|_| PumpError::Write)?;
                }
                let piece = std::mem::take(&mut self.carried.piece);
                chunk(&mut to.tx, &piece);
                self.carried.put(piece.len(), from);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put_end(&mut self, to: &mut Side<'_>) -> Result<(), PumpError> {
        self.carried.has_put_end = true;
        match to {
            Side::Stream(to) => {
                let may_come_again = self.replay.limit > 0;
                let trailers = match &self.carried.trailers {
                    Some(trailers) if may_come_again => Some((**trailers).clone()),
                    Some(_) => self.carried.trailers.take().map(|trailers| *trailers),
                    None if self.trailers.is_empty() => None,
                    None => Some(of_lines(&self.trailers).map_err(PumpError::Malformed)?),
                };
                to.send_end(trailers).map_err(|_| PumpError::Write)
            }
            Side::Text(to) => {
                self.put_text_end(to);
                Ok(())
            }
        }
    }

    pub(super) fn put_text_end(&mut self, to: &mut Conn) {
        self.carried.has_put_end = true;
        if let Some(trailers) = &self.carried.trailers {
            self.trailers.clear();
            write_trailers(&mut self.trailers, trailers);
        }
        self.end(to);
    }

    /// Takes the next piece, or the end.
    fn poll_take(&mut self, cx: &mut Context<'_>, from: &mut Side<'_>, most: usize) -> Poll<Result<(), PumpError>> {
        match from {
            Side::Text(from) => self.poll_take_text(cx, from, most),
            Side::Stream(from) => {
                match ready!(from.poll_body(cx)) {
                    Ok(Came::Data(data)) => {
                        self.take(&data);
                        self.carried.owed += data.len();
                        self.carried.piece = data;
                        self.ended = from.has_ended();
                    }
                    Ok(Came::End(trailers)) => {
                        self.carried.grpc_status = trailers.as_ref().and_then(grpc_status);
                        self.carried.trailers = trailers.filter(|trailers| !trailers.is_empty()).map(Box::new);
                        self.ended = true;
                    }
                    Err(error) => return Poll::Ready(Err(unreadable(&error))),
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_take_text(&mut self, cx: &mut Context<'_>, from: &mut Conn, most: usize) -> Poll<Result<(), PumpError>> {
        loop {
            match self.body.next(from.rx.filled()).map_err(PumpError::Malformed)? {
                Piece::More => {
                    if ready!(from.poll_read_within(cx, most)).map_err(|_| PumpError::Read)? == 0 {
                        let Body::UntilClose = self.body else { return Poll::Ready(Err(PumpError::Truncated)) };
                        self.body = Body::Done;
                    }
                }
                Piece::Data { data, consumed } => {
                    let data = Bytes::copy_from_slice(from.rx.filled().get(data).unwrap_or_default());
                    from.rx.consume(consumed);
                    self.ended = self.body.is_done();
                    if !data.is_empty() || self.ended {
                        self.take(&data);
                        self.carried.piece = data;
                        return Poll::Ready(Ok(()));
                    }
                }
                Piece::Trailer { line, consumed } => {
                    let line = from.rx.filled().get(line).unwrap_or_default();
                    crate::codec::copy_trailer(line, &mut self.trailers).map_err(PumpError::Malformed)?;
                    from.rx.consume(consumed);
                }
                Piece::End { consumed } => {
                    from.rx.consume(consumed);
                    self.ended = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn take(&mut self, data: &[u8]) {
        self.content += data.len() as u64;
        if let Some(messages) = &mut self.carried.messages {
            messages.see(data);
        }
        self.replay.keep(data);
    }
}

/// Fields of the lines of a trailer.
fn of_lines(lines: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        trailer_of_text(line.strip_suffix(b"\r").unwrap_or(line), &mut trailers)?;
    }
    Ok(trailers)
}
