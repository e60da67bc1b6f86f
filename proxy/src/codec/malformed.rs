//! Why a message is refused.

/// Why a message is refused. The text is part of the reply, so it never quotes the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line that ends in LF alone.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// CR, NUL or another control character where none may be.
    #[error("a control character stands in the head")]
    Control,
    /// A line that continues the one before.
    #[error("a header field is folded over two lines")]
    Folded,
    /// A field's name that is no token, or has a space before its colon.
    #[error("the name of a header field is not valid")]
    FieldName,
    /// TLS, where HTTP is expected.
    #[error("the client speaks TLS where HTTP is expected; a port that serves TLS is declared as https or tcp")]
    Tls,
    /// The method is no token.
    #[error("the method is not valid")]
    Method,
    /// The target is none that a request may have.
    #[error("the request target is not valid")]
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the HTTP version is not supported")]
    Version,
    /// A status line that cannot be read.
    #[error("the status line is not valid")]
    Status,
    /// More than one Content-Length, or one that lists several.
    #[error("the message states its length more than once")]
    TwoLengths,
    /// A Content-Length that is no number, or too large.
    #[error("the content length is not a number")]
    Length,
    /// Content-Length beside Transfer-Encoding.
    #[error("the message has both a content length and a transfer encoding")]
    LengthAndEncoding,
    /// A Transfer-Encoding that is not exactly `chunked`.
    #[error("the transfer encoding is not exactly `chunked`")]
    Encoding,
    /// HTTP/1.1 without Host.
    #[error("the request names no host")]
    NoHost,
    /// More than one Host.
    #[error("the request names more than one host")]
    TwoHosts,
    /// A Host that is none.
    #[error("the host is not valid")]
    Host,
    /// An absolute target with another authority than Host.
    #[error("the request target and the host header disagree")]
    HostDisagrees,
    /// `Connection` names a field that is not the connection's.
    #[error("the connection header names a field that is not its own")]
    Connection,
    /// `Upgrade` lists something else than protocols.
    #[error("the upgrade header does not name protocols")]
    Upgrade,
    /// CONNECT to no port, with a body, or with an upgrade.
    #[error("CONNECT must name a host and a port, and has neither body nor upgrade")]
    Connect,
    /// A switch to a protocol that was not asked for, or at the wrong time.
    #[error("the answer switches protocols in a way that was not asked for")]
    Switch,
    /// The head is over the limit.
    #[error("the head of the message is too large")]
    HeadTooLarge,
    /// More fields than the limit.
    #[error("the message has too many header fields")]
    TooManyFields,
    /// A chunk whose size, end or extension cannot be read.
    #[error("the chunked body is not valid")]
    Chunk,
    /// A trailer section over the limit, or with a field that may not be in it.
    #[error("the trailer of the message is not valid")]
    Trailer,
    /// Frames of HTTP/2 that cannot be read, or are not sent as they may be.
    #[error("the frames of HTTP/2 are not valid")]
    Frames,
}

impl Malformed {
    /// The status of the reply to a request that is refused for this.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Malformed::HeadTooLarge | Malformed::TooManyFields => 431,
            Malformed::Version => 505,
            _ => 400,
        }
    }
}
