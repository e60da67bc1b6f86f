//! The socket below an HTTP/2 connection: all that is written in one turn of the connection's task goes out together.
//!
//! The protocol's codec writes frame by frame and asks for each to be flushed. A link takes the frames in and keeps
//! them until the task that drives the connection flushes it itself, when nothing more is ready. So the frames of all
//! streams that were ready go out in one write, and later in one TLS record.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::Conn;
use crate::frames::{Cut, Frames};

/// Frames are written out before the end of the turn once there are so many bytes of them.
const FULL: usize = 256 * 1024;
/// A buffer of at most this size is kept while nothing is in it.
const KEPT: usize = 16 * 1024;

/// One end of a link. Clones are handles on the same one: the codec holds one, the task that drives it the other.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Mutex<Wire>>);

#[derive(Debug)]
struct Wire {
    conn: Conn,
    /// What is read before anything else.
    early: Vec<u8>,
    frames: Frames,
}

impl Link {
    /// A link over a connection, from what has been read of it and is not used up.
    /// Before it `early` is read.
    pub(crate) fn new(conn: Conn, early: Vec<u8>, mut frames: Frames) -> Self {
        frames.scan(&early);
        frames.scan(conn.rx.filled());
        Link(Arc::new(Mutex::new(Wire { conn, early, frames })))
    }

    // One task at a time uses a link; the lock is there for the compiler, and never waited for.
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.wire().conn.is_flushed()
    }

    /// Writes what has been taken in.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_send(cx)
    }

    /// Why the peer's frames are read no further, if they are not.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.wire().frames.cut()
    }

    /// Streams that the peer was refused because it had too many, since this was last asked.
    pub(crate) fn take_refused(&self) -> u64 {
        self.wire().frames.take_refused()
    }

    /// What the codec has cut the connection for, as far as the frames tell that went by.
    pub(crate) fn why_cut(&self, error: &h2::Error) -> Cut {
        if error.reason() != Some(h2::Reason::ENHANCE_YOUR_CALM) {
            return Cut::Protocol;
        }
        let wire = self.wire();
        wire.frames.told().unwrap_or(if wire.frames.has_empty() { Cut::Empty } else { Cut::Resets })
    }

    /// Whether the peer has refused the connection by TLS.
    pub(crate) fn is_refused(&self) -> bool {
        self.wire().conn.is_refused()
    }

    /// Whether the peer's first frame has come, and is one that opens a connection.
    pub(crate) fn has_settings(&self) -> bool {
        self.wire().frames.has_settings()
    }
}

impl Wire {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.conn.poll_flush(cx))?;
        if self.conn.tx.capacity() > KEPT {
            self.conn.tx = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for more; pending if the peer takes none.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.conn.tx.len() < FULL { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        if !wire.early.is_empty() {
            let count = wire.early.len().min(into.remaining());
            into.put_slice(wire.early.get(..count).unwrap_or_default());
            wire.early.drain(..count);
            wire.early.shrink_to_fit();
            return Poll::Ready(Ok(()));
        }
        if !wire.conn.rx.is_empty() {
            let count = wire.conn.rx.len().min(into.remaining());
            into.put_slice(wire.conn.rx.filled().get(..count).unwrap_or_default());
            wire.conn.rx.consume(count);
            wire.conn.rx.park();
            return Poll::Ready(Ok(()));
        }
        // Whoever drives the connection sees why, and ends it.
        if wire.frames.cut().is_some() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        ready!(wire.conn.poll_read_into(cx, into))?;
        wire.frames.scan(into.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.wire();
        ready!(wire.poll_room(cx))?;
        wire.frames.scan_sent(bytes);
        wire.conn.tx.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire();
        ready!(wire.poll_room(cx))?;
        let before = wire.conn.tx.len();
        for slice in slices {
            wire.frames.scan_sent(slice);
            wire.conn.tx.extend_from_slice(slice);
        }
        Poll::Ready(Ok(wire.conn.tx.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: see the module.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        ready!(wire.poll_send(cx))?;
        wire.conn.poll_shutdown(cx)
    }
}
