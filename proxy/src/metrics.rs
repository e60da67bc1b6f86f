//! The `istio_requests_total` family: counters per kind of traffic, found once and then only added to.

mod bounded;
mod clear_text;
mod clusters;
mod detections;
mod encode;
pub(crate) mod handshakes;
mod labels;
pub(crate) mod limits;
mod listeners;
mod path;
mod refused;
mod series;
mod share;
mod upgrades;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use engine::tables::{ClusterSpec, Endpoint, Tables};
use foldhash::fast::FixedState;
use runtime::svid::{self, Svids};

use self::bounded::{Bounded, Room};
pub use self::clear_text::ClearText;
pub use self::labels::Identity;
use self::labels::Proved;
pub use self::listeners::{Accepted, Listeners};
pub use self::path::PathMetrics;
pub use self::series::{Counted, HttpSeries, TcpSeries};
use crate::admission::Admission;
use crate::frames::Cut;
use crate::headers::Edge;
use crate::peers::{PeerId, Peers};
use crate::principals::{Principal, Principals};

/// Kinds of traffic beyond this are counted together, unless told otherwise.
pub const MAX_SERIES: usize = 1000;
/// A thread looks up at most so many kinds without the shared map.
const MAX_NEAR: usize = 1024;

/// All counters of the data path.
pub struct Metrics {
    /// Tells the counters of one data path from another's in what a thread remembers.
    serial: u64,
    identity: Identity,
    tables: Arc<ArcSwap<Tables>>,
    /// Who connects.
    pub peers: Peers,
    /// Who has proved to be at the other end.
    pub principals: Principals,
    /// Who the proxy itself has proved to be, with mutual TLS.
    svids: Svids,
    /// How TLS handshakes went.
    pub(crate) handshakes: handshakes::Handshakes,
    /// Who connects in clear text.
    pub clear_text: ClearText,
    /// What listeners accept.
    pub listeners: Listeners,
    http: Bounded<HttpSeries>,
    tcp: Bounded<TcpSeries>,
    room: Room,
    /// Look-ups of kinds for which there was no room.
    overflows: AtomicU64,
    /// Connections of HTTP/2 that were cut, by reason.
    cut: [AtomicU64; Cut::ALL.len()],
    /// How often peers have met a limit.
    pub(crate) limits: limits::Limits,
    /// Connections of peers.
    pub(crate) admission: Arc<Admission>,
    /// What connections were taken for by their first bytes.
    pub(crate) detections: detections::Detections,
    /// Connections that have become something else than HTTP.
    pub(crate) upgrades: upgrades::Upgrades,
    /// Connections that were closed unserved.
    pub(crate) refused: refused::Refused,
}

/// What tells one kind of traffic from another.
#[derive(Debug, Clone, Copy)]
pub struct Kind<'a> {
    /// Where it came in.
    pub edge: Edge,
    /// Who sent it, if it is inbound.
    pub source: PeerId,
    /// What the other end has proved to be by mutual TLS: who sent it, if it is inbound, else whom it went to.
    pub principal: Principal,
    /// The cluster it went to.
    pub cluster: Option<&'a Arc<ClusterSpec>>,
    /// The endpoint it went to.
    pub endpoint: Option<&'a Arc<Endpoint>>,
    /// What it spoke.
    pub protocol: Protocol,
    /// The status of the answer.
    pub status: u16,
    /// Envoy's flag for the failure.
    pub flag: &'static str,
}

/// What traffic speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC, with the status of the call if it ended with one.
    Grpc(Option<u8>),
    /// Opaque bytes.
    Tcp,
}

/// A kind by its parts' addresses; the parts are kept beside it, so that no address is used again.
type NearKey = (u64, Edge, PeerId, Principal, usize, usize, Protocol, u16, &'static str);
type NearValue = (Option<Arc<ClusterSpec>>, Option<Arc<Endpoint>>, Arc<HttpSeries>);

thread_local! {
    static NEAR: RefCell<HashMap<NearKey, NearValue, FixedState>> = const { RefCell::new(HashMap::with_hasher(FixedState::with_seed(0))) };
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Metrics {
    /// Counters that are all at zero; those of clusters are in their tables. There are never more than `max_series` kinds.
    #[must_use]
    pub fn new(identity: Identity, tables: Arc<ArcSwap<Tables>>, max_series: usize) -> Arc<Self> {
        Metrics::with(identity, svid::channel().1, tables, max_series, Admission::new(usize::MAX, u32::MAX))
    }

    /// As [`Metrics::new`], with what admits connections.
    #[must_use]
    pub(crate) fn with(
        identity: Identity,
        svids: Svids,
        tables: Arc<ArcSwap<Tables>>,
        max_series: usize,
        admission: Arc<Admission>,
    ) -> Arc<Self> {
        Arc::new(Metrics {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            identity,
            tables,
            peers: Peers::default(),
            principals: Principals::default(),
            svids,
            handshakes: handshakes::Handshakes::default(),
            clear_text: ClearText::default(),
            listeners: Listeners::default(),
            http: Bounded::default(),
            tcp: Bounded::default(),
            room: Room::new(max_series),
            overflows: AtomicU64::new(0),
            cut: Default::default(),
            limits: limits::Limits::default(),
            admission,
            detections: detections::Detections::default(),
            upgrades: upgrades::Upgrades::default(),
            refused: refused::Refused::default(),
        })
    }

    /// Counts a client's connection of HTTP/2 that was cut.
    pub fn cut(&self, reason: Cut) {
        let counted = self.cut.iter().zip(Cut::ALL).find(|(_, of)| *of == reason);
        if let Some((count, _)) = counted {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one request; takes no lock and formats nothing when its kind was seen by this thread before.
    pub fn request(&self, kind: &Kind<'_>, counted: &Counted) {
        let key = (
            self.serial,
            kind.edge,
            kind.source,
            kind.principal,
            kind.cluster.map_or(0, |cluster| Arc::as_ptr(cluster).addr()),
            kind.endpoint.map_or(0, |endpoint| Arc::as_ptr(endpoint).addr()),
            kind.protocol,
            kind.status,
            kind.flag,
        );
        let seen = NEAR.try_with(|near| {
            let mut near = near.borrow_mut();
            if let Some((_, _, series)) = near.get(&key) {
                series.observe(counted);
                return;
            }
            let series = self.series(&self.http, kind);
            series.observe(counted);
            if near.len() >= MAX_NEAR {
                near.clear();
            }
            near.insert(key, (kind.cluster.cloned(), kind.endpoint.cloned(), series));
        });
        if seen.is_err() {
            self.series(&self.http, kind).observe(counted);
        }
    }

    /// The counters of one kind of opaque traffic.
    #[must_use]
    pub fn tcp_series(&self, kind: &Kind<'_>) -> Arc<TcpSeries> {
        self.series(&self.tcp, kind)
    }

    fn series<S: Default>(&self, family: &Bounded<S>, kind: &Kind<'_>) -> Arc<S> {
        let source = self.peers.who(kind.source);
        let proved = kind.principal.is_proved().then(|| (self.svids.id(), self.principals.id(kind.principal)));
        let proved = proved.as_ref().map(|(own, other)| Proved { own: own.as_ref(), other: other.as_deref() });
        let labels = labels::of(&self.identity, kind, source.as_deref(), proved);
        let (series, is_over) = family.find(labels, &self.room);
        if is_over && self.overflows.fetch_add(1, Ordering::Relaxed) == 0 {
            let limit = self.room.limit();
            tracing::warn!(
                limit,
                "there is no room for another series of metrics; further kinds of traffic are counted together under `overflow`"
            );
        }
        series
    }

    /// Takes over who is where, from the endpoints in force.
    pub fn learn_peers(&self) {
        self.peers.learn(&self.tables.load());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
