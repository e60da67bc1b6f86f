//! What a connection speaks.

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1 or what looks like it.
    Http11,
    /// HTTP/1.0.
    Http10,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// TLS.
    Tls,
    /// Something else.
    Opaque,
    /// Nothing in the time that it had: the server may be the first to speak.
    Silent,
    /// Too little in the time that it had.
    Undecided,
}

impl Spoken {
    /// As filter chains name it (`application_protocols`).
    #[must_use]
    pub(crate) fn alpn(self) -> Option<&'static str> {
        match self {
            Spoken::Http11 => Some("http/1.1"),
            Spoken::Http10 => Some("http/1.0"),
            Spoken::H2c => Some("h2c"),
            Spoken::Tls | Spoken::Opaque | Spoken::Silent | Spoken::Undecided => None,
        }
    }
}
