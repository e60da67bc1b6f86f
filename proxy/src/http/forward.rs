//! Sends a request to an endpoint and its response back.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use engine::decide::Forwarded;
use engine::tables::{Cluster, Upstream};

use super::{Left, Next, Session};
use crate::codec::Body;
use crate::conn::Conn;
use crate::exchange::{Broken, Client, Exchange, Finished, Parts};
use crate::failure::Failure;
use crate::report::Report;
use crate::upstream::{self, InFlight, Target};

/// Endpoints that are tried before a request fails because none can be connected to.
const CONNECTS: usize = 3;

impl Session<'_> {
    /// Sends the request whose head stands in `outgoing`. A failure is returned only if the client can still be told.
    pub(super) async fn forward(&mut self, forwarded: &Forwarded<'_>, report: &mut Report) -> Result<Next, Failure> {
        let cluster = forwarded.cluster;
        report.cluster = Some(Arc::clone(cluster));
        if cluster.spec.upstream == Upstream::Http2 {
            return Err(Failure::UpstreamHttp2);
        }
        let can_repeat = self.can_repeat();
        let mut may_reuse = true;
        loop {
            let (mut up, target, is_used) = self.connection(cluster, report, may_reuse, !can_repeat).await?;
            let flight = InFlight::at(&target);
            up.tx.extend_from_slice(&self.outgoing);
            let (ended, started) = self.exchange(&mut up, forwarded.timeout(), report).await;
            match ended {
                Ok(finished) => {
                    if finished.upstream {
                        self.path.pool.give(target.address, up);
                    }
                    return Ok(self.after(finished));
                }
                // The endpoint closed an idle connection at the moment it was used: it has not seen the request.
                Err(Broken::Unanswered) if is_used && can_repeat && !started => may_reuse = false,
                Err(broken) => {
                    let failure = match broken {
                        Broken::Failed(failure) => failure,
                        Broken::Unanswered => Failure::UpstreamReset,
                    };
                    if failure.fault() == crate::failure::Fault::Upstream {
                        flight.failed();
                    }
                    if !started {
                        return Err(failure);
                    }
                    report.failure = Some(failure);
                    return Ok(Next::Reset(failure));
                }
            }
        }
    }

    /// Whether the request can be sent a second time when nobody knows whether the first was seen.
    fn can_repeat(&self) -> bool {
        self.note.is_idempotent() && !self.request.has_body()
    }

    /// A connection to an endpoint of the cluster, and whether it was used before.
    async fn connection(
        &mut self,
        cluster: &Arc<Cluster>,
        report: &mut Report,
        may_reuse: bool,
        surely: bool,
    ) -> Result<(Conn, Target, bool), Failure> {
        let mut tried = 0;
        loop {
            let target = upstream::pick(cluster, &self.arrival)?;
            report.target = Some(target.clone());
            if may_reuse && let Some(conn) = self.path.pool.take(target.address, surely) {
                return Ok((conn, target, true));
            }
            tried += 1;
            match Box::pin(self.connect(cluster, &target)).await {
                Ok(conn) => return Ok((conn, target, false)),
                // Nothing has been sent: another endpoint may do better.
                Err(Failure::UpstreamConnect) if tried < CONNECTS && target.endpoint.is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// A new connection, unless the client goes meanwhile.
    async fn connect(&mut self, cluster: &Cluster, target: &Target) -> Result<Conn, Failure> {
        let mut connecting = std::pin::pin!(upstream::connect(self.path.connector, cluster, target));
        let down = &mut self.conn;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            down.poll_gone(cx).map(|()| Err(Failure::DownstreamClosed))
        })
        .await
    }

    /// Runs one exchange, and takes down what came of it; also whether the client has got anything.
    async fn exchange(
        &mut self,
        up: &mut Conn,
        timeout: Option<Duration>,
        report: &mut Report,
    ) -> (Result<Finished, Broken>, bool) {
        self.conn.is_unfinished = true;
        let mut exchange = Exchange::new(Parts {
            down: &mut self.conn,
            up,
            response: &mut self.response,
            deadline: &mut self.deadline,
            timeout,
            client: Client {
                version: self.request.version,
                to_head: self.note.is_head(),
                keep_alive: self.request.keep_alive,
            },
            body: Body::of_request(&self.request),
            limits: &self.path.limits,
            drain: &self.path.drain,
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
