//! How many connections there may be at once, in all and from one address.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::metrics::limits::Limit;

/// Sources are counted in so many places, so that threads that accept do not wait for each other.
const SHARDS: usize = 16;

/// Counts connections, and refuses those that are too many.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    most_of_source: u32,
    open: AtomicUsize,
    hasher: RandomState,
    sources: [Mutex<HashMap<IpAddr, u32, RandomState>>; SHARDS],
}

impl Admission {
    /// So many at once, and so many of one source.
    #[must_use]
    pub(crate) fn new(most: usize, most_of_source: u32) -> Arc<Self> {
        let (hasher, sources) = (RandomState::default(), Default::default());
        Arc::new(Admission { most, most_of_source, open: AtomicUsize::new(0), hasher, sources })
    }

    /// Connections that are open.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Lets a connection in, and counts it as long as its place is kept. Its source is counted if one is given.
    ///
    /// # Errors
    ///
    /// There are too many: of all, or of its source.
    pub(crate) fn admit(self: &Arc<Self>, source: Option<IpAddr>) -> Result<Place, Limit> {
        let taken =
            self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < self.most).then_some(open + 1));
        if taken.is_err() {
            return Err(Limit::Connections);
        }
        let mut place = Place { of: Arc::clone(self), source: None };
        let Some(source) = source.map(network) else { return Ok(place) };
        let mut sources = self.shard(source);
        let count = sources.entry(source).or_default();
        if *count >= self.most_of_source {
            return Err(Limit::ConnectionsOfSource);
        }
        *count += 1;
        drop(sources);
        place.source = Some(source);
        Ok(place)
    }

    fn shard(&self, source: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32, RandomState>> {
        let at = self.hasher.hash_one(source) as usize % SHARDS;
        self.sources[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// A connection's place; dropped with it.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<Admission>,
    source: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::Relaxed);
        let Some(source) = self.source else { return };
        let mut sources = self.of.shard(source);
        if let Some(count) = sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let admission = Admission::new(3, 2);
        let first = admission.admit(address("10.0.0.1")).expect("the first");
        let _second = admission.admit(address("10.0.0.1")).expect("the second");
        assert_eq!(admission.admit(address("10.0.0.1")).err(), Some(Limit::ConnectionsOfSource));
        assert_eq!(admission.open(), 2, "what is refused is not counted");
        let _third = admission.admit(address("10.0.0.2")).expect("of another source");
        assert_eq!(admission.admit(None).err(), Some(Limit::Connections));
        drop(first);
        let _fourth = admission.admit(address("10.0.0.1")).expect("in its place");
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_an_ipv4_address_written_as_ipv6_is_itself() {
        let admission = Admission::new(9, 1);
        let _one = admission.admit(address("fd00::1")).expect("the first");
        assert!(admission.admit(address("fd00::2")).is_err());
        let _other = admission.admit(address("fd00:0:0:1::1")).expect("of another network");
        let _mapped = admission.admit(address("::ffff:10.0.0.1")).expect("the first");
        assert!(admission.admit(address("10.0.0.1")).is_err());
    }

    #[test]
    fn sources_without_connections_are_forgotten() {
        let admission = Admission::new(9, 9);
        drop(admission.admit(address("10.0.0.1")).expect("a place"));
        assert!(admission.sources.iter().all(|shard| shard.lock().expect("unpoisoned").is_empty()));
    }
}
