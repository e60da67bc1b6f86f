//! A socket whose bytes are TLS: what is read is decrypted as it comes, what is written goes out in as few records as it
//! can.
//!
//! An idle connection holds no buffer of ours. Bytes from the socket pass through one that its thread has.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::spiffe::SpiffeId;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is taken from a socket at once: the largest record and the beginning of another.
const CIPHER: usize = 20 * 1024;

thread_local! {
    static BYTES: RefCell<Box<[u8]>> = RefCell::new(vec![0; CIPHER].into_boxed_slice());
}

/// A connection by TLS.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(super) socket: TcpStream,
    pub(super) session: Connection,
    /// Who is at the other end, once the handshake is done.
    pub(super) peer: Option<Arc<SpiffeId>>,
    /// Bytes that have been decrypted and not been taken.
    unread: usize,
    /// Bytes that came while there was no room for what is in them.
    late: Vec<u8>,
    /// Whether the peer has said that no more bytes follow.
    has_ended: bool,
    has_closed: bool,
    /// Whether the peer has ended it with an alert.
    is_refused: bool,
}

/// The socket below, for the length of one poll.
struct Wire<'a, 'c> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'c>,
}

impl io::Write for Wire<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Secure {
    /// TLS on a socket, from the begin of its handshake.
    pub(crate) fn new(socket: TcpStream, session: Connection) -> Self {
        Secure {
            socket,
            session,
            peer: None,
            unread: 0,
            late: Vec::new(),
            has_ended: false,
            has_closed: false,
            is_refused: false,
        }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Option<&Arc<SpiffeId>> {
        self.peer.as_ref()
    }

    /// Whether the peer has ended it with an alert. A server refuses its caller so after the caller's handshake is done.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Takes bytes that have come from the peer.
    ///
    /// # Errors
    ///
    /// They are no TLS, or not by whom they should be.
    pub(crate) fn absorb(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Nothing is taken while much is unread, or after the end.
            match self.session.read_tls(&mut rest) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                _ => break,
            }
            let processed = self.session.process_new_packets();
            self.is_refused |= matches!(processed, Err(rustls::Error::AlertReceived(_)));
            let state = processed.map_err(invalid)?;
            self.unread = state.plaintext_bytes_to_read();
            self.has_ended |= state.peer_has_closed();
        }
        if !self.has_ended {
            self.late = rest.to_vec();
        }
        Ok(())
    }

    /// Reads from the socket once.
    fn poll_absorb(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let absorbed = BYTES.with_borrow_mut(|bytes| {
            let mut into = ReadBuf::new(bytes);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                // An end that the peer has not announced may be anybody's.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(self.absorb(into.filled()))
        });
        // What is said to the peer about what has come, an alert as well.
        if absorbed.is_ready() && self.session.wants_write() {
            let _ = self.poll_send(cx);
        }
        absorbed
    }

    /// Ready when the handshake is done. What a server has to say after it, its tickets, goes out with its first bytes.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match (self.session.is_handshaking(), &self.session) {
                (false, Connection::Server(_)) => return Poll::Ready(Ok(())),
                // A server that speaks first waits for the end of ours.
                (false, Connection::Client(_)) => return self.poll_send(cx),
                (true, _) => {}
            }
            ready!(self.poll_send(cx))?;
            ready!(self.poll_absorb(cx))?;
        }
    }

    /// Ready when bytes can be [taken](Self::take); `false` at the peer's end.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.unread > 0 {
                return Poll::Ready(Ok(true));
            }
            if !self.late.is_empty() {
                let late = std::mem::take(&mut self.late);
                self.absorb(&late)?;
            } else if self.has_ended {
                return Poll::Ready(Ok(false));
            } else {
                ready!(self.poll_absorb(cx))?;
            }
        }
    }

    /// Takes bytes that are ready.
    pub(crate) fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.session.reader().read(into).unwrap_or(0);
        self.unread = self.unread.saturating_sub(count);
        count
    }

    /// Whether anything waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Writes what waits.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire { socket: &mut self.socket, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts both, one after the other, as far as there is room, and writes as much as the socket takes. What it does
    /// not take stays [unsent](Self::has_unsent), and nothing more is taken before it has gone.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        if head.is_empty() && body.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = self.session.writer().write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Says that no more bytes follow.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.has_closed, true) {
            self.session.send_close_notify();
        }
    }

    /// Says that no more bytes follow, as far as that can be done without waiting.
    pub(crate) fn close_now(&mut self) {
        if !self.session.is_handshaking() {
            self.close();
            let _ = self.poll_send(&mut Context::from_waker(std::task::Waker::noop()));
        }
    }

    /// Whether an idle connection can still be used: the peer has neither closed it nor sent anything to be read. What TLS
    /// itself has to say meanwhile, such as tickets, is taken in.
    pub(crate) fn is_live(&mut self, ask_kernel: bool) -> bool {
        BYTES.with_borrow_mut(|bytes| {
            loop {
                if self.unread > 0 || self.has_ended || !self.late.is_empty() {
                    return false;
                }
                let read = if ask_kernel {
                    let below = socket2::SockRef::from(&self.socket);
                    let mut below: &socket2::Socket = &below;
                    below.read(bytes)
                } else {
                    self.socket.try_read(bytes)
                };
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    Ok(count) if count > 0 => {
                        if self.absorb(bytes.get(..count).unwrap_or_default()).is_err() {
                            return false;
                        }
                    }
                    _ => return false,
                }
            }
        })
    }
}
