//! HTTP/1.1 connections: request after request, each from its head to its report.

mod connection;
mod forward;
mod plan;
mod read;
mod spare;

use std::sync::Arc;

use engine::tables::Http;
use tokio::time::Instant;

use crate::codec::{Request, Response, Version, parse_request};
use crate::conn::Conn;
use crate::data::DataPath;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::reply::{self, Manner};
use crate::report::{Head as _, Http1, Note, Report, Told};
use crate::tcp;
use crate::timer::Deadline;
use crate::upstream::Arrival;

use self::plan::{Decided, Plan};

/// Serves one connection on an HTTP filter chain.
///
/// # Errors
///
/// The connection ended in the middle of a request or response, or its bytes cannot be read.
pub(crate) async fn serve(
    path: &DataPath,
    http: Arc<Http>,
    (edge, arrival): (Edge, Arrival),
    conn: Conn,
) -> Result<(), Failure> {
    let edge = if http.is_edge { Edge::Gateway } else { edge };
    let mut session = Session {
        path,
        http,
        edge,
        arrival,
        conn,
        request: Request::default(),
        response: Response::default(),
        deadline: Deadline::default(),
        note: Note::default(),
        outgoing: Vec::new(),
        body_left: Left::Nothing,
    };
    if session.is_h2().await? && edge != Edge::Gateway {
        return Box::pin(tcp::pass_through(path, (edge, arrival), session.conn)).await;
    }
    loop {
        let next = match session.read_head().await {
            // In a box of its own, so that a connection without a request does not hold its memory.
            Ok(Some(end)) => Box::pin(session.serve_request(end)).await,
            Ok(None) => return Ok(()),
            Err(failure) => Box::pin(session.refuse_head(failure)).await,
        };
        match next {
            Next::Request => {}
            Next::Close => return Ok(()),
            Next::Linger => {
                Box::pin(session.linger()).await;
                return Ok(());
            }
            Next::Reset(failure) => {
                session.conn.reset();
                return Err(failure);
            }
        }
    }
}

/// What follows a request on its connection.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// Another.
    Request,
    /// The end.
    Close,
    /// The end, when the client has read what was written though it still sends.
    Linger,
    /// An end that cannot be taken for a complete response.
    Reset(Failure),
}

/// What of a request's body has not been taken from the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    Part,
    Nothing,
}

/// One connection and what its requests use in turn.
struct Session<'p> {
    path: &'p DataPath,
    http: Arc<Http>,
    edge: Edge,
    arrival: Arrival,
    conn: Conn,
    request: Request,
    response: Response,
    deadline: Deadline,
    note: Note,
    /// The head as it goes to the upstream.
    outgoing: Vec<u8>,
    body_left: Left,
}

impl Session<'_> {
    /// Serves the request whose head ends at `end`: decides, waits, and sends it on or answers it; then tells of it.
    async fn serve_request(&mut self, end: usize) -> Next {
        self.wake();
        let mut report = Report::new(Instant::now());
        if let Err(why) = parse_request(self.conn.rx.filled(), end, &self.path.limits, &mut self.request) {
            return self.refuse_head(Failure::BadRequest(why)).await;
        }
        let head = Http1(&self.request, self.conn.rx.filled());
        let trace = self.path.tracing.context(&head.trace(), rand::random);
        self.note.take(&head, self.path.access_log.as_ref(), trace);
        let tables = self.path.tables.load_full();
        let http = Arc::clone(&self.http);
        let decided = self.decide(&tables, &http);
        self.conn.rx.consume(end);
        self.body_left = Left::All;
        let served = self.carry_out(&decided, &mut report).await;
        report.tell(&self.told(), &self.note, decided.route);
        served
    }

    fn told(&self) -> Told<'_> {
        Told { path: self.path, edge: self.edge, arrival: &self.arrival }
    }

    async fn carry_out(&mut self, decided: &Decided<'_>, report: &mut Report) -> Next {
        if let Some(wait) = decided.delay {
            report.delayed = true;
            if Box::pin(self.wait(wait)).await.is_err() {
                report.failure = Some(Failure::DownstreamClosed);
                return Next::Close;
            }
        }
        match &decided.plan {
            Plan::Forward(forwarded) => match self.forward(forwarded, report).await {
                Ok(next) => next,
                Err(failure) => self.fail(failure, report).await,
            },
            Plan::Fail(failure) => self.fail(*failure, report).await,
            Plan::Redirect(status, location) => self.answer(*status, &[("Location", location)], &[], report).await,
            Plan::Direct(direct) => {
                let kind: &[(&str, &str)] =
                    if direct.body.is_empty() { &[] } else { &[("Content-Type", "text/plain")] };
                self.answer(direct.status, kind, &direct.body, report).await
            }
        }
    }

    /// Answers a failure, or says nothing if nobody is there.
    async fn fail(&mut self, failure: Failure, report: &mut Report) -> Next {
        report.failure = Some(failure);
        if failure.status() == 0 {
            return Next::Close;
        }
        let body = format!("{}: {failure}\n", failure.code());
        let fields = [("x-mesh-failure", failure.code()), ("Content-Type", "text/plain")];
        self.answer(failure.status(), &fields, body.as_bytes(), report).await
    }

    /// Answers by the proxy itself. The connection goes on unless the client still sends.
    async fn answer(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8], report: &mut Report) -> Next {
        report.status = status;
        let has_rest = match self.body_left {
            Left::All => !self.discard_body(),
            Left::Part => true,
            Left::Nothing => false,
        };
        let close = has_rest || !self.request.keep_alive || self.path.drain.is_draining();
        let to_head = self.note.is_head();
        report.response_bytes = if to_head { 0 } else { body.len() as u64 };
        let manner = Manner { version: self.request.version, to_head, close };
        self.conn.discard_tx();
        reply::write(&mut self.conn.tx, status, fields, body, manner);
        if self.flush().await.is_err() {
            return Next::Close;
        }
        if close { Next::Linger } else { Next::Request }
    }

    /// Answers a head that cannot be read; nothing after it can be either.
    async fn refuse_head(&mut self, failure: Failure) -> Next {
        let mut report = Report::new(Instant::now());
        report.failure = Some(failure);
        report.status = failure.status();
        self.note.take_nothing(self.path.access_log.as_ref());
        report.tell(&self.told(), &self.note, "");
        if report.status == 0 {
            return Next::Close;
        }
        let manner = Manner { version: Version::Http11, to_head: false, close: true };
        self.conn.discard_tx();
        reply::write_failure(&mut self.conn.tx, failure, manner);
        if self.flush().await.is_err() { Next::Close } else { Next::Linger }
    }
}
