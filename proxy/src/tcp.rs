//! Opaque connections: bytes both ways until both sides have ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use engine::decide::decide_tcp;
use engine::tables::{ClientTls, Cluster, Tables, Tcp, alpn};
use engine::trace::NoTrace;

use crate::arrival::Arrival;
use crate::conn::{Conn, Counted};
use crate::data::DataPath;
use crate::detect::spoken::Spoken;
use crate::detect::{Found, detect, recognise};
use crate::failure::Failure;
use crate::headers::Edge;
use crate::metrics::limits::Limit;
use crate::relay::Relay;
use crate::report::TcpReport;
use crate::tls::inside::Inside;
use crate::upstream::{self, InFlight};

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
    (conn, found): (Conn, Found),
) -> Result<(), Failure> {
    if let Err(refusal) = path.authoriser.admit(&tcp.rbac, &arrival) {
        return path.keep_out(edge, &arrival, refusal);
    }
    let Some(cluster) = decide_tcp(tables, tcp, &mut upstream::dice, &mut NoTrace) else {
        return path.refuse(edge, &arrival, Failure::NoCluster(503));
    };
    let (mut conn, mut found) = (conn, found);
    let known = if cluster.spec.secures_known { tables.tls_to(arrival.destination) } else { None };
    let direct = match known {
        None => None,
        Some(tls) => match Direct::to(tls, &mut conn, &mut found).await {
            Ok(direct) => Some(direct),
            Err(failure) => return path.refuse(edge, &arrival, failure),
        },
    };
    let mut report = TcpReport::new(path, (edge, &arrival), cluster);
    report.server_name = found.hello.and_then(|hello| hello.server_name);
    report.was_silent = found.spoken == Some(Spoken::Silent);
    let idle = tcp.idle_timeout.unwrap_or(path.tcp_idle_timeout);
    relay(report, arrival, conn, (direct, idle)).await
}

/// How an endpoint is called that the caller has chosen by its address.
struct Direct {
    tls: Arc<ClientTls>,
    inside: Inside,
}

/// How long the first bytes of a caller may take where they decide what an endpoint is told to expect.
const FIRST_BYTES: Duration = Duration::from_secs(1);

impl Direct {
    /// Finds out what the endpoint is to be told to expect: what its port is known for, or the first bytes show.
    async fn to(tls: Arc<ClientTls>, conn: &mut Conn, found: &mut Found) -> Result<Self, Failure> {
        let takes = |word: &str| tls.alpn.iter().any(|known| **known == *word);
        if !takes(alpn::HTTP1) {
            return Ok(Direct { tls, inside: Inside::Opaque });
        }
        if found.spoken.is_none() {
            *found = detect(conn, false, Some(FIRST_BYTES)).await?;
        }
        let inside = match found.spoken {
            Some(Spoken::H2c) => Inside::Http2,
            Some(Spoken::Http11 | Spoken::Http10) => Inside::Http1,
            _ if takes(alpn::OPAQUE) => Inside::Opaque,
            // Whatever it is, the port is declared to be HTTP.
            _ => Inside::Http1,
        };
        Ok(Direct { tls, inside })
    }
}

async fn relay(
    mut report: TcpReport<'_>,
    arrival: Arrival,
    mut down: Conn,
    (direct, idle): (Option<Direct>, Duration),
) -> Result<(), Failure> {
    let (path, cluster) = (report.path, Arc::clone(&report.cluster));
    let cluster = &*cluster;
    let (mut up, flight) = match reach(&mut report, &arrival, cluster, direct.as_ref()).await {
        Ok(reached) => reached,
        Err(failure) => {
            report.failure = Some(failure);
            if failure != Failure::NoEndpoints && failure != Failure::Loop {
                down.reset();
            }
            return Err(failure);
        }
    };
    report.peer = up.principal();
    report.opened();
    if report.was_silent {
        // A connection on which nothing is said at all is the relay's to end.
        let speaking = until_one_speaks(path, &arrival, &mut down, &mut up);
        let _ = tokio::time::timeout(idle, speaking).await;
    }
    let mut relay = Relay::new(idle);
    let ended = relay.run(&mut down, &mut up, |received, written| report.moved(received, written)).await;
    if let Err(failure) = ended {
        if failure == Failure::Timeout {
            path.metrics.limits.hit(Limit::IdleTcp);
        }
        if failure != Failure::DownstreamClosed {
            flight.failed();
        }
        report.failure = Some(failure);
    }
    ended
}

/// A connection to an endpoint. Nothing has been sent yet, so where one takes none another is tried.
async fn reach(
    report: &mut TcpReport<'_>,
    arrival: &Arrival,
    cluster: &Cluster,
    direct: Option<&Direct>,
) -> Result<(Conn, InFlight), Failure> {
    let path = report.path;
    let inside = direct.map_or(Inside::Opaque, |direct| direct.inside);
    let (mut tried, mut failed) = (Vec::new(), None);
    loop {
        let mut target = upstream::pick(cluster, arrival, &tried, || path.now())?;
        if let Some(Direct { tls, .. }) = direct {
            target.way.tls = Some(Arc::clone(tls));
        }
        if let Some(failure) = failed
            && (tried.contains(&target.way.address) || tried.len() == upstream::CONNECTS)
        {
            return Err(failure);
        }
        report.reaches(&target);
        let flight = InFlight::at(&target);
        let Some(counted) = Counted::begin(cluster) else {
            cluster.usage.connections_refused.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Overflow("connections"));
        };
        let connected = Box::pin(upstream::connect(path, cluster, &target, inside, counted)).await;
        let is_failure = connected.as_ref().is_err_and(|failure| failure.is_endpoints());
        upstream::observe(cluster, &target, is_failure, || path.now());
        match connected {
            Ok(up) => return Ok((up, flight)),
            Err(failure) => {
                if !failure.is_connect() || target.endpoint.is_none() {
                    return Err(failure);
                }
                tried.push(target.way.address);
                failed = Some(failure);
            }
        }
    }
}

/// Waits for the first byte of either side of a connection that was taken for opaque because it was silent, and tells
/// when it is HTTP after all.
async fn until_one_speaks(path: &DataPath, arrival: &Arrival, down: &mut Conn, up: &mut Conn) {
    std::future::poll_fn(|cx| match (down.poll_read(cx), up.poll_read(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
    if matches!(recognise(down.rx.filled()), Some(Spoken::Http11 | Spoken::Http10 | Spoken::H2c)) {
        path.metrics.detections.count_late_http();
        tracing::debug!(
            destination = %arrival.destination,
            "a connection spoke HTTP later than it was waited for, and is passed as bytes; declare the port's protocol \
             by its name (http-…) or appProtocol"
        );
    }
}
