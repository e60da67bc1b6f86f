//! Bytes both ways between two connections, until both sides have ended.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::Body;
use crate::conn::Conn;
use crate::failure::Failure;
use crate::pump::{Framing, Pump, PumpError};
use crate::timer::Deadline;

/// Both directions of a connection whose bytes mean nothing to the proxy.
#[derive(Debug)]
pub(crate) struct Relay {
    out: Direction,
    back: Direction,
    idle: Duration,
    deadline: Deadline,
    moved: u64,
}

#[derive(Debug)]
struct Direction {
    pump: Pump,
    end: End,
}

/// How far the end of one side's bytes has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender has not ended.
    Open,
    /// It has, and the receiver does not know.
    Seen,
    /// The receiver knows.
    Passed,
}

impl Direction {
    fn new() -> Self {
        Direction { pump: Pump::new(Body::UntilClose, Framing::Raw), end: End::Open }
    }

    /// Ready when the sender has ended and the receiver knows.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Conn, to: &mut Conn) -> Poll<Result<(), PumpError>> {
        loop {
            match self.end {
                End::Open => {
                    ready!(self.pump.poll_text(cx, from, to))?;
                    self.end = End::Seen;
                }
                End::Seen => {
                    // The receiver may have closed as a whole already.
                    let _ = ready!(to.poll_shutdown(cx));
                    self.end = End::Passed;
                }
                End::Passed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Relay {
    /// A relay that gives up when no byte has moved for so long.
    #[must_use]
    pub(crate) fn new(idle: Duration) -> Self {
        let mut deadline = Deadline::default();
        deadline.set(Instant::now(), Some(idle));
        Relay { out: Direction::new(), back: Direction::new(), idle, deadline, moved: 0 }
    }

    /// Bytes that were taken from each side so far.
    #[must_use]
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.out.pump.content, self.back.pump.content)
    }

    /// Runs until both sides have ended in good order, and says now and then how many bytes have been read from the
    /// client and written to it. If it ends in another way, or is dropped, both connections are
    /// reset when they are: no peer takes for complete what is not.
    ///
    /// # Errors
    ///
    /// One side broke off, or nothing has moved for too long.
    pub(crate) async fn run(
        &mut self,
        down: &mut Conn,
        up: &mut Conn,
        mut moved: impl FnMut(u64, u64),
    ) -> Result<(), Failure> {
        (down.is_unfinished, up.is_unfinished) = (true, true);
        std::future::poll_fn(|cx| {
            let ended = self.poll(cx, down, up);
            moved(down.received, down.written);
            ended
        })
        .await?;
        (down.is_unfinished, up.is_unfinished) = (false, false);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, down: &mut Conn, up: &mut Conn) -> Poll<Result<(), Failure>> {
        let out = self.out.poll(cx, down, up);
        let back = self.back.poll(cx, up, down);
        match (out, back) {
            (Poll::Ready(Err(PumpError::Write)), _) => return Poll::Ready(Err(Failure::UpstreamReset)),
            (_, Poll::Ready(Err(PumpError::Write))) => return Poll::Ready(Err(Failure::DownstreamClosed)),
            (Poll::Ready(Err(_)), _) => return Poll::Ready(Err(Failure::DownstreamClosed)),
            (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(Failure::UpstreamReset)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            _ => {}
        }
        let moved = down.received + up.received + down.written + up.written;
        if moved != self.moved {
            self.moved = moved;
            self.deadline.set(Instant::now(), Some(self.idle));
        }
        self.deadline.poll(cx).map(|()| Err(Failure::Timeout))
    }
}
