//! Connections of HTTP/2 to upstreams: one per endpoint and thread, shared by all requests, and more only when the peer
//! allows no more streams on it.

mod drive;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;
use h2::client::SendRequest;
use runtime::Tasks;
use tokio::sync::watch;

use crate::budget::{Budget, Spent};
use crate::conn::Conn;
use crate::failure::Failure;
use crate::frames::FrameLimits;
use crate::pool::{SHARDS, shard};
use crate::principals::Principal;
use crate::stream::Stream;
use crate::way::Way;

pub(crate) use self::drive::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};

/// A connection without a stream is kept for so long.
const IDLE: Duration = Duration::from_secs(60);

/// All such connections of a data path. Clones are handles on the same ones.
#[derive(Clone)]
pub(crate) struct Multiplex {
    shards: Arc<[Mutex<Shard>; SHARDS]>,
    /// The tasks that drive them.
    pub(crate) tasks: Tasks,
    frames: FrameLimits,
    head: usize,
}

type Shard = HashMap<Way, Place, FixedState>;

/// What there is for one endpoint.
#[derive(Debug, Default)]
struct Place {
    channels: Vec<Arc<Channel>>,
    /// The connection that is being made, for others to wait for.
    making: Option<watch::Receiver<Making>>,
    /// The endpoint does not speak HTTP/2 after all, as far as was seen last.
    is_text: Option<tokio::time::Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Making {
    Going,
    Made,
    Failed(Failure),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Channel {
    send: SendRequest<Spent>,
    budget: Budget,
    active: AtomicU32,
    served: AtomicU32,
    /// How many requests it may have; then it takes no more.
    most: u32,
    is_closed: AtomicBool,
    /// Who has proved to be at the other end.
    peer: Principal,
}

/// A stream's share of a connection: it counts as active as long as the stream lives.
#[derive(Debug)]
pub(crate) struct Lease {
    channel: Arc<Channel>,
    /// Whether the connection had served a request before.
    pub(crate) is_used: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.channel.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What there is for a request.
pub(crate) enum Offer {
    /// A connection with room for a stream.
    Lease(Lease),
    /// Somebody makes one.
    Wait(Attempt),
    /// This request makes one.
    Make(Maker),
}

/// A connection that somebody else makes.
pub(crate) struct Attempt(watch::Receiver<Making>);

impl Attempt {
    /// Waits until it has been made.
    ///
    /// # Errors
    ///
    /// It could not be made.
    pub(crate) async fn wait(&mut self) -> Result<(), Failure> {
        // One that is given up is made again by somebody who waited.
        let Ok(made) = self.0.wait_for(|making| *making != Making::Going).await else { return Ok(()) };
        match *made {
            Making::Failed(failure) => Err(failure),
            Making::Going | Making::Made => Ok(()),
        }
    }
}

/// The duty to make a connection; when it is dropped, it passes to the next.
pub(crate) struct Maker {
    way: Way,
    shard: usize,
    making: watch::Sender<Making>,
}

impl Lease {
    /// Who has proved to be at the other end.
    pub(crate) fn peer(&self) -> Principal {
        self.channel.peer
    }

    /// What the connection may still have waiting for its peer.
    pub(crate) fn budget(&self) -> Budget {
        self.channel.budget.clone()
    }

    fn on(channel: &Arc<Channel>) -> Self {
        channel.active.fetch_add(1, Ordering::Relaxed);
        let is_used = channel.served.fetch_add(1, Ordering::Relaxed) > 0;
        Lease { channel: Arc::clone(channel), is_used }
    }

    /// Sends a request's head.
    ///
    /// # Errors
    ///
    /// The connection takes no more: the upstream has not seen the request.
    pub(crate) fn send(self, request: http::Request<()>, ends: bool) -> Result<Stream, h2::Error> {
        let mut send = self.channel.send.clone();
        let sent = send.send_request(request, ends);
        if sent.is_err() {
            self.channel.is_closed.store(true, Ordering::Relaxed);
        }
        let (response, body) = sent?;
        Ok(Stream::of_upstream(response, body, self))
    }
}

impl Channel {
    fn has_room(&self) -> bool {
        let most = u32::try_from(self.send.current_max_send_streams()).unwrap_or(u32::MAX);
        self.active.load(Ordering::Relaxed) < most
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.served.load(Ordering::Relaxed) < self.most
    }
}

impl Multiplex {
    /// None yet. Heads of responses are bounded by `head` bytes.
    pub(crate) fn new(frames: FrameLimits, head: usize) -> Self {
        Multiplex { shards: Arc::default(), tasks: Tasks::new(), frames, head }
    }

    /// A share of a connection that is there, and has room, or as much as it will have if there may be no other.
    pub(crate) fn kept(&self, way: &Way, may_make: bool) -> Option<Lease> {
        let shard = self.shard(shard());
        let open = || shard.get(way).into_iter().flat_map(|place| &place.channels).filter(|channel| channel.is_open());
        if let Some(channel) = open().find(|channel| channel.has_room()) {
            return Some(Lease::on(channel));
        }
        // The codec lets a stream wait until the peer allows one more.
        let least = || open().min_by_key(|channel| channel.active.load(Ordering::Relaxed));
        if may_make { None } else { least().map(Lease::on) }
    }

    /// What there is for a request to an endpoint that has no connection for it. With `may_make` a full connection means another.
    pub(crate) fn offer(&self, way: &Way, may_make: bool) -> Offer {
        if let Some(lease) = self.kept(way, may_make) {
            return Offer::Lease(lease);
        }
        let nth = shard();
        let mut shard = self.shard(nth);
        let place = shard.entry(way.clone()).or_default();
        if let Some(making) = &place.making
            && making.has_changed().is_ok()
            && *making.borrow() == Making::Going
        {
            return Offer::Wait(Attempt(making.clone()));
        }
        let (making, seen) = watch::channel(Making::Going);
        place.making = Some(seen);
        Offer::Make(Maker { way: way.clone(), shard: nth, making })
    }

    /// Makes HTTP/2 of a new connection, and keeps it for others until it closes.
    ///
    /// # Errors
    ///
    /// The endpoint does not speak HTTP/2, or not in time.
    pub(crate) async fn open(
        &self,
        maker: &Maker,
        (conn, peer): (Conn, Principal),
        most: u32,
        wait: Duration,
    ) -> Result<Lease, Failure> {
        let opened = tokio::time::timeout(wait, drive::open(self, maker, (conn, peer), most)).await;
        let (channel, driver) = opened.unwrap_or(Err(Failure::UpstreamConnect))?;
        let lease = Lease::on(&channel);
        let mut shard = self.shard(maker.shard);
        shard.entry(maker.way.clone()).or_default().channels.push(Arc::clone(&channel));
        drop(shard);
        self.tasks.spawn_until_cancelled("upstream connection", driver);
        maker.making.send_replace(Making::Made);
        Ok(lease)
    }

    /// Tells those who wait that no connection could be made.
    pub(crate) fn failed(&self, maker: &Maker, failure: Failure) {
        maker.making.send_replace(Making::Failed(failure));
    }

    /// Whether the endpoint was found not to speak HTTP/2 a while ago.
    pub(crate) fn is_text(&self, way: &Way) -> bool {
        const FORGOTTEN: Duration = Duration::from_secs(30);
        let shard = self.shard(shard());
        shard.get(way).and_then(|place| place.is_text).is_some_and(|since| since.elapsed() < FORGOTTEN)
    }

    /// Takes down that the endpoint does not speak HTTP/2.
    pub(crate) fn take_for_text(&self, way: &Way) {
        self.shard(shard()).entry(way.clone()).or_default().is_text = Some(tokio::time::Instant::now());
    }

    /// Gives no more requests to the connections that there are; what runs on them goes on.
    pub(crate) fn retire(&self) {
        for nth in 0..SHARDS {
            let shard = self.shard(nth);
            for channel in shard.values().flat_map(|place| &place.channels) {
                channel.is_closed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Number of open connections.
    pub(crate) fn len(&self) -> usize {
        let open = |shard: usize| self.shard(shard).values().map(|place| place.channels.len()).sum::<usize>();
        (0..SHARDS).map(open).sum()
    }

    /// Forgets an endpoint's connections that are closed, and the endpoint when it has none.
    fn forget_closed(&self, nth: usize, way: &Way) {
        let mut shard = self.shard(nth);
        let Some(place) = shard.get_mut(way) else { return };
        place.channels.retain(|channel| channel.is_open());
        if place.channels.is_empty()
            && place.is_text.is_none()
            && place.making.take_if(|making| making.has_changed().is_err()).is_none()
        {
            shard.remove(way);
        }
    }

    fn shard(&self, nth: usize) -> MutexGuard<'_, Shard> {
        let shard = self.shards.get(nth).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Multiplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Multiplex({})", self.len())
    }
}
