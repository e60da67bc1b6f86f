//! HTTP connections: each request from its head to its report, whatever its client speaks.
//!
//! A connection of HTTP/1.1 has its requests one after the other ([`text`]), one of HTTP/2 at the same time
//! ([`streams`]). What happens to a request is the same for both: decide → plan → pick → try → report.

mod call;
mod chosen;
mod connection;
mod forward;
mod h2c;
mod plan;
mod read;
mod relay;
mod spare;
mod streams;
mod text;

use std::sync::Arc;

use engine::tables::{Http, Tables};
use tokio::time::Instant;

use crate::arrival::Arrival;
use crate::codec::{Request, Response};
use crate::conn::Conn;
use crate::data::DataPath;
use crate::failure::Failure;
use crate::frames::Cut;
use crate::headers::Edge;
use crate::reply::{self, Manner, Reply};
use crate::report::{self, Grpc, Note, Report, Told};
use crate::side::Side;
use crate::timer::Deadline;
use crate::upgrade::Switch;

pub(crate) use self::chosen::Chosen;
use self::plan::{Decided, Head, Plan};

/// Serves one connection on an HTTP filter chain.
///
/// # Errors
///
/// The connection ended in the middle of a request or response, or its bytes cannot be read.
pub(crate) async fn serve(
    path: &DataPath,
    chosen: Chosen,
    (edge, arrival): (Edge, Arrival),
    conn: Conn,
) -> Result<(), Failure> {
    let session = Session::new(path, chosen.http(), (chosen.edge(edge), arrival));
    // Nothing of this is moved from here on: a connection is to cost little while it is idle.
    let mut client = text::Client { session, chosen, conn };
    let is_h2 = client.session.is_h2(&mut client.conn).await;
    if is_h2.is_err() && !client.conn.rx.is_empty() {
        path.metrics.cut(Cut::Slow);
    }
    let early = if is_h2? {
        Vec::new()
    } else {
        match client.serve().await? {
            Some(early) => early,
            None => return Ok(()),
        }
    };
    let text::Client { session: Session { arrival, .. }, chosen, conn } = client;
    Box::pin(streams::serve(path, chosen, (edge, arrival), (conn, early))).await
}

/// What follows a request on its connection.
#[derive(Debug)]
enum Next {
    /// Another.
    Request,
    /// The end.
    Close,
    /// The end, when the client has read what was written though it still sends.
    Linger,
    /// An end that cannot be taken for a complete response.
    Reset(Failure),
    /// HTTP/2, once the client has sent its first frames; the frame behind them is the request that it had sent.
    Switch(Vec<u8>),
}

/// What of a request's body has not been taken from the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    Part,
    Nothing,
}

/// What the requests of a connection use in turn, or one stream's request.
struct Session<'p> {
    path: &'p DataPath,
    http: Arc<Http>,
    edge: Edge,
    arrival: Arrival,
    request: Request,
    response: Response,
    deadline: Deadline,
    note: Note,
    /// The head as it goes to the upstream: as text, or as fields if it came by HTTP/2.
    outgoing: Vec<u8>,
    fields: Option<Box<http::request::Parts>>,
    /// What the request asks the connection to become.
    switch: Option<Switch>,
    body_left: Left,
    /// Whether it is asked by the proxy beside another application.
    is_from_proxy: bool,
    /// Whether the application that asks speaks HTTP/2.
    is_from_h2: bool,
    /// Whether it calls by gRPC.
    is_grpc: bool,
    /// Whether it began with HTTP/1.1, which its server may not have given up.
    is_upgraded: bool,
}

impl<'p> Session<'p> {
    fn new(path: &'p DataPath, http: &Arc<Http>, (edge, arrival): (Edge, Arrival)) -> Self {
        Session {
            path,
            edge,
            http: Arc::clone(http),
            arrival,
            request: Request::default(),
            response: Response::default(),
            deadline: Deadline::default(),
            note: Note::default(),
            outgoing: Vec::new(),
            fields: None,
            switch: None,
            body_left: Left::Nothing,
            is_from_proxy: false,
            is_from_h2: false,
            is_grpc: false,
            is_upgraded: false,
        }
    }

    fn told(&self) -> Told<'_> {
        Told { path: self.path, edge: self.edge, arrival: &self.arrival }
    }

    /// Carries out what was decided for a request, and tells of it.
    async fn serve_decided(&mut self, decided: &Decided<'_>, down: &mut Side<'_>, mut report: Report) -> Next {
        report.details.clone_from(&decided.details);
        let served = self.carry_out(decided, down, &mut report).await;
        report.tell(&self.told(), &self.note, decided.route);
        served
    }

    async fn carry_out(&mut self, decided: &Decided<'_>, down: &mut Side<'_>, report: &mut Report) -> Next {
        if let Some(wait) = decided.delay {
            report.delayed = true;
            if Box::pin(self.wait(down, wait)).await.is_err() {
                report.failure = Some(Failure::DownstreamClosed);
                return Next::Close;
            }
        }
        match &decided.plan {
            Plan::Forward(forwarded) => match self.forward(forwarded, down, report).await {
                Ok(next) => next,
                Err(failure) => self.fail(failure, down, report).await,
            },
            Plan::Fail(failure) => self.fail(*failure, down, report).await,
            Plan::Redirect(status, location) => {
                let reply = Reply { status: *status, fields: &[("Location", location)], body: &[] };
                self.answer(reply, down, report).await
            }
            Plan::Direct(direct) => {
                let kind: &[(&str, &str)] =
                    if direct.body.is_empty() { &[] } else { &[("Content-Type", "text/plain")] };
                let reply = Reply { status: direct.status, fields: kind, body: &direct.body };
                self.answer(reply, down, report).await
            }
        }
    }

    /// Answers a failure, or says nothing if nobody is there.
    async fn fail(&mut self, failure: Failure, down: &mut Side<'_>, report: &mut Report) -> Next {
        report.failure = Some(failure);
        if failure.status() == 0 {
            return Next::Close;
        }
        if let Side::Stream(stream) = down
            && self.may_refuse(failure, report)
        {
            report.status = failure.status();
            stream.refuse();
            return Next::Close;
        }
        let mut text = format!("{}: {failure}", failure.code());
        if self.path.authoriser.explains && !report.details.is_empty() {
            text.push_str(&format!(", by {}", report.details));
        }
        if let Some(grpc) = &mut report.grpc {
            let status = reply::grpc_status(failure.status());
            grpc.status = Some(status);
            let (status, message) = (status.to_string(), reply::grpc_message(&text));
            let fields = [
                ("Content-Type", "application/grpc"),
                ("grpc-status", &*status),
                ("grpc-message", &*message),
                ("x-mesh-failure", failure.code()),
            ];
            return self.answer(Reply { status: 200, fields: &fields, body: &[] }, down, report).await;
        }
        let challenge = failure.challenge();
        let fields = [
            ("x-mesh-failure", failure.code()),
            ("Content-Type", "text/plain"),
            ("WWW-Authenticate", challenge.unwrap_or_default()),
        ];
        let fields = if challenge.is_some() { &fields[..] } else { &fields[..2] };
        let body = text + "\n";
        self.answer(Reply { status: failure.status(), fields, body: body.as_bytes() }, down, report).await
    }

    /// Whether the proxy that asks may ask another endpoint: its request has not come to the application, or may come twice.
    fn may_refuse(&self, failure: Failure, report: &Report) -> bool {
        let is_unseen = failure == Failure::UpstreamConnect && (report.attempts == 0 || self.note.is_idempotent());
        self.is_from_proxy && is_unseen
    }

    /// Answers by the proxy itself. A connection goes on unless the client still sends.
    async fn answer(&mut self, reply: Reply<'_>, down: &mut Side<'_>, report: &mut Report) -> Next {
        report.status = reply.status;
        let to_head = self.note.is_head();
        report.response_bytes = if to_head { 0 } else { reply.body.len() as u64 };
        let conn = match down {
            Side::Text(conn) => conn,
            Side::Stream(stream) => {
                // A client that still sends is told to stop as the stream is dropped.
                if stream.send_whole(reply.of_h2(to_head), if to_head { &[] } else { reply.body }).is_err() {
                    report.failure = Some(Failure::DownstreamClosed);
                }
                return Next::Close;
            }
        };
        let has_rest = match self.body_left {
            Left::All => !self.discard_body(conn),
            Left::Part => true,
            Left::Nothing => false,
        };
        let is_refused = self.switch.as_ref().is_some_and(|switch| switch.ends_refused(!conn.rx.is_empty()));
        let close = has_rest || is_refused || !self.request.keep_alive || self.path.drain.is_draining();
        let manner = Manner { version: self.request.version, to_head, close };
        conn.discard_tx();
        reply.write(&mut conn.tx, manner);
        if self.flush(conn).await.is_err() {
            return Next::Close;
        }
        if close { Next::Linger } else { Next::Request }
    }

    /// Decides about the request whose head this is; the head as it goes on is then there.
    fn decide<'t>(&mut self, tables: &'t Tables, http: &'t Http, head: Head<'_>) -> Decided<'t> {
        plan::decide(self, tables, http, head)
    }

    /// Begins to tell of the request whose head this is.
    fn begin(&mut self, head: &impl report::Head, content_type: &[u8], begun: Instant) -> Report {
        let trace = self.path.tracing.context(&head.trace(), rand::random);
        self.note.take(head, self.path.access_log.as_ref(), trace);
        self.body_left = Left::All;
        self.is_grpc = is_grpc(content_type);
        Report { grpc: self.is_grpc.then(Grpc::default), ..Report::new(begun) }
    }
}

/// gRPC itself, not its dialect for browsers.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
