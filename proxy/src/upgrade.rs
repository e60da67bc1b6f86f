//! What a request asks its HTTP/1.1 connection to become: another protocol, or a tunnel.
//!
//! Bytes that a client sends behind such a request wait until the answer is there: they are the new protocol's if it
//! switches, and are thrown away with the connection if it does not, as nobody could say whose they are (RFC 9931).

use engine::tables::Upgrades;

use crate::codec::{Request, Response};

/// What a connection is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Switch {
    /// The protocol that `Upgrade` names.
    Protocol(Box<[u8]>),
    /// A tunnel to the authority that CONNECT names.
    Tunnel,
}

impl Switch {
    /// What a request asks for, if anything: of the protocols that it offers the first that may be switched to.
    ///
    /// A client that offers others only is served as if it had not: it has to reckon with that (RFC 9110, 7.8).
    #[must_use]
    pub(crate) fn asked(request: &Request, head: &[u8], allowed: &Upgrades) -> Option<Self> {
        if request.is_connect(head) {
            return Some(Switch::Tunnel);
        }
        let protocol = request.offered(head).find(|protocol| allowed.allows(protocol))?;
        Some(Switch::Protocol(protocol.into()))
    }

    /// The protocol, as it stands in `Upgrade`.
    #[must_use]
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Switch::Protocol(protocol) => Some(protocol),
            Switch::Tunnel => None,
        }
    }

    /// Whether an answer grants it.
    #[must_use]
    pub(crate) fn is_granted(&self, answer: &Response, head: &[u8]) -> bool {
        match self {
            Switch::Protocol(protocol) => answer.switches_to(protocol, head),
            Switch::Tunnel => (200..300).contains(&answer.status),
        }
    }

    /// Whether the connection ends with an answer that does not grant it.
    ///
    /// `has_more` says that the client has sent bytes behind its request.
    #[must_use]
    pub(crate) fn ends_refused(&self, has_more: bool) -> bool {
        *self == Switch::Tunnel || has_more
    }
}
