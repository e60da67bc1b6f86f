//! Sends a request to an endpoint and its response back.

use std::sync::Arc;
use std::time::Duration;

use engine::decide::Forwarded;
use engine::tables::{Cluster, Upstream};
use tokio::time::Instant;

use super::call::Call;
use super::connection::{Line, Reuse, Up};
use super::{Left, Next, Session};
use crate::access_log::Format;
use crate::codec::{Body, Version};
use crate::conn::Conn;
use crate::exchange::{Broken, Client, Exchange, Finished, Parts};
use crate::failure::Failure;
use crate::headers::Edge;
use crate::headers::h2::{SPOKEN, of_text, write_text};
use crate::multiplex::Lease;
use crate::pump::{Framing, Pump};
use crate::report::Report;
use crate::retry::{Clock, Lost, MAX_REPLAY, Tries};
use crate::side::Side;
use crate::stream::Stream;
use crate::tls::reason::NoTls;
use crate::upstream::{self, Active, InFlight};
use crate::way::Target;

/// Upstreams that say that they have not looked at a request are asked so often.
const UNSEEN: usize = 3;

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
    /// Sends the request whose head has been written. A failure is returned only if the client can still be told.
    pub(super) async fn forward(
        &mut self,
        forwarded: &Forwarded<'_>,
        down: &mut Side<'_>,
        report: &mut Report,
    ) -> Result<Next, Failure> {
        let cluster = forwarded.cluster;
        report.cluster = Some(Arc::clone(cluster));
        if self.switch.is_some() && cluster.spec.upstream == Upstream::Http2 {
            return Err(Failure::UpgradeRefused);
        }
        let _active = Active::at(cluster)?;
        let retry = forwarded.retry();
        let mut tries = Tries::new(retry, cluster, self.note.is_idempotent());
        let mut clock = Clock::new(forwarded.timeout(), retry);
        let mut body = self.request_body(down);
        if tries.has_policy() {
            body.keep(MAX_REPLAY);
        }
        let mut unseen = 0;
        loop {
            let call = Call { cluster, tries: &mut tries, clock: &mut clock, body: &mut body };
            let tried = self.try_once(call, down, unseen, report).await;
            report.is_retry_exceeded = tries.is_exceeded;
            match tried? {
                Tried::Done(next) => return Ok(next),
                Tried::Unseen => unseen += 1,
                Tried::Again => self.back_off(&tries, &mut clock, down).await?,
            }
        }
    }

    /// Sends the request to one endpoint.
    async fn try_once(
        &mut self,
        mut call: Call<'_, '_>,
        down: &mut Side<'_>,
        unseen: usize,
        report: &mut Report,
    ) -> Result<Tried, Failure> {
        let reuse = match unseen {
            0 if self.can_repeat(call.body) => Reuse::Likely,
            0 => Reuse::Sure,
            _ => Reuse::Never,
        };
        let found = self.connection(&mut call, down, report, reuse).await;
        let (line, target, is_used) = match found {
            Ok(found) => found,
            Err(failure) if failure.is_connect() && call.body.can_restart() && call.tries.again(Lost::Connect) => {
                return Ok(Tried::Again);
            }
            Err(failure) => return Err(failure),
        };
        call.tries.tries(&target);
        report.attempts += 1;
        report.peer = line.peer();
        let flight = InFlight::at(&target);
        let Some(mut up) = self.begin_at(line, &call, &target, report)? else {
            return if unseen < UNSEEN { Ok(Tried::Unseen) } else { Err(Failure::UpstreamReset) };
        };
        // What a proxy beside the endpoint refuses unseen is sent to another, policy or not.
        if matches!(up, Up::Stream(_)) && self.edge != Edge::Inbound {
            call.body.keep(MAX_REPLAY);
        }
        call.body.restart(down, &mut up.side());
        let (ended, started) = self.exchange(&mut up, &mut call, down, report).await;
        let failure = match ended {
            Ok(finished) if finished.switched => {
                upstream::observe(call.cluster, &target, false, || self.path.now());
                call.tries.settle();
                return Ok(Tried::Done(Box::pin(self.relay(down, &mut up, &flight, report)).await));
            }
            Ok(finished) => {
                let is_error = report.status >= 500;
                upstream::observe(call.cluster, &target, is_error, || self.path.now());
                if let Up::Text(up) = up {
                    self.give_back(call.cluster, &target, up, finished.upstream);
                }
                return Ok(Tried::Done(after(finished, down)));
            }
            Err(Broken::Again) => {
                upstream::observe(call.cluster, &target, self.response.status >= 500, || self.path.now());
                return Ok(Tried::Again);
            }
            Err(Broken::Unseen) if !started && unseen < UNSEEN && call.body.can_restart() => return Ok(Tried::Unseen),
            Err(Broken::Refused) => Failure::UpstreamRefused,
            // The endpoint closed an idle connection at the moment it was used: it has not seen the request.
            Err(Broken::Unanswered) if is_used && !started && self.can_repeat(call.body) => return Ok(Tried::Unseen),
            Err(Broken::Unanswered) if matches!(&up, Up::Text(up) if up.is_refused()) => {
                Failure::UpstreamTls(NoTls::Alert)
            }
            Err(Broken::Unanswered | Broken::Unseen) => Failure::UpstreamReset,
            Err(Broken::TryTimeout) => Failure::Timeout,
            Err(Broken::Failed(failure)) => failure,
        };
        if failure.fault() == crate::failure::Fault::Upstream {
            flight.failed();
            upstream::observe(call.cluster, &target, true, || self.path.now());
            if failure == Failure::UpstreamRefused {
                upstream::rest(call.cluster, &target, Duration::ZERO, self.path.now());
            }
        }
        if started {
            report.failure = Some(failure);
            return Ok(Tried::Done(Next::Reset(failure)));
        }
        let is_over = ended.is_err_and(|broken| broken == Broken::TryTimeout);
        again(&mut call, &target, (failure, is_over), unseen)
    }

    /// The request's body, as it comes.
    fn request_body(&self, down: &Side<'_>) -> Pump {
        let framing = if self.request.is_chunked { Framing::Chunked } else { Framing::Raw };
        match down {
            Side::Text(_) => Pump::new(Body::of_request(&self.request), framing),
            Side::Stream(stream) => Pump::of_stream(stream.has_ended(), framing).counting(self.is_grpc),
        }
    }

    /// Puts the request's head on the line; none if that takes no more.
    fn begin_at(
        &mut self,
        line: Line,
        call: &Call<'_, '_>,
        target: &Target,
        report: &mut Report,
    ) -> Result<Option<Up>, Failure> {
        match line {
            Line::Text(conn) => {
                if self.note.format().is_some_and(Format::wants_upstream_local) {
                    report.upstream_local = conn.local_address();
                }
                Ok(Some(Up::Text(self.begin_text(conn))))
            }
            Line::Lease(lease) => Ok(self.begin_stream(lease, call.cluster, target, call.body)?.map(Up::Stream)),
        }
    }

    /// Puts the request's head before what goes out on a connection.
    fn begin_text(&self, mut conn: Conn) -> Conn {
        match &self.fields {
            Some(parts) => write_text(&mut conn.tx, parts, self.request.is_chunked),
            None => conn.tx.extend_from_slice(&self.outgoing),
        }
        conn
    }

    /// Sends the request's head on a stream of its own; none if the connection takes no more.
    fn begin_stream(
        &mut self,
        lease: Lease,
        cluster: &Cluster,
        target: &Target,
        body: &Pump,
    ) -> Result<Option<Stream>, Failure> {
        let mut request = match &self.fields {
            Some(parts) => http::Request::from_parts((**parts).clone(), ()),
            None => of_text(&self.outgoing).map_err(Failure::BadRequest)?,
        };
        if target.endpoint.as_ref().is_some_and(|endpoint| endpoint.speaks_h2) {
            let spoken = if self.speaks_h2(cluster) { Version::Http2 } else { Version::Http11 };
            request.headers_mut().insert(SPOKEN, http::HeaderValue::from_static(spoken.as_str()));
        }
        match lease.send(request, body.is_empty()) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => {
                tracing::debug!(%error, address = %target.way.address, "a connection to an upstream takes no more requests");
                Ok(None)
            }
        }
    }

    /// Waits before another try, unless the client goes or the request's time is over.
    async fn back_off(&mut self, tries: &Tries<'_>, clock: &mut Clock, down: &mut Side<'_>) -> Result<(), Failure> {
        let now = Instant::now();
        clock.start(now);
        let wait = tries.back_off();
        match clock.left(now) {
            Some(left) if left <= wait => {
                Box::pin(self.wait(down, left)).await?;
                Err(Failure::Timeout)
            }
            _ => Box::pin(self.wait(down, wait)).await,
        }
    }

    /// Keeps a connection for the next request if it can have one.
    fn give_back(&self, cluster: &Cluster, target: &Target, mut up: Conn, is_usable: bool) {
        up.served = up.served.saturating_add(1);
        let is_used_up = cluster.spec.requests_per_connection.is_some_and(|most| up.served >= most.get());
        if is_usable && !is_used_up {
            self.path.pool.give(&target.way, up);
        }
    }

    /// Whether the request can be sent a second time when nobody knows whether the first was seen.
    fn can_repeat(&self, body: &Pump) -> bool {
        self.note.is_idempotent() && (body.is_kept() || !self.request.has_body())
    }

    /// Runs one exchange, and takes down what came of it; also whether the client has got anything.
    async fn exchange(
        &mut self,
        up: &mut Up,
        call: &mut Call<'_, '_>,
        down: &mut Side<'_>,
        report: &mut Report,
    ) -> (Result<Finished, Broken>, bool) {
        down.set_unfinished(true);
        let client = Client {
            version: self.request.version,
            to_head: self.note.is_head(),
            keep_alive: self.request.keep_alive,
            is_patient: self.is_grpc,
        };
        let mut exchange = Exchange::new(Parts {
            down: down.again(),
            up: up.side(),
            response: &mut self.response,
            deadline: &mut self.deadline,
            clock: call.clock,
            tries: call.tries,
            request: call.body,
            client,
            switch: self.switch.as_ref(),
            limits: &self.path.limits,
            body_idle: self.path.body_idle_timeout,
            drain: &self.path.drain,
            note: &mut self.note,
            stall_timeout: self.path.stall_timeout,
        });
        let ended = std::future::poll_fn(|cx| exchange.poll(cx)).await;
        (report.request_bytes, report.response_bytes) = exchange.content();
        report.answered = exchange.answered;
        if let Some(grpc) = &mut report.grpc {
            grpc.status = exchange.grpc_status();
            (grpc.request_messages, grpc.response_messages) = exchange.messages();
        }
        self.body_left = if exchange.has_sent_request() { Left::Nothing } else { Left::Part };
        let started = exchange.has_started();
        if exchange.answered.is_some() && (started || ended.is_ok()) {
            report.status = self.response.status;
        }
        down.set_unfinished(false);
        (ended, started)
    }
}

/// Whether a request that an endpoint has failed is sent again.
fn again(
    call: &mut Call<'_, '_>,
    target: &Target,
    (failure, is_over): (Failure, bool),
    unseen: usize,
) -> Result<Tried, Failure> {
    if !call.body.can_restart() {
        return Err(failure);
    }
    let lost = match failure {
        Failure::UpstreamRefused => {
            call.tries.avoid(target);
            if unseen < UNSEEN {
                return Ok(Tried::Unseen);
            }
            Lost::Connect
        }
        Failure::UpstreamReset => Lost::Reset,
        _ if is_over => Lost::Reset,
        _ => return Err(failure),
    };
    if call.tries.again(lost) { Ok(Tried::Again) } else { Err(failure) }
}

fn after(finished: Finished, down: &Side<'_>) -> Next {
    match (finished, down) {
        (_, Side::Stream(_)) => Next::Close,
        (Finished { downstream: true, .. }, _) => Next::Request,
        // Closing with bytes unread would reset the connection under the answer.
        (Finished { request_left: true, .. }, _) => Next::Linger,
        (_, Side::Text(conn)) if !conn.rx.is_empty() => Next::Linger,
        _ => Next::Close,
    }
}
