//! Identities that peers have proved, as counters know them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::spiffe::SpiffeId;
use foldhash::fast::FixedState;

/// What the other end of a connection has proved to be; the default has proved nothing, as in clear text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Principal(u32);

impl Principal {
    /// One of those for whom there is no room.
    const UNNAMED: Principal = Principal(u32::MAX);

    /// Whether anything is proved: the connection is by mutual TLS.
    #[must_use]
    pub fn is_proved(self) -> bool {
        self != Principal::default()
    }
}

/// More identities than this are never told apart by counters while the proxy runs. Rules see every identity.
const MAX_KNOWN: usize = 16 * 1024;

/// All identities that have been seen, so that a number means the same for ever.
#[derive(Debug, Default)]
pub struct Principals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Arc<SpiffeId>, Principal, FixedState>,
    all: Vec<Arc<SpiffeId>>,
}

impl Principals {
    /// The identity as counters know it.
    #[must_use]
    pub fn of(&self, id: &Arc<SpiffeId>) -> Principal {
        let mut known = self.lock();
        if let Some(number) = known.numbers.get(id) {
            return *number;
        }
        if known.all.len() >= MAX_KNOWN {
            return Principal::UNNAMED;
        }
        known.all.push(Arc::clone(id));
        // Numbers begin at one; there are few.
        let number = Principal(u32::try_from(known.all.len()).unwrap_or(u32::MAX));
        known.numbers.insert(Arc::clone(id), number);
        number
    }

    /// The identity itself; `None` if nothing is proved, or there was no room for it.
    #[must_use]
    pub fn id(&self, principal: Principal) -> Option<Arc<SpiffeId>> {
        let at = usize::try_from(principal.0).ok()?.checked_sub(1)?;
        self.lock().all.get(at).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_number_for_ever_and_those_without_room_are_proved_all_the_same() {
        let principals = Principals::default();
        let id = |nth: usize| Arc::new(format!("spiffe://cluster.local/ns/a/sa/b{nth}").parse().expect("an identity"));
        let first = principals.of(&id(0));
        assert!(first.is_proved());
        assert_eq!(principals.of(&id(0)), first);
        for nth in 1..MAX_KNOWN {
            assert_ne!(principals.of(&id(nth)), first);
        }
        let late = principals.of(&id(MAX_KNOWN));
        assert!(late.is_proved());
        assert_eq!(principals.id(late), None);
        assert_eq!(principals.id(first), Some(id(0)));
        assert_eq!(principals.id(Principal::default()), None);
    }
}
