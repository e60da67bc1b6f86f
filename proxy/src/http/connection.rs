//! What a request is sent on: a connection that is idle, else a new one, else the next that is free; or a stream of a
//! connection that all requests share.

use std::task::Poll;

use engine::tables::{Cluster, Upstream};
use tokio::time::Instant;

use super::Session;
use super::call::Call;
use crate::conn::{Conn, Counted};
use crate::failure::Failure;
use crate::headers::Edge;
use crate::multiplex::{Lease, Maker, Offer};
use crate::principals::Principal;
use crate::report::Report;
use crate::side::Side;
use crate::stream::Stream;
use crate::tls::inside::Inside;
use crate::upstream::{self, Pending};
use crate::way::Target;

/// What a request can be sent on.
pub(super) enum Line {
    /// A connection of its own for as long as it lasts.
    Text(Conn),
    /// Its share of a connection of HTTP/2.
    Lease(Lease),
}

impl Line {
    /// Who has proved to be at the other end.
    pub(super) fn peer(&self) -> Principal {
        match self {
            Line::Text(conn) => conn.principal(),
            Line::Lease(lease) => lease.peer(),
        }
    }
}

/// The upstream's side of an exchange.
pub(super) enum Up {
    /// A connection of HTTP/1.1.
    Text(Conn),
    /// A stream of HTTP/2.
    Stream(Stream),
}

impl Up {
    pub(super) fn side(&mut self) -> Side<'_> {
        match self {
            Up::Text(conn) => Side::Text(conn),
            Up::Stream(stream) => Side::Stream(stream),
        }
    }
}

/// Whether a connection of HTTP/1.1 is taken that has served before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// One has just proved to be gone.
    Never,
    /// If it seems to live.
    Likely,
    /// If the kernel says so as well: the request cannot be sent a second time.
    Sure,
}

/// What there is for a request that waits.
enum Found {
    /// A connection that is idle.
    Idle(Conn, Target),
    /// Room for a new one.
    Room(Counted),
}

impl Session<'_> {
    /// Whether the cluster's endpoints are to get HTTP/2 from the proxy beside them, or from this one.
    pub(super) fn speaks_h2(&self, cluster: &Cluster) -> bool {
        match cluster.spec.upstream {
            Upstream::Http1 => false,
            Upstream::Http2 => true,
            Upstream::AsDownstream => self.is_from_h2,
        }
    }

    /// Whether requests go to the endpoint by HTTP/2: it wants that, or a proxy stands beside it that passes on either.
    fn multiplexes(&self, cluster: &Cluster, target: &Target) -> bool {
        // What is no HTTP any more needs a connection of its own; the other proxy takes either.
        if self.switch.is_some() {
            return false;
        }
        self.speaks_h2(cluster) || (self.edge != Edge::Inbound && self.has_proxy(target))
    }

    fn has_proxy(&self, target: &Target) -> bool {
        target.endpoint.as_ref().is_some_and(|endpoint| endpoint.speaks_h2) && !self.path.multiplex.is_text(&target.way)
    }

    /// A line to an endpoint of the cluster, and whether it was used before.
    pub(super) async fn connection(
        &mut self,
        call: &mut Call<'_, '_>,
        down: &mut Side<'_>,
        report: &mut Report,
        reuse: Reuse,
    ) -> Result<(Line, Target, bool), Failure> {
        let cluster = call.cluster;
        let connects = if call.tries.counts_connects() { 1 } else { upstream::CONNECTS };
        let mut tried = 0;
        loop {
            let target = upstream::pick(cluster, &self.arrival, call.tries.tried(), || self.path.now())?;
            report.target = Some(target.clone());
            let connected = if self.multiplexes(cluster, &target) {
                match self.lease_kept(call, &target) {
                    Some(lease) => Ok(Line::Lease(lease)),
                    None => Box::pin(self.lease(call, &target, down)).await.map(Line::Lease),
                }
            } else {
                if reuse != Reuse::Never
                    && let Some(conn) = self.path.pool.take(&target.way, reuse == Reuse::Sure)
                    && let Some(conn) = self.adopt(cluster, &target, conn)
                {
                    return Ok((Line::Text(conn), target, true));
                }
                let pending = Pending::at(cluster)?;
                let counted = match Counted::begin(cluster) {
                    Some(counted) => counted,
                    None => match Box::pin(self.wait_for_room(call, &target, down)).await? {
                        Found::Idle(conn, target) => {
                            report.target = Some(target.clone());
                            return Ok((Line::Text(conn), target, true));
                        }
                        Found::Room(counted) => counted,
                    },
                };
                let connected = Box::pin(self.connect(cluster, &target, counted, down)).await;
                drop(pending);
                connected.map(Line::Text)
            };
            tried += 1;
            match connected {
                Ok(line) => {
                    let is_used = matches!(&line, Line::Lease(lease) if lease.is_used);
                    return Ok((line, target, is_used));
                }
                // It is asked again, as text.
                Err(Failure::UpstreamProtocol(_)) if self.path.multiplex.is_text(&target.way) && tried < connects => {}
                Err(failure) => {
                    if failure.is_endpoints() {
                        upstream::observe(cluster, &target, true, || self.path.now());
                    }
                    // Nothing has been sent: another endpoint may do better.
                    call.tries.avoid(&target);
                    if !failure.is_connect() || tried >= connects || target.endpoint.is_none() {
                        return Err(failure);
                    }
                }
            }
        }
    }

    /// A share of a connection that is there.
    fn lease_kept(&self, call: &Call<'_, '_>, target: &Target) -> Option<Lease> {
        self.path.multiplex.kept(&target.way, Counted::has_room(call.cluster))
    }

    /// A share of a connection that somebody makes: this request, or another one that came before it.
    async fn lease(&mut self, call: &mut Call<'_, '_>, target: &Target, down: &mut Side<'_>) -> Result<Lease, Failure> {
        let cluster = call.cluster;
        let _pending = Pending::at(cluster)?;
        loop {
            match self.path.multiplex.offer(&target.way, Counted::has_room(cluster)) {
                Offer::Lease(lease) => return Ok(lease),
                Offer::Make(maker) => return self.make(maker, cluster, target, down).await,
                Offer::Wait(mut attempt) => {
                    let now = Instant::now();
                    call.clock.start(now);
                    self.deadline.set(now, call.clock.left(now));
                    let mut waiting = std::pin::pin!(attempt.wait());
                    std::future::poll_fn(|cx| {
                        if let Poll::Ready(made) = waiting.as_mut().poll(cx) {
                            return Poll::Ready(made);
                        }
                        if down.poll_gone(cx).is_ready() {
                            return Poll::Ready(Err(Failure::DownstreamClosed));
                        }
                        self.deadline.poll(cx).map(|()| Err(Failure::Timeout))
                    })
                    .await?;
                }
            }
        }
    }

    /// Makes a connection of HTTP/2 for this request and others.
    async fn make(
        &mut self,
        maker: Maker,
        cluster: &Cluster,
        target: &Target,
        down: &mut Side<'_>,
    ) -> Result<Lease, Failure> {
        let path = self.path;
        let making = async {
            // An endpoint may always have one, however many there are to the others.
            let counted = Counted::begin_surely(cluster);
            let conn = upstream::connect(path, cluster, target, Inside::Http2, counted).await?;
            let peer = conn.principal();
            let most = cluster.spec.requests_per_connection.map_or(u32::MAX, std::num::NonZero::get);
            let opened = path.multiplex.open(&maker, (conn, peer), most, cluster.spec.connect_timeout).await;
            // Who is said to have a proxy beside it may have lost it, or not have it yet.
            let is_other = opened.as_ref().is_err_and(|failure| !failure.is_connect());
            if is_other && !self.speaks_h2(cluster) {
                path.multiplex.take_for_text(&target.way);
                return Err(Failure::UpstreamProtocol(crate::codec::Malformed::Frames));
            }
            opened
        };
        let mut making = std::pin::pin!(making);
        let made = std::future::poll_fn(|cx| {
            if let Poll::Ready(made) = making.as_mut().poll(cx) {
                return Poll::Ready(Some(made));
            }
            down.poll_gone(cx).map(|()| None)
        })
        .await;
        let Some(made) = made else { return Err(Failure::DownstreamClosed) };
        if let Err(failure) = &made {
            path.multiplex.failed(&maker, *failure);
        }
        made
    }

    /// Counts an idle connection at this cluster, which may be another than the one that made it; if this one may have no
    /// more, it is kept for the other.
    fn adopt(&self, cluster: &Cluster, target: &Target, mut conn: Conn) -> Option<Conn> {
        if conn.counted.as_ref().is_some_and(|counted| counted.is_of(cluster)) {
            return Some(conn);
        }
        let Some(counted) = Counted::begin(cluster) else {
            self.path.pool.give(&target.way, conn);
            return None;
        };
        conn.counted = Some(counted.at(target.endpoint.as_ref()));
        Some(conn)
    }

    /// Waits until the cluster has an idle connection or may have a new one, as long as the request may take.
    async fn wait_for_room(
        &mut self,
        call: &mut Call<'_, '_>,
        target: &Target,
        down: &mut Side<'_>,
    ) -> Result<Found, Failure> {
        let (cluster, now) = (call.cluster, Instant::now());
        call.clock.start(now);
        self.deadline.set(now, call.clock.left(now));
        let mut place = cluster.usage.waiting.enter();
        std::future::poll_fn(|cx| {
            if let Some(found) = self.look(cluster, target) {
                return Poll::Ready(Ok(found));
            }
            place.wait(cx.waker());
            if let Some(found) = self.look(cluster, target) {
                return Poll::Ready(Ok(found));
            }
            if down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::DownstreamClosed));
            }
            self.deadline.poll(cx).map(|()| Err(Failure::Timeout))
        })
        .await
    }

    /// Looks for an idle connection of the cluster to any endpoint, kept by any thread, and for room for another.
    fn look(&self, cluster: &Cluster, target: &Target) -> Option<Found> {
        if let Some(counted) = Counted::begin(cluster) {
            return Some(Found::Room(counted));
        }
        let all = cluster.endpoints.iter().flat_map(|endpoints| endpoints.candidates());
        let of_cluster = all.map(|endpoint| Target::at(cluster, endpoint, &self.arrival));
        std::iter::once(target.clone()).chain(of_cluster).find_map(|target| {
            let conn = self.path.pool.take_anywhere(&target.way)?;
            let conn = self.adopt(cluster, &target, conn)?;
            Some(Found::Idle(conn, target))
        })
    }

    /// A new connection, unless the client goes meanwhile.
    async fn connect(
        &mut self,
        cluster: &Cluster,
        target: &Target,
        counted: Counted,
        down: &mut Side<'_>,
    ) -> Result<Conn, Failure> {
        let mut connecting = std::pin::pin!(upstream::connect(self.path, cluster, target, Inside::Http1, counted));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            down.poll_gone(cx).map(|()| Err(Failure::DownstreamClosed))
        })
        .await
    }
}
