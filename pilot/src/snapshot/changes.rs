//! Which resources each of the last snapshots changed, so that a proxy compares those and not everything.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::resource::Kind;

/// Snapshots that are remembered. A proxy that lags by more compares everything.
const REMEMBERED: usize = 512;

/// What one snapshot changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// The snapshot's serial.
    pub serial: u64,
    /// Names of what is new, different or gone, by kind.
    pub names: Vec<(Kind, Arc<str>)>,
    /// Whether anything may have changed; `names` then says nothing.
    pub everything: bool,
}

/// The last changes, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Log {
    changes: VecDeque<Arc<Changes>>,
}

impl Log {
    /// The log with one more entry.
    #[must_use]
    pub fn with(&self, changes: Changes) -> Log {
        let mut log = self.clone();
        if log.changes.len() == REMEMBERED {
            log.changes.pop_front();
        }
        log.changes.push_back(Arc::new(changes));
        log
    }

    /// Names of a kind that changed after `serial`; `None` if that is not known any more, or everything may have.
    #[must_use]
    pub fn since(&self, kind: Kind, serial: u64) -> Option<Vec<Arc<str>>> {
        let oldest = self.changes.front().map_or(u64::MAX, |changes| changes.serial);
        if oldest > serial + 1 {
            return None;
        }
        let mut names = Vec::new();
        for changes in self.changes.iter().rev().take_while(|changes| changes.serial > serial) {
            if changes.everything {
                return None;
            }
            names.extend(changes.names.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()));
        }
        Some(names)
    }

    /// What the snapshot with this serial changed, if it is remembered.
    #[must_use]
    pub fn of(&self, serial: u64) -> Option<&Arc<Changes>> {
        self.changes.iter().rev().find(|changes| changes.serial == serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(serial: u64, name: &str) -> Changes {
        Changes { serial, names: vec![(Kind::Route, name.into())], everything: false }
    }

    #[test]
    fn only_what_came_later_is_named() {
        let log = Log::default().with(named(1, "a")).with(named(2, "b")).with(named(3, "c"));
        assert_eq!(log.since(Kind::Route, 1), Some(vec!["c".into(), "b".into()]));
        assert_eq!(log.since(Kind::Route, 3), Some(vec![]));
        assert_eq!(log.since(Kind::Cluster, 0), Some(vec![]));
    }

    #[test]
    fn what_is_forgotten_is_not_guessed() {
        let log = (1..=600).fold(Log::default(), |log, serial| log.with(named(serial, "a")));
        assert_eq!(log.since(Kind::Route, 10), None);
        assert_eq!(log.since(Kind::Route, 599).map(|names| names.len()), Some(1));
        let log = log.with(Changes { serial: 601, names: Vec::new(), everything: true });
        assert_eq!(log.since(Kind::Route, 600), None);
    }
}
