//! A connection of HTTP/2: its requests at the same time, each a future of the connection's own task.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::tables::Http;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::time::Instant;

use super::plan::Head;
use super::{Chosen, Next, Session};
use crate::arrival::Arrival;
use crate::budget::{Budget, Spent};
use crate::codec::Malformed;
use crate::conn::Conn;
use crate::data::DataPath;
use crate::failure::Failure;
use crate::frames::{Cut, Frames};
use crate::headers::Edge;
use crate::headers::h2::read_request;
use crate::link::Link;
use crate::metrics::limits::Limit;
use crate::multiplex::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::side::Side;
use crate::stream::Stream;
use crate::timer::Deadline;

/// A client that has been told to leave and has no stream is waited for no longer than this.
const LEAVING: Duration = Duration::from_secs(5);
/// A stream that its client resets so soon has been a waste.
const EARLY: Duration = Duration::from_secs(1);

fn builder(path: &DataPath, edge: Edge) -> Builder {
    let mut builder = Builder::new();
    // Heads over the limit are answered by the proxy itself, so that they are reported; over twice that by the codec.
    let head = u32::try_from(path.limits.head).unwrap_or(u32::MAX).saturating_mul(2);
    let streams = if edge == Edge::Gateway { path.h2.gateway_streams } else { path.h2.streams };
    let resets = usize::try_from(path.h2.frames.resets).unwrap_or(usize::MAX);
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(streams)
        .max_header_list_size(head)
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(Some(resets));
    builder
}

/// Serves a connection that has begun with the preface of HTTP/2; of an upgraded one `early` is read first.
///
/// # Errors
///
/// It ended in the middle of a request or response, or its frames cannot be read.
pub(super) async fn serve(
    path: &DataPath,
    chosen: Chosen,
    (edge, arrival): (Edge, Arrival),
    (conn, early): (Conn, Vec<u8>),
) -> Result<(), Failure> {
    let is_upgraded = !early.is_empty();
    let link = Link::new(conn, early, Frames::of_client(path.h2.frames));
    let edge = chosen.edge(edge);
    let connection = greet(path, edge, &link).await?;
    let mut client = Client {
        path,
        chosen,
        connection,
        link,
        timer: Deadline::default(),
        is_greeted: false,
        is_leaving: false,
        is_idle: false,
        opened: 0,
        early: 0,
        ended: None,
    };
    let budget = Budget::new();
    let mut streams = FuturesUnordered::new();
    std::future::poll_fn(|cx| {
        while let Poll::Ready(Some((request, respond))) = client.poll_accept(cx) {
            let http = Arc::clone(client.chosen.look_up(&path.tables.load()));
            let edge = client.chosen.edge(edge);
            let stream = (request, respond, budget.clone());
            streams.push(serve_stream(path, (http, is_upgraded), (edge, arrival.clone()), stream));
        }
        while let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx) {
            client.count(end);
        }
        client.poll_rest(cx, streams.is_empty())
    })
    .await
}

/// Exchanges the first frames.
async fn greet(path: &DataPath, edge: Edge, link: &Link) -> Result<Connection<Link, Spent>, Failure> {
    let mut timer = Deadline::default();
    timer.set(Instant::now(), Some(path.head_timeout));
    let mut greeting = std::pin::pin!(builder(path, edge).handshake::<_, Spent>(link.clone()));
    std::future::poll_fn(|cx| {
        let greeted = greeting.as_mut().poll(cx);
        let _ = link.poll_send(cx);
        match greeted {
            Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(connection)),
            Poll::Ready(Err(error)) if error.is_io() => return Poll::Ready(Err(Failure::DownstreamClosed)),
            Poll::Ready(Err(_)) => {
                path.metrics.cut(Cut::Protocol);
                return Poll::Ready(Err(Failure::BadRequest(Malformed::Frames)));
            }
            Poll::Pending => {}
        }
        timer.poll(cx).map(|()| {
            path.metrics.cut(Cut::Slow);
            Err(Failure::SlowRequest)
        })
    })
    .await
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Served,
    /// Its client reset it soon.
    Early,
}

struct Client<'p> {
    path: &'p DataPath,
    chosen: Chosen,
    connection: Connection<Link, Spent>,
    link: Link,
    /// Rings when the connection has been without a stream for too long.
    timer: Deadline,
    /// Whether its first frame has been waited for.
    is_greeted: bool,
    is_leaving: bool,
    is_idle: bool,
    opened: u32,
    early: u32,
    ended: Option<Result<(), Failure>>,
}

impl Client<'_> {
    /// The next request. Drives the connection beside it.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(http::Request<RecvStream>, SendResponse<Spent>)>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        match self.connection.poll_accept(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(request))) => {
                self.opened += 1;
                Poll::Ready(Some(request))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a client's connection has failed");
                if error.is_library() {
                    self.path.metrics.cut(self.link.why_cut(&error));
                    self.ended = Some(Err(Failure::BadRequest(Malformed::Frames)));
                } else {
                    self.ended = Some(Err(Failure::DownstreamClosed));
                }
                Poll::Ready(None)
            }
            Poll::Ready(None) => {
                self.ended = Some(Ok(()));
                Poll::Ready(None)
            }
        }
    }

    fn count(&mut self, end: End) {
        if end == End::Early {
            self.early += 1;
        }
    }

    /// What a turn ends with: the frames of all streams go out together, and the connection is looked after.
    fn poll_rest(&mut self, cx: &mut Context<'_>, is_empty: bool) -> Poll<Result<(), Failure>> {
        self.path.metrics.limits.hit_often(Limit::Streams, self.link.take_refused());
        let cut = self.link.cut().or_else(|| self.wastes().then_some(Cut::Resets));
        if let Some(cut) = cut.filter(|_| self.ended.is_none()) {
            self.path.metrics.cut(cut);
            tracing::debug!(reason = cut.as_str(), "a client floods its connection, which is cut");
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            let _ = self.connection.poll_closed(cx);
            let _ = self.link.poll_send(cx);
            return Poll::Ready(Err(Failure::BadRequest(Malformed::Frames)));
        }
        if let Poll::Ready(Err(_)) = self.link.poll_send(cx) {
            self.ended.get_or_insert(Err(Failure::DownstreamClosed));
        }
        if let Some(ended) = self.ended
            && is_empty
        {
            return Poll::Ready(ended);
        }
        if self.path.drain.is_draining() && !self.is_leaving {
            self.leave(cx);
        }
        self.poll_idle(cx, is_empty)
    }

    /// Whether most of its many streams were reset as soon as they were open.
    fn wastes(&self) -> bool {
        self.early > self.path.h2.frames.resets && self.early > self.opened / 2
    }

    fn leave(&mut self, cx: &mut Context<'_>) {
        self.is_leaving = true;
        self.connection.graceful_shutdown();
        // It is said in the next turn.
        cx.waker().wake_by_ref();
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, is_empty: bool) -> Poll<Result<(), Failure>> {
        if !is_empty {
            self.is_idle = false;
            return Poll::Pending;
        }
        if !self.is_idle {
            self.is_idle = true;
            self.wait_for_streams();
        }
        while self.timer.poll(cx).is_ready() {
            match (self.is_greeted, self.link.has_settings()) {
                (false, false) => {
                    self.path.metrics.cut(Cut::Slow);
                    return Poll::Ready(Err(Failure::SlowRequest));
                }
                (false, true) => self.is_greeted = true,
                _ if self.is_leaving => return Poll::Ready(Ok(())),
                _ => self.leave(cx),
            }
            self.wait_for_streams();
        }
        Poll::Pending
    }

    fn wait_for_streams(&mut self) {
        let wait = if self.is_leaving {
            LEAVING
        } else if self.is_greeted {
            self.chosen.http().idle_timeout.unwrap_or(self.path.idle_timeout)
        } else {
            self.path.head_timeout
        };
        self.timer.set(Instant::now(), Some(wait));
    }
}

/// Serves one request.
async fn serve_stream(
    path: &DataPath,
    (http, is_upgraded): (Arc<Http>, bool),
    (edge, arrival): (Edge, Arrival),
    (request, respond, budget): (http::Request<RecvStream>, SendResponse<Spent>, Budget),
) -> End {
    let (parts, recv) = request.into_parts();
    let mut parts = Box::new(parts);
    let mut stream = Stream::of_client(recv, respond, budget);
    let mut session = Session::new(path, &http, (edge, arrival));
    let mut no_text = Vec::new();
    session.wake(&mut no_text);
    session.is_upgraded = is_upgraded;
    session.deadline = take_timer();
    let begun = Instant::now();
    let read = read_request(&mut parts, stream.has_ended(), &path.limits, &mut session.request);
    let content_type = parts.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let report = session.begin(&*parts, content_type.unwrap_or_default(), begun);
    let down = &mut Side::Stream(&mut stream);
    let next = match read {
        Ok(()) => {
            let tables = path.tables.load_full();
            let decided = session.decide(&tables, &http, Head::Fields(parts));
            session.serve_decided(&decided, down, report).await
        }
        Err(why) => session.serve_decided(&Failure::BadRequest(why).into(), down, report).await,
    };
    if let Next::Reset(failure) = next {
        stream.reset(if failure == Failure::Timeout { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    }
    let is_unanswered = !stream.has_started;
    give_timer(std::mem::take(&mut session.deadline));
    session.rest(&mut no_text);
    if is_unanswered && begun.elapsed() < EARLY { End::Early } else { End::Served }
}

thread_local! {
    /// Timers that streams use in turn: most of them never ring, and one that is kept is seldom moved.
    static TIMERS: RefCell<Vec<Deadline>> = const { RefCell::new(Vec::new()) };
}
const KEPT_TIMERS: usize = 256;

fn take_timer() -> Deadline {
    TIMERS.try_with(|timers| timers.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

fn give_timer(timer: Deadline) {
    // A thread that is ending keeps nothing.
    let _ = TIMERS.try_with(|timers| {
        let mut timers = timers.borrow_mut();
        if timers.len() < KEPT_TIMERS {
            timers.push(timer);
        }
    });
}
