//! A connection of HTTP/1.1: request after request.

use super::{Chosen, Next, Session, h2c};
use crate::codec::{Version, parse_request};
use crate::conn::Conn;
use crate::failure::Failure;
use crate::reply::{self, Manner};
use crate::report::{Http1, Report};
use crate::side::Side;
use tokio::time::Instant;

use super::plan::Head;

/// A client's connection and what its requests use in turn.
pub(super) struct Client<'p> {
    pub(super) session: Session<'p>,
    pub(super) chosen: Chosen,
    pub(super) conn: Conn,
}

impl Client<'_> {
    /// Serves a connection that has begun with anything but HTTP/2. If it goes on with HTTP/2, what is to be read of that
    /// before anything else is given back.
    ///
    /// # Errors
    ///
    /// It ended in the middle of a request or response, or its bytes cannot be read.
    pub(super) async fn serve(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let next = match self.session.read_head(&mut self.conn).await {
                // In a box of its own, so that a connection without a request does not hold its memory.
                Ok(Some(end)) => Box::pin(self.serve_request(end)).await,
                Ok(None) => return Ok(None),
                Err(failure) => Box::pin(self.refuse_head(failure)).await,
            };
            match next {
                Next::Request => {}
                Next::Close => return Ok(None),
                Next::Switch(first) => {
                    return Box::pin(self.session.switch(&mut self.conn, &first)).await.map(Some);
                }
                Next::Linger => {
                    Box::pin(self.session.linger(&mut self.conn)).await;
                    return Ok(None);
                }
                Next::Reset(failure) => {
                    // It is reset as it is dropped.
                    self.conn.is_unfinished = true;
                    return Err(failure);
                }
            }
        }
    }

    /// Serves the request whose head ends at `end`: decides, waits, and sends it on or answers it; then tells of it.
    async fn serve_request(&mut self, end: usize) -> Next {
        let Client { session, chosen, conn } = self;
        session.wake(&mut conn.tx);
        let begun = Instant::now();
        if let Err(why) = parse_request(conn.rx.filled(), end, &session.path.limits, &mut session.request) {
            return self.refuse_head(Failure::BadRequest(why)).await;
        }
        let bytes = conn.rx.filled();
        if let Some(first) = h2c::offered(&session.request, bytes)
            && !session.path.drain.is_draining()
        {
            conn.rx.consume(end);
            return Next::Switch(first);
        }
        let mut fields = session.request.fields.iter();
        let content_type = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"content-type"));
        let content_type = content_type.map(|field| field.value.of(bytes)).unwrap_or_default();
        let request = std::mem::take(&mut session.request);
        let report = session.begin(&Http1(&request, bytes), content_type, begun);
        session.request = request;
        let tables = session.path.tables.load_full();
        let http = std::sync::Arc::clone(chosen.look_up(&tables));
        let decided = session.decide(&tables, &http, Head::Text(conn.rx.filled()));
        conn.rx.consume(end);
        session.serve_decided(&decided, &mut Side::Text(conn), report).await
    }

    /// Answers a head that cannot be read; nothing after it can be either.
    async fn refuse_head(&mut self, failure: Failure) -> Next {
        let Client { session, conn, .. } = self;
        let mut report = Report::new(Instant::now());
        report.failure = Some(failure);
        report.status = failure.status();
        session.note.take_nothing(session.path.access_log.as_ref());
        report.tell(&session.told(), &session.note, "");
        if report.status == 0 {
            return Next::Close;
        }
        let manner = Manner { version: Version::Http11, to_head: false, close: true };
        conn.discard_tx();
        reply::write_failure(&mut conn.tx, failure, manner);
        if session.flush(conn).await.is_err() { Next::Close } else { Next::Linger }
    }
}
