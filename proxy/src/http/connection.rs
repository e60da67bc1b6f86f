//! The connection that a request is sent on: one that is idle, else a new one, else the next that is free.

use std::task::Poll;

use engine::tables::Cluster;
use tokio::time::Instant;

use super::Session;
use super::forward::Call;
use crate::conn::{Conn, Counted};
use crate::failure::Failure;
use crate::report::Report;
use crate::upstream::{self, Pending, Target};

/// Endpoints that are tried before a request fails because none can be connected to.
const CONNECTS: usize = 3;

/// What there is for a request that waits.
enum Found {
    /// A connection that is idle.
    Idle(Conn, Target),
    /// Room for a new one.
    Room(Counted),
}

impl Session<'_> {
    /// A connection to an endpoint of the cluster, and whether it was used before.
    pub(super) async fn connection(
        &mut self,
        call: &mut Call<'_, '_>,
        report: &mut Report,
        may_reuse: bool,
        surely: bool,
    ) -> Result<(Conn, Target, bool), Failure> {
        let cluster = call.cluster;
        let connects = if call.tries.counts_connects() { 1 } else { CONNECTS };
        let mut tried = 0;
        loop {
            let target = upstream::pick(cluster, &self.arrival, call.tries.tried(), || self.path.now())?;
            report.target = Some(target.clone());
            if may_reuse
                && let Some(conn) = self.path.pool.take(target.address, surely)
                && let Some(conn) = self.adopt(cluster, &target, conn)
            {
                return Ok((conn, target, true));
            }
            let pending = Pending::at(cluster)?;
            let counted = match Counted::begin(cluster) {
                Some(counted) => counted,
                None => match Box::pin(self.wait_for_room(call, &target)).await? {
                    Found::Idle(conn, target) => {
                        report.target = Some(target.clone());
                        return Ok((conn, target, true));
                    }
                    Found::Room(counted) => counted,
                },
            };
            tried += 1;
            let connected = Box::pin(self.connect(cluster, &target, counted)).await;
            drop(pending);
            match connected {
                Ok(conn) => return Ok((conn, target, false)),
                Err(failure) => {
                    if failure == Failure::UpstreamConnect {
                        upstream::observe(cluster, &target, true, || self.path.now());
                    }
                    // Nothing has been sent: another endpoint may do better.
                    if failure != Failure::UpstreamConnect || tried >= connects || target.endpoint.is_none() {
                        call.tries.tries(&target);
                        return Err(failure);
                    }
                }
            }
        }
    }

    /// Counts an idle connection at this cluster, which may be another than the one that made it; if this one may have no
    /// more, it is kept for the other.
    fn adopt(&self, cluster: &Cluster, target: &Target, mut conn: Conn) -> Option<Conn> {
        if conn.counted.as_ref().is_some_and(|counted| counted.is_of(cluster)) {
            return Some(conn);
        }
        let Some(counted) = Counted::begin(cluster) else {
            self.path.pool.give(target.address, conn);
            return None;
        };
        conn.counted = Some(counted.at(target.endpoint.as_ref()));
        Some(conn)
    }

    /// Waits until the cluster has an idle connection or may have a new one, as long as the request may take.
    async fn wait_for_room(&mut self, call: &mut Call<'_, '_>, target: &Target) -> Result<Found, Failure> {
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
            if self.conn.poll_gone(cx).is_ready() {
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
        let of_cluster = all.map(|endpoint| Target { address: endpoint.address, endpoint: Some(endpoint.clone()) });
        std::iter::once(target.clone()).chain(of_cluster).find_map(|target| {
            let conn = self.path.pool.take_anywhere(target.address)?;
            let conn = self.adopt(cluster, &target, conn)?;
            Some(Found::Idle(conn, target))
        })
    }

    /// A new connection, unless the client goes meanwhile.
    async fn connect(&mut self, cluster: &Cluster, target: &Target, counted: Counted) -> Result<Conn, Failure> {
        let mut connecting = std::pin::pin!(upstream::connect(self.path.connector, cluster, target, counted));
        let down = &mut self.conn;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            down.poll_gone(cx).map(|()| Err(Failure::DownstreamClosed))
        })
        .await
    }
}
