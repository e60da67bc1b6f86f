//! One request and its response between two connections, driven by the connection's own task.
//!
//! Both directions move in one `poll`, so an answer may come while the request's body still flows, and nobody waits for
//! the other's buffer.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use runtime::Drain;
use tokio::time::Instant;

use crate::codec::{Body, Limits, Malformed, Response, Scan, Version, parse_response};
use crate::conn::Conn;
use crate::failure::Failure;
use crate::headers::{ResponseChanges, write_response};
use crate::pump::{Framing, Pump, PumpError};
use crate::report::{Http1, Note};
use crate::retry::{Clock, Lost, Tries};
use crate::timer::Deadline;

/// More interim responses than this are no conversation.
const MAX_INTERIM: usize = 16;
/// A request whose body does not move for so long is given up.
const STALLED: Duration = Duration::from_secs(300);

/// What of the request the response depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// The version it speaks.
    pub(crate) version: Version,
    /// Whether it asked with HEAD.
    pub(crate) to_head: bool,
    /// Whether it means to use its connection again.
    pub(crate) keep_alive: bool,
}

/// Why an exchange ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A failure with a word of its own.
    Failed(Failure),
    /// The upstream closed the connection before a byte of its response: on a used connection it may never have seen the request.
    Unanswered,
    /// The try took too long, the request has time left.
    TryTimeout,
    /// The upstream answered with a status after which the request is tried again, as has been counted already.
    Again,
}

/// What is left after a complete response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    /// Whether the upstream's connection can be used again.
    pub(crate) upstream: bool,
    /// Whether the client's connection can be used again.
    pub(crate) downstream: bool,
    /// Whether the client still sends.
    pub(crate) request_left: bool,
}

/// One request and its response. The request's head stands in `up.tx`; its body follows in `down.rx`.
#[derive(Debug)]
pub(crate) struct Exchange<'e, 't> {
    down: &'e mut Conn,
    up: &'e mut Conn,
    response: &'e mut Response,
    deadline: &'e mut Deadline,
    clock: &'e mut Clock,
    tries: &'e mut Tries<'t>,
    client: Client,
    limits: &'e Limits,
    drain: &'e Drain,
    note: &'e mut Note,
    closing: bool,
    moved: Option<u64>,
    request: &'e mut Pump,
    request_state: Sending,
    answer: Answer,
    /// Bytes that the client had got before.
    written: u64,
    /// When the final response's head came.
    pub(crate) answered: Option<Instant>,
    keeps_upstream: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Going,
    Done,
    /// The upstream takes no more; it may have answered all the same.
    Refused,
}

#[derive(Debug)]
enum Answer {
    Head { scan: Scan, interim: usize },
    Body(Pump),
}

/// The parts of an exchange.
#[derive(Debug)]
pub(crate) struct Parts<'e, 't> {
    /// The client's connection.
    pub(crate) down: &'e mut Conn,
    /// The upstream's connection.
    pub(crate) up: &'e mut Conn,
    /// Where the response's head is read into.
    pub(crate) response: &'e mut Response,
    /// The connection's timer.
    pub(crate) deadline: &'e mut Deadline,
    /// How long the response may take, from the end of the request to its own.
    pub(crate) clock: &'e mut Clock,
    /// Whether an answer is passed on, or the request tried again.
    pub(crate) tries: &'e mut Tries<'t>,
    /// What the response depends on.
    pub(crate) client: Client,
    /// The request's body.
    pub(crate) request: &'e mut Pump,
    /// Bounds of heads.
    pub(crate) limits: &'e Limits,
    /// Whether the proxy is leaving.
    pub(crate) drain: &'e Drain,
    /// Where the response's head is noted for the log.
    pub(crate) note: &'e mut Note,
}

impl<'e, 't> Exchange<'e, 't> {
    /// An exchange that has not begun.
    #[must_use]
    pub(crate) fn new(parts: Parts<'e, 't>) -> Self {
        let Parts { down, up, response, deadline, clock, tries, client, request, limits, drain, note } = parts;
        Exchange {
            written: down.written,
            down,
            up,
            response,
            deadline,
            clock,
            tries,
            moved: None,
            client,
            limits,
            drain,
            note,
            closing: false,
            request,
            request_state: Sending::Going,
            answer: Answer::Head { scan: Scan::default(), interim: 0 },
            answered: None,
            keeps_upstream: false,
        }
    }

    /// Bytes of content: of the request, and of the response.
    #[must_use]
    pub(crate) fn content(&self) -> (u64, u64) {
        let response = if let Answer::Body(pump) = &self.answer { pump.content } else { 0 };
        (self.request.content, response)
    }

    /// Whether the client has got any byte of a response, so that no other can follow.
    pub(crate) fn has_started(&self) -> bool {
        self.down.written > self.written
    }

    /// Whether the request has been taken from the client as a whole.
    pub(crate) fn has_sent_request(&self) -> bool {
        self.request_state == Sending::Done
    }

    /// Drives both directions. Ready when the response has been written as a whole, or cannot be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finished, Broken>> {
        if self.request_state == Sending::Going {
            if let Poll::Ready(sent) = self.request.poll(cx, self.down, self.up) {
                self.request_state = judge_request(&sent)?;
                let now = Instant::now();
                self.deadline.set(now, self.clock.sent(now));
            } else if self.moved != Some(self.request.content) {
                self.moved = Some(self.request.content);
                self.deadline.set(Instant::now(), Some(STALLED));
            }
        }
        let answered = self.poll_answer(cx);
        if let Poll::Ready(answered) = answered {
            return Poll::Ready(answered.map(|()| self.finished()));
        }
        if self.request_state != Sending::Going && self.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broken::Failed(Failure::DownstreamClosed)));
        }
        ready!(self.deadline.poll(cx));
        let now = Instant::now();
        if self.request_state != Sending::Going && self.clock.is_try_over(now) {
            if let Answer::Head { .. } = self.answer {
                return Poll::Ready(Err(Broken::TryTimeout));
            }
            // An answer that has begun has the request's time.
            self.deadline.set(now, self.clock.left(now));
            ready!(self.deadline.poll(cx));
        }
        Poll::Ready(Err(Broken::Failed(Failure::Timeout)))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while let Answer::Head { .. } = self.answer {
            ready!(self.poll_head(cx))?;
        }
        if let Answer::Body(pump) = &mut self.answer {
            let moved = ready!(pump.poll(cx, self.up, self.down));
            return Poll::Ready(moved.map_err(|error| {
                Broken::Failed(match error {
                    PumpError::Read | PumpError::Truncated => Failure::UpstreamReset,
                    PumpError::Malformed(why) => Failure::UpstreamProtocol(why),
                    PumpError::Write => Failure::DownstreamClosed,
                })
            }));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the next head and takes it over; an interim one is passed on at once.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Answer::Head { scan, interim } = &mut self.answer else { return Poll::Ready(Ok(())) };
        // An interim response goes out at once; if the client reads slowly, the rest goes out with what follows.
        if let Poll::Ready(Err(_)) = self.down.poll_flush(cx) {
            return Poll::Ready(Err(Broken::Failed(Failure::DownstreamClosed)));
        }
        let end = loop {
            match scan.find_end(self.up.rx.filled(), self.limits) {
                Ok(Some(end)) => break end,
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(Broken::Failed(Failure::UpstreamProtocol(why)))),
            }
            match ready!(self.up.poll_read(cx)) {
                Ok(0) | Err(_) if self.up.rx.is_empty() && *interim == 0 => {
                    return Poll::Ready(Err(Broken::Unanswered));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Failed(Failure::UpstreamReset))),
                Ok(_) => {}
            }
        };
        let head = self.up.rx.filled();
        if let Err(why) = parse_response(head, end, self.limits, self.response) {
            return Poll::Ready(Err(Broken::Failed(Failure::UpstreamProtocol(why))));
        }
        if self.response.is_interim() {
            *interim += 1;
            *scan = Scan::default();
            if self.response.status == 101 || *interim > MAX_INTERIM {
                return Poll::Ready(Err(Broken::Failed(Failure::UpstreamProtocol(Malformed::Status))));
            }
            if self.client.version == Version::Http11 {
                let changes = ResponseChanges { version: Version::Http11, chunked: false, close: false };
                write_response(&mut self.down.tx, self.response, head, changes);
            }
            self.up.rx.consume(end);
            return Poll::Ready(Ok(()));
        }
        let can_repeat = self.request.can_restart() && !self.has_started();
        if can_repeat && self.tries.again(Lost::Status(self.response.status)) {
            return Poll::Ready(Err(Broken::Again));
        }
        self.begin_response(end);
        Poll::Ready(Ok(()))
    }

    fn begin_response(&mut self, end: usize) {
        let body = Body::of_response(self.response, self.client.to_head);
        let has_end = !matches!(body, Body::Chunked(_) | Body::UntilClose);
        let speaks_chunks = self.client.version == Version::Http11;
        let chunked = !has_end && speaks_chunks;
        let leaves_request = self.request_state != Sending::Done && !self.response.keep_alive;
        let close = self.drain.is_draining()
            || !self.client.keep_alive
            || (!has_end && !speaks_chunks)
            || leaves_request
            || self.request_state == Sending::Refused;
        self.closing = close;
        self.keeps_upstream = self.response.keep_alive && !matches!(body, Body::UntilClose);
        let changes = ResponseChanges { version: self.client.version, chunked, close };
        write_response(&mut self.down.tx, self.response, self.up.rx.filled(), changes);
        self.note.take_response(&Http1(&*self.response, self.up.rx.filled()));
        self.up.rx.consume(end);
        self.answered = Some(Instant::now());
        self.answer = Answer::Body(Pump::new(body, if chunked { Framing::Chunked } else { Framing::Raw }));
    }

    fn finished(&self) -> Finished {
        let sent = self.request_state == Sending::Done;
        Finished {
            upstream: sent && self.keeps_upstream && self.up.rx.is_empty(),
            downstream: sent && !self.closing,
            request_left: !sent,
        }
    }
}

fn judge_request(sent: &Result<(), PumpError>) -> Result<Sending, Broken> {
    match *sent {
        Ok(()) => Ok(Sending::Done),
        Err(PumpError::Read | PumpError::Truncated) => Err(Broken::Failed(Failure::DownstreamClosed)),
        Err(PumpError::Malformed(why)) => Err(Broken::Failed(Failure::BadRequest(why))),
        Err(PumpError::Write) => Ok(Sending::Refused),
    }
}
