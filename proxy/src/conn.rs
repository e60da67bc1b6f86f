//! One side's connection: a socket, what was read from it, and what is to be written to it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use engine::tables::{Cluster, Endpoint, Load, Usage, take_one};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use crate::principals::Principal;
use crate::tls::handshake::{Agreed, Handshake};
use crate::tls::secure::Secure;

/// A connection with its buffers.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Io,
    /// What was read and is not used up.
    pub(crate) rx: Buffer,
    /// What is to be written before anything else.
    pub(crate) tx: Vec<u8>,
    sent: usize,
    /// Bytes read so far.
    pub(crate) received: u64,
    /// Bytes written so far.
    pub(crate) written: u64,
    /// Whether the peer waits for the rest of something: if the connection is dropped now, at the drain's deadline say, it
    /// is reset, so that nothing is taken for complete.
    pub(crate) is_unfinished: bool,
    /// Exchanges that are complete.
    pub(crate) served: u32,
    /// Counts the connection at its cluster and endpoint as long as it is open.
    pub(crate) counted: Option<Counted>,
}

/// What bytes go through.
#[derive(Debug)]
enum Io {
    /// A socket.
    Plain(TcpStream),
    /// TLS on a socket.
    Secure(Box<Secure>),
    /// Nothing: TLS could not begin.
    Nothing,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// Counts a connection at its cluster and its endpoint.
#[derive(Debug)]
pub(crate) struct Counted {
    usage: Arc<Usage>,
    load: Option<Arc<Load>>,
}

impl Counted {
    /// One more connection, open or being made, if the cluster may have one.
    #[must_use]
    pub(crate) fn begin(cluster: &Cluster) -> Option<Self> {
        take_one(&cluster.usage.connections, cluster.spec.limits.connections)
            .then(|| Counted { usage: Arc::clone(&cluster.usage), load: None })
    }

    /// One more, whether the cluster may have one or not.
    #[must_use]
    pub(crate) fn begin_surely(cluster: &Cluster) -> Self {
        cluster.usage.connections.fetch_add(1, Ordering::Relaxed);
        Counted { usage: Arc::clone(&cluster.usage), load: None }
    }

    /// Whether the cluster may have one more.
    #[must_use]
    pub(crate) fn has_room(cluster: &Cluster) -> bool {
        cluster.usage.connections.load(Ordering::Relaxed) < cluster.spec.limits.connections
    }

    /// It has been made to this endpoint.
    #[must_use]
    pub(crate) fn at(mut self, endpoint: Option<&Arc<Endpoint>>) -> Self {
        self.load = endpoint.map(|endpoint| Arc::clone(&endpoint.load));
        if let Some(load) = &self.load {
            load.connections.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// Whether it is counted at this cluster.
    #[must_use]
    pub(crate) fn is_of(&self, cluster: &Cluster) -> bool {
        Arc::ptr_eq(&self.usage, &cluster.usage)
    }

    /// Says that the connection is free for another request.
    pub(crate) fn freed(&self) {
        self.usage.waiting.wake_one();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(load) = &self.load {
            load.connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.usage.connections.fetch_sub(1, Ordering::Relaxed);
        self.usage.waiting.wake_one();
    }
}

/// A `tx` larger than this is not kept over an idle time.
const KEPT_TX: usize = 2 * 1024;

impl Conn {
    /// Takes over a connected socket.
    #[must_use]
    pub(crate) fn new(io: TcpStream) -> Self {
        Conn {
            io: Io::Plain(io),
            rx: Buffer::default(),
            tx: Vec::new(),
            sent: 0,
            received: 0,
            written: 0,
            is_unfinished: false,
            served: 0,
            counted: None,
        }
    }

    /// Reads once. `Ok(0)` is the peer's end of its bytes; an error of kind `OutOfMemory` is a full buffer.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_read_within(cx, usize::MAX)
    }

    /// As [`Conn::poll_read`], at most so many bytes.
    pub(crate) fn poll_read_within(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        // No buffer is held over a wait.
        if self.rx.is_empty() {
            let is_ready = match &mut self.io {
                Io::Plain(socket) => socket.poll_read_ready(cx).map_ok(|()| true),
                Io::Secure(secure) => secure.poll_ready(cx),
                Io::Nothing => return Poll::Ready(Err(gone())),
            };
            match is_ready {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rx.release();
                    return Poll::Pending;
                }
            }
        }
        let space = self.rx.space_within(most);
        if space.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let mut into = ReadBuf::new(space);
        let read = self.io.poll_read(cx, &mut into);
        let count = into.filled().len();
        if read.is_pending() {
            self.rx.release();
        }
        ready!(read)?;
        self.rx.fill(count);
        self.received += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Bytes of memory that what was read takes, used up or not.
    pub(crate) fn memory(&self) -> usize {
        self.rx.memory() + if let Io::Secure(secure) = &self.io { secure.memory() } else { 0 }
    }

    /// The address of this end.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.io.socket()?.local_addr().ok()
    }

    /// Goes on with TLS: what has been read is the beginning of its handshake.
    ///
    /// # Errors
    ///
    /// It cannot be.
    pub(crate) fn begin_tls(&mut self, handshake: Handshake) -> io::Result<()> {
        let Io::Plain(socket) = std::mem::replace(&mut self.io, Io::Nothing) else { return Err(gone()) };
        self.io = Io::Secure(Box::new(Secure::new(socket, handshake, std::mem::take(&mut self.rx))));
        self.received = 0;
        Ok(())
    }

    /// Ready when the handshake is done.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Agreed>> {
        match &mut self.io {
            Io::Secure(secure) => secure.poll_handshake(cx),
            Io::Plain(_) | Io::Nothing => Poll::Ready(Err(gone())),
        }
    }

    /// Its TLS.
    pub(crate) fn secure(&mut self) -> Option<&mut Secure> {
        if let Io::Secure(secure) = &mut self.io { Some(secure) } else { None }
    }

    /// Whether the other end has refused it by TLS, before it has sent anything.
    pub(crate) fn is_refused(&self) -> bool {
        self.received == 0 && matches!(&self.io, Io::Secure(secure) if secure.is_refused())
    }

    /// Who has proved to be at the other end, as counters know it.
    pub(crate) fn principal(&self) -> Principal {
        if let Io::Secure(secure) = &self.io { secure.peer } else { Principal::default() }
    }

    /// Reads once into another's buffer; for a codec that has its own.
    pub(crate) fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(self.io.poll_read(cx, into))?;
        self.received += (into.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }

    /// Whether everything in `tx` has been written.
    #[must_use]
    pub(crate) fn is_flushed(&self) -> bool {
        self.has_sent_tx() && !matches!(&self.io, Io::Secure(secure) if secure.has_unsent())
    }

    fn has_sent_tx(&self) -> bool {
        self.sent == self.tx.len()
    }

    /// Writes once: the rest of `tx`, then `body`. Returns how many bytes of `body` were written, or are on their way:
    /// all of them have left when it [is flushed](Self::is_flushed).
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, body: &[u8]) -> Poll<io::Result<usize>> {
        let head = self.tx.get(self.sent..).unwrap_or_default();
        let written = ready!(self.io.poll_write(cx, head, body))?;
        // TLS may have had something else to write.
        if written == 0 && !(head.is_empty() && body.is_empty()) {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += written as u64;
        let of_head = written.min(head.len());
        self.sent += of_head;
        if self.has_sent_tx() {
            self.tx.clear();
            self.sent = 0;
        }
        Poll::Ready(Ok(written - of_head))
    }

    /// Writes all of `tx`.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            ready!(self.poll_write(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that no more bytes follow.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Io::Secure(secure) => secure.poll_shutdown(cx),
            Io::Nothing => Poll::Ready(Err(gone())),
        }
    }

    /// Forgets what is to be written.
    pub(crate) fn discard_tx(&mut self) {
        self.tx.clear();
        self.sent = 0;
    }

    /// Looks for the peer's end, and keeps what it sends meanwhile as far as there is room. Ready only when it is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.rx.has_cheap_space() {
            match self.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
        }
        Poll::Pending
    }

    /// Gives back the memory that an idle connection does not need.
    pub(crate) fn park(&mut self) {
        self.rx.park();
        if self.tx.is_empty() && self.tx.capacity() > KEPT_TX {
            self.tx = Vec::new();
        }
    }

    /// Whether an idle connection can still be used: the peer has neither closed it nor sent anything.
    ///
    /// `ask_kernel` looks past what the runtime has been told so far.
    #[must_use]
    pub(crate) fn is_live(&mut self, ask_kernel: bool) -> bool {
        let socket = match &mut self.io {
            Io::Plain(socket) => socket,
            Io::Secure(secure) => return secure.is_live(ask_kernel),
            Io::Nothing => return false,
        };
        let mut byte = [0];
        if !matches!(socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        if !ask_kernel {
            return true;
        }
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(socket2::SockRef::from(&*socket).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Closes so that the peer sees a broken connection rather than a complete message.
    pub(crate) fn reset(mut self) {
        self.is_unfinished = true;
    }
}

impl Io {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Io::Plain(socket) => Some(socket),
            Io::Secure(secure) => Some(secure.socket()),
            Io::Nothing => None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Io::Secure(secure) => secure.poll_read(cx, into),
            Io::Nothing => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(socket) if head.is_empty() => Pin::new(socket).poll_write(cx, body),
            Io::Plain(socket) if body.is_empty() => Pin::new(socket).poll_write(cx, head),
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
            Io::Secure(secure) => secure.poll_write(cx, head, body),
            Io::Nothing => Poll::Ready(Err(gone())),
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !self.is_unfinished {
            if let Io::Secure(secure) = &mut self.io {
                secure.close_now();
            }
        } else if let Some(socket) = self.io.socket() {
            // If it fails the socket is closed the ordinary way, which a length or a chunk also shows to be too early.
            let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}
