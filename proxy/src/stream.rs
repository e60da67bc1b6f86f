//! One HTTP/2 stream: a client's, or the proxy's own at an upstream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::budget::{Ahead, Budget, Own, Spent};
use crate::multiplex::Lease;

/// Bytes of a body that are handed to a connection at once; the rest waits for the peer's window.
const PIECE: usize = 64 * 1024;

/// One stream of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    side: Side,
    recv: Option<RecvStream>,
    send: Option<SendStream<Spent>>,
    /// What the connection may still have waiting for its peer.
    pub(crate) budget: Budget,
    own: Own,
    /// What has been read for this stream and waits.
    ahead: Ahead,
    /// Whether anything of a final response has been sent, or the stream is over.
    pub(crate) has_started: bool,
}

#[derive(Debug)]
enum Side {
    Client(SendResponse<Spent>),
    Upstream { response: ResponseFuture, _lease: Lease },
}

/// What came next of a body.
#[derive(Debug)]
pub(crate) enum Came {
    /// Bytes.
    Data(Bytes),
    /// Its end.
    End(Option<HeaderMap>),
}

/// What came as an answer.
#[derive(Debug)]
pub(crate) enum Answered {
    /// An interim response: more follow.
    Interim(http::Response<()>),
    /// The response's head.
    Final(http::response::Parts),
}

impl Stream {
    /// A stream on which a client has sent a request.
    pub(crate) fn of_client(recv: RecvStream, respond: SendResponse<Spent>, budget: Budget) -> Self {
        let (own, ahead) = Default::default();
        Stream { side: Side::Client(respond), recv: Some(recv), send: None, budget, own, ahead, has_started: false }
    }

    /// A stream on which a request's head has been sent to an upstream.
    pub(crate) fn of_upstream(response: ResponseFuture, send: SendStream<Spent>, lease: Lease) -> Self {
        let budget = lease.budget();
        let (own, ahead) = Default::default();
        let side = Side::Upstream { response, _lease: lease };
        Stream { side, recv: None, send: Some(send), budget, own, ahead, has_started: false }
    }

    /// The next answer of the upstream.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, h2::Error>> {
        let Side::Upstream { response, .. } = &mut self.side else { return Poll::Pending };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            return Poll::Ready(Ok(Answered::Interim(interim?)));
        }
        let (parts, recv) = ready!(std::pin::Pin::new(response).poll(cx))?.into_parts();
        self.recv = Some(recv);
        Poll::Ready(Ok(Answered::Final(parts)))
    }

    /// Whether no body follows what has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// The next piece of the body that the peer sends. What is taken must be [released](Stream::release) once it has
    /// gone on, or the peer will stop.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Came, h2::Error>> {
        let Some(recv) = &mut self.recv else { return Poll::Ready(Ok(Came::End(None))) };
        if let Some(data) = ready!(recv.poll_data(cx)) {
            return Poll::Ready(data.map(Came::Data));
        }
        Poll::Ready(ready!(recv.poll_trailers(cx)).map(Came::End))
    }

    /// Says that bytes of the body have gone on, so that the peer may send as many more.
    pub(crate) fn release(&mut self, count: usize) {
        if let Some(recv) = &mut self.recv {
            // More than was taken is never released.
            let _ = recv.flow_control().release_capacity(count);
        }
    }

    /// Sends as much of `data` as the peer's window and the connection's budget allow; with `ends`, its last byte ends the body. Ready when all of it
    /// has been handed over.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        ends: bool,
    ) -> Poll<Result<usize, h2::Error>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(Reason::STREAM_CLOSED.into())) };
        let mut sent = 0;
        while !data.is_empty() {
            let piece = data.len().min(PIECE);
            send.reserve_capacity(piece);
            let mut room = send.capacity();
            if room == 0 {
                match send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(now))) => room = now,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                    Poll::Pending if sent > 0 => return Poll::Ready(Ok(sent)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let share = match self.budget.poll_share(cx, piece.min(room), &mut self.own) {
                Poll::Ready(share) => share,
                Poll::Pending if sent > 0 => return Poll::Ready(Ok(sent)),
                Poll::Pending => return Poll::Pending,
            };
            let now = data.split_to(share.bytes);
            sent += now.len();
            send.send_data(share.spend(now), ends && data.is_empty())?;
        }
        Poll::Ready(Ok(sent))
    }

    /// Says how many bytes have been read for this stream and wait for it.
    pub(crate) fn hold_ahead(&mut self, bytes: usize) {
        if bytes == 0 {
            self.ahead.let_go();
        } else {
            self.ahead.hold(bytes, &self.budget);
        }
    }

    /// Ends the body that is sent.
    pub(crate) fn send_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
        let Some(send) = &mut self.send else { return Ok(()) };
        match trailers {
            Some(trailers) if !trailers.is_empty() => send.send_trailers(trailers),
            _ => send.send_data(Spent::free(Bytes::new()), true),
        }
    }

    /// Sends an interim response to the client.
    pub(crate) fn send_interim(&mut self, interim: http::Response<()>) -> Result<(), h2::Error> {
        match &mut self.side {
            Side::Client(respond) => respond.send_informational(interim),
            Side::Upstream { .. } => Ok(()),
        }
    }

    /// Sends the head of the response to the client.
    pub(crate) fn send_response(&mut self, response: http::Response<()>, ends: bool) -> Result<(), h2::Error> {
        if let Side::Client(respond) = &mut self.side {
            self.has_started = true;
            self.send = Some(respond.send_response(response, ends)?);
        }
        Ok(())
    }

    /// Sends a whole response to the client; its body waits for the client's window behind what is sent.
    pub(crate) fn send_whole(&mut self, response: http::Response<()>, body: &[u8]) -> Result<(), h2::Error> {
        self.send_response(response, body.is_empty())?;
        match &mut self.send {
            Some(send) if !body.is_empty() => send.send_data(Spent::free(Bytes::copy_from_slice(body)), true),
            _ => Ok(()),
        }
    }

    /// Ready when the client takes no answer any more.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let gone = match (&mut self.send, &mut self.side) {
            (Some(send), _) => send.poll_reset(cx),
            (None, Side::Client(respond)) => respond.poll_reset(cx),
            (None, Side::Upstream { .. }) => return Poll::Pending,
        };
        gone.map(drop)
    }

    /// Tells the client that its request has not been looked at and may be sent again: RFC 9113, section 8.7.
    pub(crate) fn refuse(&mut self) {
        self.has_started = true;
        self.reset(Reason::REFUSED_STREAM);
    }

    /// Breaks the stream off, so that nothing is taken for complete.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match (&mut self.send, &mut self.side) {
            (Some(send), _) => send.send_reset(reason),
            (None, Side::Client(respond)) => respond.send_reset(reason),
            (None, Side::Upstream { .. }) => {}
        }
    }
}
