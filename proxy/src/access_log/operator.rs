//! Envoy's command operators, as far as this proxy has something to say for them.

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    /// When the request began; in a form of its own.
    StartTime(Option<Box<str>>),
    /// A header of the request, else another.
    Request(Source, Option<Source>),
    /// A header of the response, else another.
    Response(Source, Option<Source>),
    ResponseCode,
    /// Why there is this status: our word for the failure, or Envoy's for who answered.
    ResponseDetails,
    /// Our word for what failed.
    Failure,
    Flags,
    /// The flags' names.
    LongFlags,
    Protocol,
    /// Milliseconds to the end.
    Duration,
    /// Milliseconds to the upstream's first byte.
    ResponseDuration,
    /// Milliseconds from then to the end.
    ResponseTxDuration,
    BytesReceived,
    BytesSent,
    Address(Place, Shown),
    Cluster,
    Route,
    ServerName,
    Attempts,
    GrpcStatus,
    TraceId,
    SpanId,
    ParentSpanId,
    /// Who has proved to be the caller.
    DownstreamPeer,
    /// Who has proved to be the upstream.
    UpstreamPeer,
    /// The version of TLS: to the upstream, or of the caller.
    TlsVersion(bool),
    /// Why there is no TLS: to the upstream, or of the caller.
    TlsFailure(bool),
    /// What does not change while the proxy runs.
    Fixed(Option<Box<str>>),
    /// Nothing, in this proxy.
    Nothing,
}

/// Where the value of a header comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Method,
    Path,
    Authority,
    Scheme,
    /// Milliseconds to the upstream's head.
    ServiceTime,
    /// A header that was kept: its place in the format's list.
    Kept(usize),
}

/// An address that has to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Upstream,
    UpstreamLocal,
    /// Where the client's connection was going.
    DownstreamLocal,
    /// The client.
    DownstreamRemote,
}

/// Which part of an address is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Whole,
    Ip,
    Port,
}

impl Operator {
    pub(super) fn is_upstream_local(&self) -> bool {
        matches!(self, Operator::Address(Place::UpstreamLocal, _))
    }
}
