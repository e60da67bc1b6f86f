//! One request and its response between two sides, driven by the client's own task.
//!
//! Both directions move in one `poll`, so an answer may come while the request's body still flows, and nobody waits for
//! the other's buffer.

mod answer;

use std::task::{Context, Poll, ready};
use std::time::Duration;

use runtime::Drain;
use tokio::time::Instant;

use crate::codec::{Limits, Response, Scan, Version};
use crate::failure::Failure;
use crate::pump::{Pump, PumpError};
use crate::report::Note;
use crate::retry::{Clock, Tries};
use crate::side::Side;
use crate::timer::Deadline;
use crate::upgrade::Switch;

/// What of the request the response depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// The version it speaks.
    pub(crate) version: Version,
    /// Whether it asked with HEAD.
    pub(crate) to_head: bool,
    /// Whether it means to use its connection again.
    pub(crate) keep_alive: bool,
    /// Whether the call may be silent for long, as gRPC's are.
    pub(crate) is_patient: bool,
}

/// Why an exchange ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A failure with a word of its own.
    Failed(Failure),
    /// The upstream closed the connection before a byte of its response: on a used connection it may never have seen the request.
    Unanswered,
    /// The upstream said that it has not looked at the request: its connection ends.
    Unseen,
    /// The upstream refused the request without looking at it.
    Refused,
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
    /// Whether what the request asked for was granted: both connections are no HTTP any more, and the answer's head
    /// stands in the client's `tx`.
    pub(crate) switched: bool,
}

/// One request and its response. The request's head has been sent, or stands in `up.tx`; its body follows on the
/// client's side.
#[derive(Debug)]
pub(crate) struct Exchange<'e, 't> {
    down: Side<'e>,
    up: Side<'e>,
    response: &'e mut Response,
    deadline: &'e mut Deadline,
    clock: &'e mut Clock,
    tries: &'e mut Tries<'t>,
    client: Client,
    switch: Option<&'e Switch>,
    limits: &'e Limits,
    /// How long a body may not move.
    body_idle: Duration,
    drain: &'e Drain,
    note: &'e mut Note,
    closing: bool,
    moved: Option<u64>,
    stall: Stall,
    request: &'e mut Pump,
    request_state: Sending,
    answer: Answer,
    /// Bytes that the client had got before.
    written: u64,
    /// When the final response's head came.
    pub(crate) answered: Option<Instant>,
    grpc_status: Option<u8>,
    keeps_upstream: bool,
}

/// Sees whether a client takes what waits for it.
#[derive(Debug)]
struct Stall {
    timeout: Duration,
    timer: Deadline,
    /// What it had taken when the timer was set.
    seen: Option<u64>,
}

impl Stall {
    /// Ready when the client has taken nothing beyond `taken` for too long; with `None` nothing waits for it.
    fn poll(&mut self, cx: &mut Context<'_>, taken: Option<u64>) -> Poll<()> {
        if taken.is_none() && self.seen.is_none() {
            return Poll::Pending;
        }
        if taken != self.seen {
            self.seen = taken;
            self.timer.set(Instant::now(), taken.map(|_| self.timeout));
        }
        self.timer.poll(cx)
    }
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
    Switched,
}

/// The parts of an exchange.
#[derive(Debug)]
pub(crate) struct Parts<'e, 't> {
    /// The client's side.
    pub(crate) down: Side<'e>,
    /// The upstream's side.
    pub(crate) up: Side<'e>,
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
    /// What the request asks its connection to become.
    pub(crate) switch: Option<&'e Switch>,
    /// Bounds of heads.
    pub(crate) limits: &'e Limits,
    /// How long a body may not move.
    pub(crate) body_idle: Duration,
    /// Whether the proxy is leaving.
    pub(crate) drain: &'e Drain,
    /// Where the response's head is noted for the log.
    pub(crate) note: &'e mut Note,
    /// How long a client may take nothing of an answer that waits for it.
    pub(crate) stall_timeout: Duration,
}

impl<'e, 't> Exchange<'e, 't> {
    /// An exchange that has not begun.
    #[must_use]
    pub(crate) fn new(parts: Parts<'e, 't>) -> Self {
        let Parts { down, up, response, deadline, clock, tries, client, request, .. } = parts;
        let Parts { switch, limits, body_idle, drain, note, stall_timeout, .. } = parts;
        Exchange {
            switch,
            body_idle,
            written: if let Side::Text(down) = &down { down.written } else { 0 },
            down,
            up,
            response,
            deadline,
            clock,
            tries,
            moved: None,
            stall: Stall { timeout: stall_timeout, timer: Deadline::default(), seen: None },
            client,
            limits,
            drain,
            note,
            closing: false,
            request,
            request_state: Sending::Going,
            answer: Answer::Head { scan: Scan::default(), interim: 0 },
            answered: None,
            grpc_status: None,
            keeps_upstream: false,
        }
    }

    /// Bytes of content: of the request, and of the response.
    #[must_use]
    pub(crate) fn content(&self) -> (u64, u64) {
        let response = if let Answer::Body(pump) = &self.answer { pump.content } else { 0 };
        (self.request.content, response)
    }

    /// Messages of gRPC: of the request, and of the response.
    #[must_use]
    pub(crate) fn messages(&self) -> (u64, u64) {
        let response = if let Answer::Body(pump) = &self.answer { pump.messages() } else { 0 };
        (self.request.messages(), response)
    }

    /// What gRPC says of the call, if the upstream has said so.
    #[must_use]
    pub(crate) fn grpc_status(&self) -> Option<u8> {
        let in_trailers = if let Answer::Body(pump) = &self.answer { pump.grpc_status() } else { None };
        in_trailers.or(self.grpc_status)
    }

    /// Whether the client has got any byte of a response, so that no other can follow.
    pub(crate) fn has_started(&self) -> bool {
        match &self.down {
            Side::Text(down) => down.written > self.written,
            Side::Stream(down) => down.has_started,
        }
    }

    /// Whether the request has been taken from the client as a whole.
    pub(crate) fn has_sent_request(&self) -> bool {
        self.request_state == Sending::Done
    }

    /// Drives both directions. Ready when the response has been written as a whole, or cannot be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finished, Broken>> {
        if self.request_state == Sending::Going {
            if let Poll::Ready(sent) = self.request.poll(cx, &mut self.down, &mut self.up) {
                self.request_state = judge_request(&sent)?;
                let now = Instant::now();
                self.deadline.set(now, self.clock.sent(now));
            } else if self.moved != Some(self.request.content) {
                self.moved = Some(self.request.content);
                self.deadline.set(Instant::now(), (!self.client.is_patient).then_some(self.body_idle));
            }
        }
        let answered = self.poll_answer(cx);
        if let Poll::Ready(answered) = answered {
            return Poll::Ready(answered.map(|()| self.finished()));
        }
        if self.poll_stall(cx).is_ready() {
            return Poll::Ready(Err(Broken::Failed(Failure::SlowReader)));
        }
        // While a body is read from a connection, its end shows there.
        let may_be_gone = self.request_state != Sending::Going || matches!(self.down, Side::Stream(_));
        if may_be_gone && self.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broken::Failed(Failure::DownstreamClosed)));
        }
        ready!(self.deadline.poll(cx));
        let now = Instant::now();
        let is_held_up = self.request.is_held_up() || matches!(&self.up, Side::Text(up) if !up.is_flushed());
        if self.request_state == Sending::Going && !is_held_up {
            return Poll::Ready(Err(Broken::Failed(Failure::SlowBody)));
        }
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

    /// Ready when the client has taken nothing for too long of an answer that waits for it.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Answer::Body(pump) = &self.answer else { return Poll::Pending };
        let written = if let Side::Text(down) = &self.down { down.written } else { pump.released };
        let is_held_up = pump.is_held_up() || matches!(&self.down, Side::Text(down) if !down.is_flushed());
        self.stall.poll(cx, is_held_up.then_some(written))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while let Answer::Head { .. } = self.answer {
            ready!(self.poll_head(cx))?;
        }
        if let Answer::Body(pump) = &mut self.answer {
            let moved = ready!(pump.poll(cx, &mut self.up, &mut self.down));
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

    fn finished(&self) -> Finished {
        let sent = self.request_state == Sending::Done;
        Finished {
            upstream: sent && self.keeps_upstream && matches!(&self.up, Side::Text(up) if up.rx.is_empty()),
            downstream: sent && !self.closing,
            request_left: !sent,
            switched: matches!(self.answer, Answer::Switched),
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
