//! A socket whose bytes are TLS: records are opened into the reader's buffer as they come, and what is written goes out in
//! as few of them as it can.
//!
//! An idle connection holds no buffer.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::handshake::{Agreed, Handshake};
use super::records::{Opened, Records, content, whole};
use crate::buffer::Buffer;
use crate::principals::Principal;

/// The largest record, and something: so much is read at a time at least.
const LEAST: usize = 32 * 1024;

/// A connection by TLS.
#[derive(Debug)]
pub(crate) struct Secure {
    socket: TcpStream,
    stage: Stage,
    /// Who is at the other end, as counters know it, once the handshake is done.
    pub(crate) peer: Principal,
    /// Records that have come and have not been opened.
    came: Buffer,
    /// What was in a record that was larger than its reader's buffer.
    spare: Buffer,
    /// Records on their way to the peer.
    going: Buffer,
    /// Whether the peer has said that no more bytes follow.
    has_ended: bool,
    has_closed: bool,
    /// Whether the peer has ended it with an alert.
    is_refused: bool,
}

#[derive(Debug)]
enum Stage {
    Handshake(Handshake),
    Open(Box<Records>),
    Failed,
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Secure {
    /// TLS on a socket, from the begin of its handshake, of which `came` has come already.
    pub(crate) fn new(socket: TcpStream, handshake: Handshake, came: Buffer) -> Self {
        Secure {
            socket,
            stage: Stage::Handshake(handshake),
            peer: Principal::default(),
            came,
            spare: Buffer::default(),
            going: Buffer::default(),
            has_ended: false,
            has_closed: false,
            is_refused: false,
        }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the peer has ended it with an alert. A server refuses its caller so after the caller's handshake is done.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Ready when the handshake is done, with what has been agreed on.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Agreed>> {
        loop {
            let Stage::Handshake(handshake) = &mut self.stage else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match handshake.advance(&mut self.came, &mut self.going) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(self.finish(cx)),
                Err(error) => return Poll::Ready(Err(self.fail(error, cx))),
            }
            ready!(self.poll_send(cx))?;
            ready!(self.poll_more(cx, LEAST))?;
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) -> io::Result<Agreed> {
        let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (agreed, records) = handshake.finish().map_err(invalid)?;
        self.stage = Stage::Open(Box::new(records));
        // The end of ours, or tickets. What the socket does not take now goes before anything else.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Err(error);
        }
        Ok(agreed)
    }

    /// Ends it, and tells the peer why as far as that can be done without waiting.
    fn fail(&mut self, error: Error, cx: &mut Context<'_>) -> io::Error {
        self.is_refused |= matches!(error, Error::AlertReceived(_));
        if let Stage::Open(records) = &mut self.stage {
            // A cipher at its end says nothing more.
            let _ = records.seal_error(&error, &mut self.going);
        }
        self.stage = Stage::Failed;
        let _ = self.poll_send(cx);
        invalid(error)
    }

    /// Bytes of memory that what has come takes.
    pub(crate) fn memory(&self) -> usize {
        self.came.memory() + self.spare.memory()
    }

    /// Reads from the socket once, for a reader that has room for so many bytes.
    fn poll_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<()>> {
        if self.came.is_empty() {
            // No buffer is held over a wait.
            if self.socket.poll_read_ready(cx)?.is_pending() {
                self.came.release();
                return Poll::Pending;
            }
        }
        let mut into = ReadBuf::new(self.came.space_within(room.max(LEAST)));
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut into))?;
        let count = into.filled().len();
        if count == 0 {
            // An end that the peer has not announced may be anybody's.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.came.fill(count);
        Poll::Ready(Ok(()))
    }

    /// Opens records into `into` as long as they are there as a whole and there is room.
    fn open(&mut self, into: &mut ReadBuf<'_>, cx: &mut Context<'_>) -> io::Result<()> {
        let before = into.filled().len();
        while let Some(record) = whole(self.came.filled())
            && self.spare.is_empty()
            && !self.has_ended
        {
            let Stage::Open(records) = &mut self.stage else { return Err(io::ErrorKind::NotConnected.into()) };
            let bytes = self.came.filled().get(..record).unwrap_or_default();
            // What is opened has its kind behind it.
            let most = content(record) + 1;
            let fits = most <= into.remaining();
            if !fits && into.filled().len() > before {
                break;
            }
            let room = if fits { into.initialize_unfilled() } else { self.spare.room(most) };
            match records.open(bytes, room, &mut self.going) {
                Ok(Opened::Data(count)) if fits => into.advance(count),
                Ok(Opened::Data(count)) => self.spare.fill(count),
                Ok(Opened::Other) => {}
                Ok(Opened::End) => self.has_ended = true,
                Err(error) => return Err(self.fail(error, cx)),
            }
            self.came.consume(record);
        }
        self.came.release();
        if !self.going.is_empty() {
            // An answer of the protocol's own; what does not go now goes with what is written next.
            let _ = self.poll_send(cx);
        }
        Ok(())
    }

    /// Ready when it is worth while to have a buffer for bytes; `false` at the peer's end.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.spare.is_empty() || whole(self.came.filled()).is_some() {
            return Poll::Ready(Ok(true));
        }
        if self.has_ended {
            return Poll::Ready(Ok(false));
        }
        self.socket.poll_read_ready(cx).map_ok(|()| true)
    }

    /// Reads once; nothing is read at the peer's end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.going.is_empty() {
            // The peer may wait for it.
            let _ = self.poll_send(cx);
        }
        let before = into.filled().len();
        loop {
            if !self.spare.is_empty() {
                let count = self.spare.len().min(into.remaining());
                into.put_slice(self.spare.filled().get(..count).unwrap_or_default());
                self.spare.consume(count);
                self.spare.park();
                return Poll::Ready(Ok(()));
            }
            self.open(into, cx)?;
            if into.filled().len() > before || (self.has_ended && self.spare.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            if self.spare.is_empty() {
                ready!(self.poll_more(cx, into.remaining()))?;
            }
        }
    }

    /// Whether anything waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.going.is_empty()
    }

    /// Writes what waits.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.going.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, self.going.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.going.consume(count);
        }
        self.going.park();
        Poll::Ready(Ok(()))
    }

    /// Seals both, one after the other, as far as goes at once, and writes as much as the socket takes. What it does not
    /// take stays [unsent](Self::has_unsent), and nothing more is taken before it has gone.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        if head.is_empty() && body.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Stage::Open(records) = &mut self.stage else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let count = records.seal_data(head, body, &mut self.going).map_err(invalid)?;
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
        if let Stage::Open(records) = &mut self.stage
            && !std::mem::replace(&mut self.has_closed, true)
        {
            // A cipher at its end says nothing more.
            let _ = records.seal_end(&mut self.going);
        }
    }

    /// Says that no more bytes follow, as far as that can be done without waiting.
    pub(crate) fn close_now(&mut self) {
        self.close();
        let _ = self.poll_send(&mut Context::from_waker(std::task::Waker::noop()));
    }

    /// Whether an idle connection can still be used: the peer has neither closed it nor sent anything to be read. What TLS
    /// itself has to say meanwhile, such as tickets, is taken in.
    pub(crate) fn is_live(&mut self, ask_kernel: bool) -> bool {
        loop {
            if !self.spare.is_empty() || self.has_ended || !self.came.is_empty() {
                return false;
            }
            let into = self.came.space();
            let read = if ask_kernel {
                let below = socket2::SockRef::from(&self.socket);
                let mut below: &socket2::Socket = &below;
                below.read(into)
            } else {
                self.socket.try_read(into)
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.came.park();
                    return true;
                }
                Ok(count) if count > 0 => self.came.fill(count),
                _ => return false,
            }
            let (nothing, cx) = (&mut ReadBuf::new(&mut []), &mut Context::from_waker(std::task::Waker::noop()));
            if self.open(nothing, cx).is_err() {
                return false;
            }
        }
    }
}
