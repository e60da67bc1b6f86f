//! How the proxy's own connections escape the interception that brought it its work.

use api::names::{PROXY_MARK, PROXY_UID};
use socket2::{Domain, Socket, Type};

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
#[error(
    "the proxy's own connections would be intercepted again: it can neither set the socket mark {PROXY_MARK} nor does it \
     run as user {PROXY_UID}"
)]
pub struct Intercepted(#[source] std::io::Error);

/// The mark that the proxy's connections carry, or `None` when its user id alone lets them through.
///
/// # Errors
///
/// When neither is possible: every connection would come back for ever.
pub fn mark() -> Result<Option<u32>, Intercepted> {
    match try_mark() {
        Ok(()) => Ok(Some(PROXY_MARK)),
        Err(_) if rustix::process::geteuid().as_raw() == PROXY_UID => Ok(None),
        Err(error) => Err(Intercepted(error)),
    }
}

fn try_mark() -> std::io::Result<()> {
    Socket::new(Domain::IPV4, Type::STREAM, None)?.set_mark(PROXY_MARK)
}
