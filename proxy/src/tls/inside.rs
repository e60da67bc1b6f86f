//! What a connection by TLS carries, and the word for it.

use engine::tables::alpn;

/// What a connection by TLS carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Inside {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Bytes that nobody looks into.
    Opaque,
}

impl Inside {
    /// The word for it in ALPN, by which mesh traffic is told from an application's own TLS.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Inside::Http2 => alpn::HTTP2,
            Inside::Http1 => alpn::HTTP1,
            Inside::Opaque => alpn::OPAQUE,
        }
    }
}
