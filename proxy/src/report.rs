//! What is told of a request or connection after it: counters and a line of the log.

mod note;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::tables::{Cluster, Endpoint};
use tokio::time::Instant;

use crate::access_log::Entry;
use crate::arrival::Arrival;
use crate::data::DataPath;
use crate::failure::Failure;
use crate::headers::Edge;
use crate::metrics::{Counted, Kind, Protocol, TcpSeries};
use crate::peers::PeerId;
use crate::principals::Principal;
use crate::way::Target;

pub(crate) use self::note::{Head, Http1, Note};

/// What happened to one request.
#[derive(Debug)]
pub(crate) struct Report {
    /// When its head was complete.
    pub(crate) begun: Instant,
    /// When the upstream's head was.
    pub(crate) answered: Option<Instant>,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    /// Whether it was not tried again though its route would have it.
    pub(crate) is_retry_exceeded: bool,
    /// Whether a fault made it wait.
    pub(crate) delayed: bool,
    /// Bytes of the request's body.
    pub(crate) request_bytes: u64,
    /// Bytes of the response's body.
    pub(crate) response_bytes: u64,
    /// The cluster it went to.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The place it went to.
    pub(crate) target: Option<Target>,
    /// Who has proved to be there.
    pub(crate) peer: Principal,
    /// The proxy's own address on the connection to it, if lines of the log tell it.
    pub(crate) upstream_local: Option<SocketAddr>,
    /// Endpoints that it was sent to, or was to be.
    pub(crate) attempts: u32,
    /// What a call of gRPC has beside its bytes.
    pub(crate) grpc: Option<Grpc>,
    /// Which rules and policy refused it; empty for none.
    pub(crate) details: String,
}

/// What is told of a call of gRPC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Grpc {
    /// Its status; `None` if the answer ended without.
    pub(crate) status: Option<u8>,
    /// Messages from the client.
    pub(crate) request_messages: u64,
    /// Messages to it.
    pub(crate) response_messages: u64,
}

impl Report {
    /// Nothing has happened yet.
    #[must_use]
    pub(crate) fn new(begun: Instant) -> Self {
        Report {
            begun,
            answered: None,
            status: 0,
            failure: None,
            is_retry_exceeded: false,
            delayed: false,
            request_bytes: 0,
            response_bytes: 0,
            cluster: None,
            target: None,
            peer: Principal::default(),
            upstream_local: None,
            attempts: 0,
            grpc: None,
            details: String::new(),
        }
    }

    fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.target.as_ref().and_then(|target| target.endpoint.as_ref())
    }

    /// Tells it, after the response: adds to counters, and hands a line to the log's thread. Nothing is waited for.
    pub(crate) fn tell(&self, told: &Told<'_>, note: &Note, route: &str) {
        let Told { path, edge, arrival } = *told;
        let duration = Instant::now().duration_since(self.begun);
        if let Some(failure) = self.failure {
            path.metrics.limits.failed(failure);
        }
        let flag = match self.failure {
            Some(failure) if self.is_retry_exceeded => failure.flag_after_retries(),
            Some(failure) => failure.flag(),
            None if self.is_retry_exceeded => "URX",
            None if self.delayed => "DI",
            None => "-",
        };
        let kind = Kind {
            edge,
            source: source(path, edge, arrival),
            principal: principal(edge, arrival, self.peer),
            cluster: self.cluster.as_ref().map(|cluster| &cluster.spec),
            endpoint: self.endpoint(),
            protocol: self.grpc.map_or(Protocol::Http, |grpc| Protocol::Grpc(grpc.status)),
            status: self.status,
            flag,
        };
        let grpc = self.grpc.unwrap_or_default();
        path.metrics.request(
            &kind,
            &Counted {
                duration,
                bytes: (self.request_bytes, self.response_bytes),
                messages: (grpc.request_messages, grpc.response_messages),
            },
        );
        let entry = Entry {
            note,
            duration,
            answered: self.answered.map(|at| at.duration_since(self.begun)),
            status: self.status,
            flag,
            failure: self.failure,
            bytes: (self.request_bytes, self.response_bytes),
            arrival,
            peer: (self.peer, &path.metrics.principals),
            cluster: self.cluster.as_ref().map_or("", |cluster| cluster.spec.name.as_str()),
            upstream: self.target.as_ref().map(|target| target.way.address),
            upstream_local: self.upstream_local,
            attempts: self.attempts,
            route,
            server_name: "",
            grpc_status: grpc.status,
            details: &self.details,
        };
        path.log(&entry);
    }
}

/// Who sent it, where that is somebody else than the proxy's own application.
///
/// Connections last long, and the first of a new workload may come before Pilot has told of it: who was unknown then is
/// looked for again.
fn source(path: &DataPath, edge: Edge, arrival: &Arrival) -> PeerId {
    let unknown = PeerId::default();
    match edge {
        Edge::Inbound if arrival.source == unknown => path.metrics.peers.at(arrival.peer.ip()),
        Edge::Inbound => arrival.source,
        Edge::Outbound | Edge::Gateway => unknown,
    }
}

/// What the other end has proved to be: who sent it, where that is somebody else, and else whom it went to.
fn principal(edge: Edge, arrival: &Arrival, upstream: Principal) -> Principal {
    if edge == Edge::Inbound { arrival.principal } else { upstream }
}

/// Who tells it, of whom.
pub(crate) struct Told<'a> {
    pub(crate) path: &'a DataPath,
    pub(crate) edge: Edge,
    pub(crate) arrival: &'a Arrival,
}

/// What happened to one opaque connection; told when it is dropped.
pub(crate) struct TcpReport<'p> {
    pub(crate) path: &'p DataPath,
    edge: Edge,
    arrival: Arrival,
    /// The cluster that it goes to.
    pub(crate) cluster: Arc<Cluster>,
    target: Option<Target>,
    /// Who has proved to be there.
    pub(crate) peer: Principal,
    begun: Instant,
    series: Option<Arc<TcpSeries>>,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    /// Bytes from the caller, and bytes to it.
    pub(crate) bytes: (u64, u64),
    /// The server that the caller asks for in its ClientHello.
    pub(crate) server_name: Option<Box<str>>,
    /// Whether it is taken for opaque because nobody had said anything.
    pub(crate) was_silent: bool,
    /// Which rules refused it; empty for none.
    pub(crate) details: String,
}

impl<'p> TcpReport<'p> {
    /// A connection that goes to this cluster.
    #[must_use]
    pub(crate) fn new(path: &'p DataPath, (edge, arrival): (Edge, &Arrival), cluster: &Arc<Cluster>) -> Self {
        TcpReport {
            path,
            edge,
            arrival: arrival.clone(),
            cluster: Arc::clone(cluster),
            target: None,
            peer: Principal::default(),
            begun: Instant::now(),
            series: None,
            failure: None,
            bytes: (0, 0),
            server_name: None,
            was_silent: false,
            details: String::new(),
        }
    }

    /// It goes to this place.
    pub(crate) fn reaches(&mut self, target: &Target) {
        self.target = Some(target.clone());
    }

    /// The connection to the place has been made.
    pub(crate) fn opened(&mut self) {
        let series = self.find("-");
        series.opened.fetch_add(1, Ordering::Relaxed);
        self.series = Some(series);
    }

    fn find(&self, flag: &'static str) -> Arc<TcpSeries> {
        let endpoint = self.target.as_ref().and_then(|target| target.endpoint.as_ref());
        let kind = Kind {
            edge: self.edge,
            source: source(self.path, self.edge, &self.arrival),
            principal: principal(self.edge, &self.arrival, self.peer),
            cluster: Some(&self.cluster.spec),
            endpoint,
            protocol: Protocol::Tcp,
            status: 0,
            flag,
        };
        self.path.metrics.tcp_series(&kind)
    }

    /// So many bytes have come from the caller and gone to it so far: what is new of them is counted, as a connection
    /// may last for days.
    pub(crate) fn moved(&mut self, received: u64, sent: u64) {
        if let Some(series) = &self.series {
            let (received_before, sent_before) = std::mem::replace(&mut self.bytes, (received, sent));
            series.received.fetch_add(received - received_before, Ordering::Relaxed);
            series.sent.fetch_add(sent - sent_before, Ordering::Relaxed);
        }
    }
}

impl Drop for TcpReport<'_> {
    fn drop(&mut self) {
        if let Some(failure) = self.failure {
            self.path.metrics.limits.failed(failure);
        }
        let flag = self.failure.map_or("-", Failure::flag);
        let closing = match &self.series {
            Some(series) if flag == "-" => Arc::clone(series),
            _ => self.find(flag),
        };
        if self.series.is_none() {
            closing.opened.fetch_add(1, Ordering::Relaxed);
        }
        closing.closed.fetch_add(1, Ordering::Relaxed);
        let Some(log) = &self.path.access_log else { return };
        let mut note = Note::default();
        note.take_nothing(Some(log));
        let entry = Entry {
            note: &note,
            duration: self.begun.elapsed(),
            answered: None,
            status: 0,
            flag,
            failure: self.failure,
            bytes: self.bytes,
            arrival: &self.arrival,
            peer: (self.peer, &self.path.metrics.principals),
            cluster: self.cluster.spec.name.as_str(),
            upstream: self.target.as_ref().map(|target| target.way.address),
            upstream_local: None,
            attempts: u32::from(self.target.is_some()),
            route: "",
            server_name: self.server_name.as_deref().unwrap_or_default(),
            grpc_status: None,
            details: &self.details,
        };
        self.path.log(&entry);
    }
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl DataPath {
    /// Hands a line to the access log, if there is one.
    fn log(&self, entry: &Entry<'_>) {
        let (Some(log), Some(format)) = (&self.access_log, entry.note.format()) else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            entry.write(format, line);
            log.line(line);
        });
    }
}
