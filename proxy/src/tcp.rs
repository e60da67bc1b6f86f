//! Opaque connections: bytes both ways until both sides have ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::decide::decide_tcp;
use engine::tables::{Tables, Tcp};
use engine::trace::NoTrace;
use tokio::time::Instant;

use crate::codec::Body;
use crate::conn::{Conn, Counted};
use crate::data::DataPath;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::pump::{Framing, Pump, PumpError};
use crate::report::TcpReport;
use crate::timer::Deadline;
use crate::upstream::{self, Arrival, InFlight};

/// As in Envoy: a connection without a byte for so long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// Serves one opaque connection on a TCP filter chain.
///
/// # Errors
///
/// It cannot be passed on, or ended early.
pub(crate) async fn serve(
    path: &DataPath,
    tables: &Tables,
    tcp: &Tcp,
    (edge, arrival): (Edge, Arrival),
    conn: Conn,
) -> Result<(), Failure> {
    let Some(cluster) = decide_tcp(tables, tcp, &mut upstream::dice, &mut NoTrace) else {
        return path.refuse(edge, &arrival, Failure::NoCluster(503));
    };
    let report = TcpReport::new(path, (edge, &arrival), cluster);
    relay(report, arrival, conn, tcp.idle_timeout.unwrap_or(IDLE)).await
}

async fn relay(mut report: TcpReport<'_>, arrival: Arrival, mut down: Conn, idle: Duration) -> Result<(), Failure> {
    let (path, cluster) = (report.path, Arc::clone(&report.cluster));
    let cluster = &*cluster;
    let target =
        upstream::pick(cluster, &arrival, &[], || path.now()).inspect_err(|failure| report.failure = Some(*failure))?;
    report.reaches(&target);
    let flight = InFlight::at(&target);
    let Some(counted) = Counted::begin(cluster) else {
        cluster.usage.connections_refused.fetch_add(1, Ordering::Relaxed);
        let failure = Failure::Overflow("connections");
        report.failure = Some(failure);
        down.reset();
        return Err(failure);
    };
    let connected = Box::pin(upstream::connect(path.connector, cluster, &target, counted)).await;
    upstream::observe(cluster, &target, connected.is_err(), || path.now());
    let mut up = match connected {
        Ok(up) => up,
        Err(failure) => {
            report.failure = Some(failure);
            down.reset();
            return Err(failure);
        }
    };
    report.opened();
    (down.is_unfinished, up.is_unfinished) = (true, true);
    let mut relay = Relay::new(idle);
    let ended = std::future::poll_fn(|cx| {
        let ended = relay.poll(cx, &mut down, &mut up);
        report.moved(down.received, down.written);
        ended
    })
    .await;
    if let Err(failure) = ended {
        if failure != Failure::DownstreamClosed {
            flight.failed();
        }
        report.failure = Some(failure);
        // Both are reset as they are dropped.
        return Err(failure);
    }
    (down.is_unfinished, up.is_unfinished) = (false, false);
    Ok(())
}

/// Both directions of an opaque connection.
#[derive(Debug)]
struct Relay {
    out: Direction,
    back: Direction,
    idle: Duration,
    deadline: Deadline,
    moved: u64,
}

#[derive(Debug)]
enum Direction {
    Flowing(Pump),
    Ending,
    Ended,
}

impl Direction {
    fn new() -> Self {
        Direction::Flowing(Pump::new(Body::UntilClose, Framing::Raw))
    }

    /// Ready when the sender has ended and the receiver knows.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Conn, to: &mut Conn) -> Poll<Result<(), PumpError>> {
        loop {
            match self {
                Direction::Flowing(pump) => match pump.poll_text(cx, from, to) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => *self = Direction::Ending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
                Direction::Ending => match to.poll_shutdown(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The receiver may have closed as a whole already.
                    Poll::Ready(_) => *self = Direction::Ended,
                },
                Direction::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Relay {
    fn new(idle: Duration) -> Self {
        let mut deadline = Deadline::default();
        deadline.set(Instant::now(), Some(idle));
        Relay { out: Direction::new(), back: Direction::new(), idle, deadline, moved: 0 }
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
        let moved = down.received + up.received;
        if moved != self.moved {
            self.moved = moved;
            self.deadline.set(Instant::now(), Some(self.idle));
        }
        self.deadline.poll(cx).map(|()| Err(Failure::Timeout))
    }
}
