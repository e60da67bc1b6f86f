//! What a session reads and writes outside of exchanges: heads, waits, the proxy's own answers, and ends.

use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use crate::codec::{Body, Piece, Scan};
use crate::conn::Conn;
use crate::detect::recognise;
use crate::detect::spoken::Spoken;
use crate::failure::Failure;
use crate::metrics::limits::Limit;
use crate::side::Side;

/// How long a connection without a request is kept after the proxy has begun to leave.
const LEAVING: Duration = Duration::from_secs(1);
/// How long an answer of the proxy's own may take to be written.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a client that still sends is listened to, so that it reads its answer before it sees a reset.
const LINGER: Duration = Duration::from_secs(2);
/// More than this is not thrown away.
const MAX_LINGER: usize = 1024 * 1024;

impl Session<'_> {
    /// Whether the connection begins with HTTP/2's preface. Waits for the first byte as long as for a request.
    pub(super) async fn is_h2(&mut self, conn: &mut Conn) -> Result<bool, Failure> {
        let idle = self.http.idle_timeout.unwrap_or(self.path.idle_timeout);
        self.deadline.set(Instant::now(), Some(idle));
        let Session { deadline, path, .. } = self;
        let mut has_begun = false;
        std::future::poll_fn(|cx| {
            loop {
                // Only the preface begins so; whatever else it is, the head's parser tells.
                if !matches!(conn.rx.filled(), [] | [b'P'] | [b'P', b'R', ..]) {
                    return Poll::Ready(Ok(false));
                }
                match recognise(conn.rx.filled()) {
                    Some(spoken) => return Poll::Ready(Ok(spoken == Spoken::H2c)),
                    None if path.drain.is_draining() && conn.rx.is_empty() => return Poll::Ready(Ok(false)),
                    None => {}
                }
                match conn.poll_read(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(false)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        if !conn.rx.is_empty() && !has_begun {
                            has_begun = true;
                            deadline.set(Instant::now(), Some(path.head_timeout));
                        }
                        ready!(deadline.poll(cx));
                        return Poll::Ready(Err(Failure::SlowRequest));
                    }
                }
            }
        })
        .await
    }

    /// Reads until a head is there and gives its length; `None` is the connection's end in good order.
    pub(super) async fn read_head(&mut self, conn: &mut Conn) -> Result<Option<usize>, Failure> {
        let mut scan = Scan::default();
        let (mut has_begun, mut is_leaving) = (false, false);
        if conn.rx.is_empty() {
            self.rest(&mut conn.tx);
            conn.park();
            let idle = self.http.idle_timeout.unwrap_or(self.path.idle_timeout);
            self.deadline.set(Instant::now(), Some(idle));
        }
        let Session { deadline, path, .. } = self;
        std::future::poll_fn(|cx| {
            loop {
                match scan.find_end(conn.rx.filled(), &path.limits) {
                    Ok(Some(end)) => return Poll::Ready(Ok(Some(end))),
                    Ok(None) => {}
                    Err(why) => return Poll::Ready(Err(Failure::BadRequest(why))),
                }
                let is_idle = conn.rx.is_empty();
                // Another request may be on its way already: it is answered, and told that it is the last.
                if is_idle && !is_leaving && path.drain.is_draining() {
                    is_leaving = true;
                    deadline.set(Instant::now(), Some(LEAVING));
                }
                match conn.poll_read(cx) {
                    Poll::Ready(Ok(0) | Err(_)) if is_idle => return Poll::Ready(Ok(None)),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::DownstreamClosed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        if !is_idle && !has_begun {
                            has_begun = true;
                            deadline.set(Instant::now(), Some(path.head_timeout));
                        }
                        ready!(deadline.poll(cx));
                        if !is_idle {
                            return Poll::Ready(Err(Failure::SlowRequest));
                        }
                        if !is_leaving {
                            path.metrics.limits.hit(Limit::Idle);
                        }
                        return Poll::Ready(Ok(None));
                    }
                }
            }
        })
        .await
    }

    /// Waits, unless the client goes meanwhile.
    pub(super) async fn wait(&mut self, down: &mut Side<'_>, wait: Duration) -> Result<(), Failure> {
        self.deadline.set(Instant::now(), Some(wait));
        let deadline = &mut self.deadline;
        std::future::poll_fn(|cx| {
            if down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::DownstreamClosed));
            }
            deadline.poll(cx).map(Ok)
        })
        .await
    }

    /// Writes what stands in the connection's buffer.
    pub(super) async fn flush(&mut self, conn: &mut Conn) -> io::Result<()> {
        let deadline = &mut self.deadline;
        let mut is_timed = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(flushed) = conn.poll_flush(cx) {
                return Poll::Ready(flushed);
            }
            if !is_timed {
                is_timed = true;
                deadline.set(Instant::now(), Some(ANSWER));
            }
            ready!(deadline.poll(cx));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// Throws away the request's body as far as it is in the buffer; `false` if more of it is to come.
    pub(super) fn discard_body(&self, conn: &mut Conn) -> bool {
        let mut body = Body::of_request(&self.request);
        while !body.is_done() {
            match body.next(conn.rx.filled()) {
                Ok(Piece::More) | Err(_) => return false,
                Ok(Piece::Data { consumed, .. } | Piece::Trailer { consumed, .. } | Piece::End { consumed }) => {
                    conn.rx.consume(consumed);
                }
            }
        }
        true
    }

    /// Ends the connection in an order in which the client gets what was written though it still sends.
    pub(super) async fn linger(&mut self, conn: &mut Conn) {
        self.deadline.set(Instant::now(), Some(LINGER));
        let deadline = &mut self.deadline;
        let mut is_shut = false;
        let mut thrown = 0;
        std::future::poll_fn(|cx| {
            if !is_shut {
                if ready!(conn.poll_shutdown(cx)).is_err() {
                    return Poll::Ready(());
                }
                is_shut = true;
            }
            loop {
                conn.rx.consume(usize::MAX);
                match conn.poll_read(cx) {
                    Poll::Ready(Ok(count)) if count > 0 && thrown < MAX_LINGER => thrown += count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return deadline.poll(cx),
                }
            }
        })
        .await;
    }
}
