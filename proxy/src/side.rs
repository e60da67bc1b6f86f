//! One side of an exchange, whatever it speaks: a connection of HTTP/1.1, or a stream of HTTP/2.

use std::io;
use std::task::{Context, Poll};

use crate::conn::Conn;
use crate::stream::Stream;

/// A side of an exchange.
#[derive(Debug)]
pub(crate) enum Side<'s> {
    /// HTTP/1.1.
    Text(&'s mut Conn),
    /// HTTP/2.
    Stream(&'s mut Stream),
}

impl Side<'_> {
    /// The same side for a while.
    pub(crate) fn again(&mut self) -> Side<'_> {
        match self {
            Side::Text(conn) => Side::Text(conn),
            Side::Stream(stream) => Side::Stream(stream),
        }
    }

    /// Looks for the client's end. Ready only when it is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Side::Text(conn) => conn.poll_gone(cx),
            Side::Stream(stream) => stream.poll_gone(cx),
        }
    }

    /// Writes what stands before a body. A stream's connection does that by itself.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Side::Text(conn) => conn.poll_flush(cx),
            Side::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says whether the peer waits for the rest of something; an end of the connection is then a reset.
    pub(crate) fn set_unfinished(&mut self, is_unfinished: bool) {
        if let Side::Text(conn) = self {
            conn.is_unfinished = is_unfinished;
        }
    }
}
