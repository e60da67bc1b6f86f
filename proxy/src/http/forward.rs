//! Sends a request to an endpoint and its response back.

use std::sync::Arc;

use engine::decide::Forwarded;
use engine::tables::{Cluster, Upstream};
use tokio::time::Instant;

use super::{Left, Next, Session};
use crate::access_log::Format;
use crate::codec::Body;
use crate::conn::Conn;
use crate::exchange::{Broken, Client, Exchange, Finished, Parts};
use crate::failure::Failure;
use crate::pump::{Framing, Pump};
use crate::report::Report;
use crate::retry::{Clock, Lost, Tries};
use crate::upstream::{self, Active, InFlight, Target};

/// A request on its way to a cluster.
pub(super) struct Call<'c, 't> {
    pub(super) cluster: &'t Arc<Cluster>,
    pub(super) tries: &'c mut Tries<'t>,
    pub(super) clock: &'c mut Clock,
    body: &'c mut Pump,
}

/// What became of one try.
enum Tried {
    /// The client has its answer, or can have none.
    Done(Next),
    /// The endpoint has not seen the request: it is sent again at once.
    Unseen,
    /// The request is tried again after a while.
    Again,
}

impl Session<'_> {
    /// Sends the request whose head stands in `outgoing`. A failure is returned only if the client can still be told.
    pub(super) async fn forward(&mut self, forwarded: &Forwarded<'_>, report: &mut Report) -> Result<Next, Failure> {
        let cluster = forwarded.cluster;
        report.cluster = Some(Arc::clone(cluster));
        if cluster.spec.upstream == Upstream::Http2 {
            return Err(Failure::UpstreamHttp2);
        }
        let _active = Active::at(cluster)?;
        let retry = forwarded.retry();
        let mut tries = Tries::new(retry, cluster, self.note.is_idempotent());
        let mut clock = Clock::new(forwarded.timeout(), retry);
        let mut body = Pump::new(Body::of_request(&self.request), self.request_framing()).replayed(tries.replayed());
        let mut may_reuse = true;
        loop {
            let call = Call { cluster, tries: &mut tries, clock: &mut clock, body: &mut body };
            let tried = self.try_once(call, may_reuse, report).await;
            report.is_retry_exceeded = tries.is_exceeded;
            match tried? {
                Tried::Done(next) => return Ok(next),
                Tried::Unseen => may_reuse = false,
                Tried::Again => self.back_off(&tries, &mut clock).await?,
            }
        }
    }

    /// Sends the request to one endpoint.
    async fn try_once(
        &mut self,
        mut call: Call<'_, '_>,
        may_reuse: bool,
        report: &mut Report,
    ) -> Result<Tried, Failure> {
        let surely = !self.can_repeat(call.body);
        let (mut up, target, is_used) = match self.connection(&mut call, report, may_reuse, surely).await {
            Ok(connection) => connection,
            Err(Failure::UpstreamConnect) if call.body.can_restart() && call.tries.again(Lost::Connect) => {
                return Ok(Tried::Again);
            }
            Err(failure) => return Err(failure),
        };
        call.tries.tries(&target);
        report.attempts += 1;
        if self.note.format().is_some_and(Format::wants_upstream_local) {
            report.upstream_local = up.local_address();
        }
        let flight = InFlight::at(&target);
        up.tx.extend_from_slice(&self.outgoing);
        call.body.restart(&mut self.conn, &mut up);
        let (ended, started) = self.exchange(&mut up, &mut call, report).await;
        let failure = match ended {
            Ok(finished) => {
                let is_error = report.status >= 500;
                upstream::observe(call.cluster, &target, is_error, || self.path.now());
                self.give_back(call.cluster, &target, up, finished.upstream);
                return Ok(Tried::Done(self.after(finished)));
            }
            Err(Broken::Again) => {
                upstream::observe(call.cluster, &target, self.response.status >= 500, || self.path.now());
                return Ok(Tried::Again);
            }
            // The endpoint closed an idle connection at the moment it was used: it has not seen the request.
            Err(Broken::Unanswered) if is_used && !started && self.can_repeat(call.body) => return Ok(Tried::Unseen),
            Err(Broken::Unanswered) => Failure::UpstreamReset,
            Err(Broken::TryTimeout) => Failure::Timeout,
            Err(Broken::Failed(failure)) => failure,
        };
        if failure.fault() == crate::failure::Fault::Upstream {
            flight.failed();
            upstream::observe(call.cluster, &target, true, || self.path.now());
        }
        if started {
            report.failure = Some(failure);
            return Ok(Tried::Done(Next::Reset(failure)));
        }
        let is_lost = failure == Failure::UpstreamReset || ended.is_err_and(|broken| broken == Broken::TryTimeout);
        if is_lost && call.body.can_restart() && call.tries.again(Lost::Reset) {
            return Ok(Tried::Again);
        }
        Err(failure)
    }

    /// Waits before another try, unless the client goes or the request's time is over.
    async fn back_off(&mut self, tries: &Tries<'_>, clock: &mut Clock) -> Result<(), Failure> {
        let now = Instant::now();
        clock.start(now);
        let wait = tries.back_off();
        match clock.left(now) {
            Some(left) if left <= wait => {
                Box::pin(self.wait(left)).await?;
                Err(Failure::Timeout)
            }
            _ => Box::pin(self.wait(wait)).await,
        }
    }

    /// Keeps a connection for the next request if it can have one.
    fn give_back(&self, cluster: &Cluster, target: &Target, mut up: Conn, is_usable: bool) {
        up.served = up.served.saturating_add(1);
        let is_used_up = cluster.spec.requests_per_connection.is_some_and(|most| up.served >= most.get());
        if is_usable && !is_used_up {
            self.path.pool.give(target.address, up);
        }
    }

    fn request_framing(&self) -> Framing {
        if self.request.is_chunked { Framing::Chunked } else { Framing::Raw }
    }

    /// Whether the request can be sent a second time when nobody knows whether the first was seen.
    fn can_repeat(&self, body: &Pump) -> bool {
        self.note.is_idempotent() && (body.is_kept() || !self.request.has_body())
    }

    /// Runs one exchange, and takes down what came of it; also whether the client has got anything.
    async fn exchange(
        &mut self,
        up: &mut Conn,
        call: &mut Call<'_, '_>,
        report: &mut Report,
    ) -> (Result<Finished, Broken>, bool) {
        self.conn.is_unfinished = true;
        let client =
            Client { version: self.request.version, to_head: self.note.is_head(), keep_alive: self.request.keep_alive };
        let mut exchange = Exchange::new(Parts {
            down: &mut self.conn,
            up,
            response: &mut self.response,
            deadline: &mut self.deadline,
            clock: call.clock,
            tries: call.tries,
            request: call.body,
            client,
            limits: &self.path.limits,
            drain: &self.path.drain,
            note: &mut self.note,
        });
        let ended = std::future::poll_fn(|cx| exchange.poll(cx)).await;
        (report.request_bytes, report.response_bytes) = exchange.content();
        report.answered = exchange.answered;
        self.body_left = if exchange.has_sent_request() { Left::Nothing } else { Left::Part };
        let started = exchange.has_started();
        if exchange.answered.is_some() && (started || ended.is_ok()) {
            report.status = self.response.status;
        }
        self.conn.is_unfinished = false;
        (ended, started)
    }

    fn after(&self, finished: Finished) -> Next {
        match finished {
            Finished { downstream: true, .. } => Next::Request,
            // Closing with bytes unread would reset the connection under the answer.
            Finished { request_left: true, .. } => Next::Linger,
            Finished { .. } if !self.conn.rx.is_empty() => Next::Linger,
            Finished { .. } => Next::Close,
        }
    }
}
