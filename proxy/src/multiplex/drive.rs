//! The task of one HTTP/2 connection to an upstream.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use h2::client::{Builder, Connection};
use tokio::time::Instant;

use super::{Channel, IDLE, Maker, Multiplex};
use crate::budget::{Budget, Spent};
use crate::codec::Malformed;
use crate::conn::Conn;
use crate::failure::Failure;
use crate::frames::Frames;
use crate::link::Link;
use crate::principals::Principal;
use crate::timer::Deadline;
use crate::tls::reason::NoTls;
use crate::way::Way;

/// What one stream may have on its way to the proxy before it is passed on.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// What all streams of a connection may have: slow readers of some do not hold up the others.
pub(crate) const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What a stream may have on its way to the proxy at least, however many there are.
const LEAST_WINDOW: u32 = 16 * 1024;
/// What a stream may have waiting for its peer's window.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;
/// The largest frame that a peer may send.
const FRAME: u32 = 64 * 1024;

fn builder(head: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .enable_push(false);
    builder
}

/// Greets the endpoint, and waits until it has greeted back: nothing is sent to one that does not speak HTTP/2.
pub(super) async fn open(
    multiplex: &Multiplex,
    maker: &Maker,
    (conn, peer): (Conn, Principal),
    most: u32,
) -> Result<(Arc<Channel>, impl Future<Output = ()> + Send + 'static + use<>), Failure> {
    let link = Link::new(conn, Vec::new(), Frames::of_server(multiplex.frames));
    let not_h2 = |_| Failure::UpstreamProtocol(Malformed::Frames);
    let (send, connection) = builder(multiplex.head).handshake::<_, Spent>(link.clone()).await.map_err(not_h2)?;
    let channel = Arc::new(Channel {
        send,
        budget: Budget::new(),
        active: AtomicU32::new(0),
        served: AtomicU32::new(0),
        most,
        is_closed: AtomicBool::new(false),
        peer,
    });
    let mut driver = Driver {
        connection,
        link,
        channel: Arc::downgrade(&channel),
        place: (multiplex.clone(), maker.shard, maker.way.clone()),
        idle: Deadline::default(),
        seen: 0,
        waits_for_others: false,
        window: STREAM_WINDOW,
    };
    std::future::poll_fn(|cx| driver.poll_greeted(cx)).await?;
    Ok((channel, driver.run()))
}

struct Driver {
    connection: Connection<Link, Spent>,
    link: Link,
    channel: Weak<Channel>,
    place: (Multiplex, usize, Way),
    idle: Deadline,
    /// Requests served when the idle time began.
    seen: u32,
    waits_for_others: bool,
    /// What each stream may have on its way, as the peer was told last.
    window: u32,
}

/// What each of so many streams may have on its way: if none of a hundred is read, and each was opened after the others had
/// filled their windows, more than a quarter of the connection's is left.
fn share(streams: u32) -> u32 {
    let share = CONNECTION_WINDOW / 4 / streams.max(1);
    let share = if share == 0 { 0 } else { 1 << share.ilog2() };
    share.clamp(LEAST_WINDOW, STREAM_WINDOW)
}

impl Driver {
    async fn run(mut self) {
        self.idle.set(Instant::now(), Some(IDLE));
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.close();
    }

    /// Takes no more requests.
    fn close(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.is_closed.store(true, Ordering::Relaxed);
        }
        let (multiplex, shard, way) = &self.place;
        multiplex.forget_closed(*shard, way);
    }

    /// Ready when the peer's first frame has come.
    fn poll_greeted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let ended = Pin::new(&mut self.connection).poll(cx);
        if self.link.is_refused() {
            return Poll::Ready(Err(Failure::UpstreamTls(NoTls::Alert)));
        }
        if let Poll::Ready(Err(_)) = self.link.poll_send(cx) {
            return Poll::Ready(Err(Failure::UpstreamReset));
        }
        match ended {
            Poll::Ready(Err(error)) if error.is_io() => Poll::Ready(Err(Failure::UpstreamReset)),
            Poll::Ready(_) => Poll::Ready(Err(Failure::UpstreamProtocol(Malformed::Frames))),
            Poll::Pending if self.link.has_settings() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let active = self.active();
        if share(active) < self.window {
            self.tell_window(share(active));
        }
        if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to an upstream has ended");
            }
            let _ = self.link.poll_send(cx);
            return Poll::Ready(());
        }
        if let Some(cut) = self.link.cut() {
            tracing::debug!(reason = cut.as_str(), "an upstream floods its connection, which is cut");
            return Poll::Ready(());
        }
        if self.link.has_unsent() {
            // Requests that are ready at the same time go out together: this task goes behind theirs once.
            if active > 1 && !self.waits_for_others {
                self.waits_for_others = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.waits_for_others = false;
            if let Poll::Ready(Err(error)) = self.link.poll_send(cx) {
                tracing::debug!(%error, "a connection to an upstream has failed");
                return Poll::Ready(());
            }
        }
        while self.idle.poll(cx).is_ready() {
            self.look_for_use();
        }
        Poll::Pending
    }

    fn active(&self) -> u32 {
        self.channel.upgrade().map_or(0, |channel| channel.active.load(Ordering::Relaxed))
    }

    /// Tells the peer how much of a stream it may send ahead. It is told before the streams are opened that make it less.
    fn tell_window(&mut self, window: u32) {
        // If it has not confirmed the last word yet, the next turn says it.
        if self.connection.set_initial_window_size(window).is_ok() {
            self.window = window;
        }
    }

    /// Gives the connection up when it has had no stream for a while: once nobody holds it the codec takes leave of the
    /// peer and ends it.
    fn look_for_use(&mut self) {
        if let Some(channel) = self.channel.upgrade() {
            let served = channel.served.load(Ordering::Relaxed);
            if served == self.seen && channel.active.load(Ordering::Relaxed) == 0 {
                self.close();
            }
            self.seen = served;
        }
        let share = share(self.active());
        if share > self.window {
            self.tell_window(share);
        }
        self.idle.set(Instant::now(), Some(IDLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_nobody_reads_leave_room_for_others() {
        for (streams, window) in [(0, 256), (1, 256), (8, 256), (9, 128), (16, 128), (64, 32), (65, 16), (5000, 16)] {
            assert_eq!(share(streams), window * 1024, "{streams}");
        }
        assert!((1..=100).map(share).sum::<u32>() < CONNECTION_WINDOW / 4 * 3);
        assert!((1..=250).map(share).sum::<u32>() < CONNECTION_WINDOW);
    }
}
