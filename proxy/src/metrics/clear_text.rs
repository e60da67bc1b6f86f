//! Who comes in clear text to ports where mutual TLS could be asked for, so that an operator knows beforehand whom STRICT would
//! cut off.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use api::messages::{ClearTextCaller, ClearTextCallers};
use foldhash::fast::FixedState;
use runtime::svid::report::stamp;

use crate::peers::{PeerId, Peers};

/// Pairs of a caller's address and a port that are told apart; further callers are only counted.
const MAX_CALLERS: usize = 4096;

/// Connections in clear text by caller and port. Costs a lock per such connection, and nothing per request.
#[derive(Debug, Default)]
pub struct ClearText(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    callers: HashMap<(IpAddr, u16), Seen, FixedState>,
    others: u64,
}

#[derive(Debug)]
struct Seen {
    source: PeerId,
    connections: u64,
    last: SystemTime,
}

impl ClearText {
    /// Counts a connection from an address to a port.
    pub(crate) fn count(&self, address: IpAddr, source: PeerId, port: u16, now: SystemTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = known.callers.len() < MAX_CALLERS;
        match known.callers.get_mut(&(address, port)) {
            Some(seen) => {
                seen.connections += 1;
                (seen.source, seen.last) = (source, now);
            }
            None if has_room => {
                known.callers.insert((address, port), Seen { source, connections: 1, last: now });
            }
            None => known.others += 1,
        }
    }

    /// All of them, by port and address.
    #[must_use]
    pub fn callers(&self, peers: &Peers) -> ClearTextCallers {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(&(IpAddr, u16), &Seen)> = known.callers.iter().collect();
        all.sort_by_key(|((address, port), _)| (*port, *address));
        let callers = all.into_iter().map(|((address, port), seen)| {
            let who = peers.who(seen.source).unwrap_or_default();
            ClearTextCaller {
                address: address.to_string(),
                workload: who.workload.to_string(),
                namespace: who.namespace.to_string(),
                port: *port,
                connections: seen.connections,
                last_seen: stamp(seen.last),
            }
        });
        ClearTextCallers { callers: callers.collect(), others: known.others }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn callers_are_told_apart_up_to_a_bound_and_counted_beyond_it() {
        let clear_text = ClearText::default();
        let count = |nth: u32, port| {
            clear_text.count(Ipv4Addr::from(nth).into(), PeerId::default(), port, SystemTime::UNIX_EPOCH);
        };
        count(2, 9080);
        count(1, 9080);
        count(2, 9080);
        count(2, 80);
        let told = clear_text.callers(&Peers::default());
        let told: Vec<_> = told.callers.iter().map(|it| (it.port, it.address.as_str(), it.connections)).collect();
        assert_eq!(told, [(80, "0.0.0.2", 1), (9080, "0.0.0.1", 1), (9080, "0.0.0.2", 2)]);
        for nth in 0..5000 {
            count(nth, 1);
        }
        let told = clear_text.callers(&Peers::default());
        assert_eq!((told.callers.len(), told.others), (MAX_CALLERS, 5000 - (4096 - 3)));
    }
}
