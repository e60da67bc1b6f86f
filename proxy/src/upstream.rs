//! Which endpoint gets a request or connection, and the connection to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::balance;
use engine::tables::{Cluster, Discovery, Endpoint, Usage, take_one};
use tokio::time::Instant;

use crate::arrival::Arrival;
use crate::conn::{Conn, Counted};
use crate::data::DataPath;
use crate::failure::Failure;
use crate::origdst::canonical;
use crate::tls::inside::Inside;
use crate::way::{Target, Way};

/// Picks an endpoint of the cluster that is not among `tried` if there is one, or the connection's original destination if the cluster says so.
///
/// # Errors
///
/// There is none, or it is the proxy itself.
pub(crate) fn pick(
    cluster: &Cluster,
    arrival: &Arrival,
    tried: &[SocketAddr],
    now: impl FnOnce() -> u64,
) -> Result<Target, Failure> {
    if cluster.spec.discovery == Discovery::OriginalDestination {
        // Nobody was redirected: connecting there would come back here for ever.
        if arrival.destination == canonical(arrival.local) {
            return Err(Failure::Loop);
        }
        return Ok(Target { way: Way { address: arrival.destination, tls: None }, endpoint: None });
    }
    let endpoints = cluster.endpoints.as_deref().ok_or(Failure::NoEndpoints)?;
    let endpoint =
        balance::pick_other(endpoints, cluster.spec.lb, tried, now, &mut dice).ok_or(Failure::NoEndpoints)?;
    Ok(Target::at(cluster, endpoint, arrival))
}

/// The dice that the engine is given.
pub(crate) fn dice() -> u64 {
    rand::random()
}

/// Makes the new connection that has been counted to the place, for what it will carry. A place that takes none is left
/// out for a while.
///
/// # Errors
///
/// It cannot be made in time, or the other end is not who it should be.
pub(crate) async fn connect(
    path: &DataPath,
    cluster: &Cluster,
    target: &Target,
    inside: Inside,
    counted: Counted,
) -> Result<Conn, Failure> {
    let begun = Instant::now();
    let made = connect_within(path, target, inside, cluster.spec.connect_timeout).await;
    if made.as_ref().is_err_and(|failure| failure.is_endpoints()) {
        rest(cluster, target, begun.elapsed(), path.now());
    }
    let counter = if made.is_ok() { &cluster.usage.connected } else { &cluster.usage.connects_failed };
    counter.fetch_add(1, Ordering::Relaxed);
    if let (Err(_), Some(endpoint)) = (&made, &target.endpoint) {
        endpoint.load.failed.fetch_add(1, Ordering::Relaxed);
    }
    let mut conn = made?;
    conn.counted = Some(counted.at(target.endpoint.as_ref()));
    Ok(conn)
}

async fn connect_within(path: &DataPath, target: &Target, inside: Inside, timeout: Duration) -> Result<Conn, Failure> {
    let deadline = Instant::now() + timeout;
    let mut conn = Conn::new(path.connector.connect(target.way.address, timeout).await?);
    if target.way.tls.is_some() {
        path.tls.connect(&mut conn, &target.way, inside, deadline).await.map_err(Failure::UpstreamTls)?;
    }
    Ok(conn)
}

/// Counts a request as active at its cluster while it lives, however often it is tried.
#[derive(Debug)]
pub(crate) struct Active(Arc<Usage>);

impl Active {
    /// One more.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(crate) fn at(cluster: &Cluster) -> Result<Self, Failure> {
        if take_one(&cluster.usage.requests, cluster.spec.limits.requests) {
            return Ok(Active(Arc::clone(&cluster.usage)));
        }
        cluster.usage.requests_refused.fetch_add(1, Ordering::Relaxed);
        Err(Failure::Overflow("requests"))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request as waiting for a connection while it lives.
#[derive(Debug)]
pub(crate) struct Pending<'c>(&'c Usage);

impl<'c> Pending<'c> {
    /// One more.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(crate) fn at(cluster: &'c Cluster) -> Result<Self, Failure> {
        if take_one(&cluster.usage.pending, cluster.spec.limits.pending) {
            return Ok(Pending(&cluster.usage));
        }
        cluster.usage.pending_refused.fetch_add(1, Ordering::Relaxed);
        Err(Failure::Overflow("requests that wait for a connection"))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes down how a request went at an endpoint; too many failures in a row eject it.
pub(crate) fn observe(cluster: &Cluster, target: &Target, is_error: bool, now: impl FnOnce() -> u64) {
    let Some(outlier) = &cluster.spec.outlier else { return };
    let (Some(endpoints), Some(endpoint)) = (&cluster.endpoints, &target.endpoint) else { return };
    if endpoints.ejections.observe(outlier, (endpoint, endpoints.all()), is_error, now) {
        tracing::info!(cluster = %cluster.spec.name, address = %target.way.address, "an endpoint is ejected for a while");
    }
}

/// Endpoints that are tried before a request or an opaque connection fails because none can be connected to.
pub(crate) const CONNECTS: usize = 3;
/// An endpoint that takes nothing is left out for so long, or for as long as it took to say so, whatever its policy.
const REST: Duration = Duration::from_secs(1);

/// Leaves an endpoint out for a while that could not be connected to, or refused a request unseen after this time.
pub(crate) fn rest(cluster: &Cluster, target: &Target, took: Duration, now: u64) {
    if let (Some(endpoints), Some(endpoint)) = (&cluster.endpoints, &target.endpoint) {
        endpoints.ejections.rest(endpoint, now, took.max(REST));
    }
}

/// Counts a request, or an opaque connection, as in flight at its endpoint while it lives.
#[derive(Debug)]
pub(crate) struct InFlight(Option<Arc<Endpoint>>);

impl InFlight {
    /// One more.
    #[must_use]
    pub(crate) fn at(target: &Target) -> Self {
        if let Some(endpoint) = &target.endpoint {
            endpoint.load.in_flight.fetch_add(1, Ordering::Relaxed);
            endpoint.load.total.fetch_add(1, Ordering::Relaxed);
        }
        InFlight(target.endpoint.clone())
    }

    /// It has failed at the endpoint.
    pub(crate) fn failed(&self) {
        if let Some(endpoint) = &self.0 {
            endpoint.load.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.0 {
            endpoint.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
