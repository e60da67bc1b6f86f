//! Who is at the other end of a connection.

use std::time::SystemTime;

use api::spiffe::SpiffeId;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// Until when its certificate holds. A connection may last longer.
    pub not_after: SystemTime,
    /// Its certificate's serial number, in hexadecimal.
    pub serial: String,
}
