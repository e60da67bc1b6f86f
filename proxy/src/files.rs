//! How many files the process may open: connections are files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no connections: logs, listeners, the runtime's own.
const OTHERS: u64 = 256;

/// Raises the limit as far as it goes, and says how many connections from peers are let in: three in four files, as most
/// of them are idle, and one that is in use often shares its upstream's with others.
#[must_use]
pub(crate) fn connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = match raised {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files cannot be raised");
            current
        }
    };
    let fitting = files.map_or(u64::MAX, |files| files.saturating_sub(OTHERS) / 4 * 3);
    usize::try_from(fitting).unwrap_or(usize::MAX).max(1)
}
