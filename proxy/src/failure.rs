//! Why a request or connection failed: one word for it in reply, log and metric, with Envoy's flag beside it.

use crate::codec::Malformed;
use crate::tls::reason::NoTls;

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Who asked.
    Caller,
    /// Who was asked.
    Upstream,
    /// The mesh: its configuration, its policy, or itself.
    Mesh,
}

/// Why a request or connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing is configured for it.
    #[error("{0}")]
    NoRoute(&'static str),
    /// Nothing is behind the server name that a caller's ClientHello asks for, or it asks for none.
    #[error("no service is behind the server name that the caller asks for")]
    UnknownServer,
    /// The route's cluster does not exist; the status is the route's.
    #[error("the cluster of this route does not exist")]
    NoCluster(u16),
    /// The cluster has no endpoint.
    #[error("the cluster has no endpoints")]
    NoEndpoints,
    /// There is as much open to the cluster as its circuit breaker allows.
    #[error("there are too many {0} to the cluster already")]
    Overflow(&'static str),
    /// No connection to the endpoint could be made.
    #[error("the connection to the upstream could not be made")]
    UpstreamConnect,
    /// The connection to the endpoint could be made, but not be made safe.
    #[error("the connection to the upstream is not safe: {0}")]
    UpstreamTls(NoTls),
    /// The caller's TLS handshake has failed.
    #[error("the caller's TLS handshake has failed: {0}")]
    DownstreamTls(NoTls),
    /// The endpoint closed or reset the connection before its answer was complete.
    #[error("the upstream closed the connection before its answer was complete")]
    UpstreamReset,
    /// The endpoint refused the request without looking at it.
    #[error("the upstream refused the request unseen: it takes no more, or its application is not there")]
    UpstreamRefused,
    /// The endpoint's answer cannot be read.
    #[error("the answer of the upstream cannot be read: {0}")]
    UpstreamProtocol(Malformed),
    /// It took longer than its route allows.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// A fault was injected.
    #[error("a fault was injected by configuration")]
    FaultAbort(u16),
    /// The request cannot be read in one way only.
    #[error("{0}")]
    BadRequest(Malformed),
    /// The path has no canonical form.
    #[error("{0}")]
    BadPath(engine::path::PathError),
    /// A field of the head is not what it must be.
    #[error("the authority of the request is not valid")]
    BadAuthority,
    /// The head of the request did not come in time.
    #[error("the head of the request did not arrive in time")]
    SlowRequest,
    /// The body of the request stopped coming.
    #[error("the body of the request stopped coming")]
    SlowBody,
    /// The caller does not take the answer.
    #[error("the caller takes nothing of the answer any more")]
    SlowReader,
    /// It asks for a tunnel where there are none, or for another protocol of a service that speaks HTTP/2 only.
    #[error("the connection cannot become here what the request asks for")]
    UpgradeRefused,
    /// Rules keep it out.
    #[error("RBAC: access denied")]
    PolicyDenied,
    /// It needs a token that is missing, or no good.
    #[error("{0}")]
    Unauthenticated(engine::token::TokenError),
    /// The caller has gone.
    #[error("the caller closed the connection")]
    DownstreamClosed,
    /// The connection was really made to the proxy's own port.
    #[error("the connection would come back to the proxy itself")]
    Loop,
    /// The proxy is about to end.
    #[error("the proxy is draining")]
    Draining,
}

impl Failure {
    /// The word for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Failure::NoRoute(_) | Failure::NoCluster(_) => "no_route",
            Failure::UnknownServer => "unknown_server",
            Failure::NoEndpoints => "no_endpoints",
            Failure::Overflow(_) => "overflow",
            Failure::UpstreamConnect => "upstream_connect",
            Failure::UpstreamTls(why) | Failure::DownstreamTls(why) => why.code(),
            Failure::UpstreamReset => "upstream_reset",
            Failure::UpstreamRefused => "upstream_refused",
            Failure::UpstreamProtocol(_) => "upstream_protocol",
            Failure::Timeout => "timeout",
            Failure::FaultAbort(_) => "fault_abort",
            Failure::BadRequest(Malformed::HeadTooLarge | Malformed::TooManyFields) => "too_large",
            Failure::BadRequest(_) | Failure::BadPath(_) | Failure::BadAuthority => "bad_request",
            Failure::SlowRequest | Failure::SlowBody => "slow_request",
            Failure::SlowReader => "slow_reader",
            Failure::UpgradeRefused => "upgrade_refused",
            Failure::PolicyDenied => "policy_denied",
            Failure::Unauthenticated(_) => "unauthenticated",
            Failure::DownstreamClosed => "downstream_closed",
            Failure::Loop => "loop",
            Failure::Draining => "draining",
        }
    }

    /// Envoy's response flag for it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Failure::NoRoute(_) | Failure::UnknownServer => "NR",
            Failure::NoCluster(_) => "NC",
            Failure::NoEndpoints => "UH",
            Failure::Overflow(_) => "UO",
            Failure::UpstreamConnect | Failure::UpstreamTls(_) => "UF",
            Failure::UpstreamReset => "UC",
            Failure::UpstreamRefused => "UR",
            Failure::UpstreamProtocol(_) => "UPE",
            Failure::Timeout => "UT",
            Failure::FaultAbort(_) => "FI",
            Failure::BadRequest(_)
            | Failure::BadPath(_)
            | Failure::BadAuthority
            | Failure::UpgradeRefused
            | Failure::DownstreamTls(_) => "DPE",
            Failure::SlowRequest | Failure::SlowBody | Failure::SlowReader => "SI",
            Failure::Unauthenticated(_) => "UAEX",
            Failure::DownstreamClosed => "DC",
            Failure::PolicyDenied | Failure::Loop | Failure::Draining => "-",
        }
    }

    /// Envoy's response flags for it when it was to be tried again, and could not be any more.
    #[must_use]
    pub fn flag_after_retries(self) -> &'static str {
        match self {
            Failure::UpstreamConnect | Failure::UpstreamTls(_) => "UF,URX",
            Failure::UpstreamReset => "UC,URX",
            Failure::UpstreamRefused => "UR,URX",
            Failure::Timeout => "UT,URX",
            other => other.flag(),
        }
    }

    /// The status of the reply; 0 if nobody is there to read one.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Failure::NoRoute(_) => 404,
            Failure::NoCluster(status) | Failure::FaultAbort(status) => status,
            Failure::NoEndpoints
            | Failure::Overflow(_)
            | Failure::UpstreamConnect
            | Failure::UpstreamTls(_)
            | Failure::UpstreamReset
            | Failure::UpstreamRefused
            | Failure::Draining => 503,
            Failure::UpstreamProtocol(_) => 502,
            Failure::Timeout => 504,
            Failure::BadRequest(malformed) => malformed.status(),
            Failure::BadPath(_) | Failure::BadAuthority => 400,
            Failure::PolicyDenied => 403,
            Failure::Unauthenticated(_) => 401,
            Failure::SlowRequest | Failure::SlowBody | Failure::SlowReader => 408,
            Failure::UpgradeRefused => 501,
            Failure::Loop => 508,
            Failure::DownstreamClosed | Failure::DownstreamTls(_) | Failure::UnknownServer => 0,
        }
    }

    /// What a client that lacks a good token is told to bring (RFC 6750).
    #[must_use]
    pub fn challenge(self) -> Option<&'static str> {
        match self {
            Failure::Unauthenticated(engine::token::TokenError::Missing) => Some("Bearer"),
            Failure::Unauthenticated(_) => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Failure::UpstreamConnect
            | Failure::UpstreamTls(_)
            | Failure::UpstreamReset
            | Failure::UpstreamRefused
            | Failure::UpstreamProtocol(_)
            | Failure::Timeout => Fault::Upstream,
            Failure::BadRequest(_)
            | Failure::BadPath(_)
            | Failure::BadAuthority
            | Failure::SlowRequest
            | Failure::SlowBody
            | Failure::SlowReader
            | Failure::UpgradeRefused
            | Failure::PolicyDenied
            | Failure::Unauthenticated(_)
            | Failure::DownstreamTls(_)
            | Failure::UnknownServer
            | Failure::DownstreamClosed => Fault::Caller,
            Failure::NoRoute(_)
            | Failure::NoCluster(_)
            | Failure::NoEndpoints
            | Failure::Overflow(_)
            | Failure::FaultAbort(_)
            | Failure::Loop
            | Failure::Draining => Fault::Mesh,
        }
    }

    /// Whether the endpoint is why there is no connection, rather than that this proxy has no certificate.
    #[must_use]
    pub fn is_endpoints(self) -> bool {
        self.is_connect() && self != Failure::UpstreamTls(NoTls::NoSvid)
    }

    /// Whether there is no connection, so that nothing can have been sent.
    #[must_use]
    pub fn is_connect(self) -> bool {
        matches!(self, Failure::UpstreamConnect | Failure::UpstreamTls(_))
    }
}

/// Envoy's name of a response flag; empty for none.
#[must_use]
pub fn long_flag(flag: &str) -> &'static str {
    match flag {
        "NR" => "NoRouteFound",
        "NC" => "NoClusterFound",
        "UH" => "NoHealthyUpstream",
        "UO" => "UpstreamOverflow",
        "UF" => "UpstreamConnectionFailure",
        "UC" => "UpstreamConnectionTermination",
        "UR" => "UpstreamRemoteReset",
        "LR" => "LocalReset",
        "UPE" => "UpstreamProtocolError",
        "UT" => "UpstreamRequestTimeout",
        "URX" => "UpstreamRetryLimitExceeded",
        "UMSDR" => "UpstreamMaxStreamDurationReached",
        "FI" => "FaultInjected",
        "DI" => "DelayInjected",
        "DPE" => "DownstreamProtocolError",
        "SI" => "StreamIdleTimeout",
        "DC" => "DownstreamConnectionTermination",
        "DR" => "DownstreamRemoteReset",
        "DT" => "DurationTimeout",
        "OM" => "OverloadManagerTerminated",
        "RL" => "RateLimited",
        "UAEX" => "UnauthorizedExternalService",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use engine::token::TokenError;

    use super::*;

    #[test]
    fn a_failure_has_one_word_flag_and_status() {
        for (failure, code, flag, status, fault) in [
            (Failure::NoRoute(""), "no_route", "NR", 404, Fault::Mesh),
            (Failure::UnknownServer, "unknown_server", "NR", 0, Fault::Caller),
            (Failure::UpstreamConnect, "upstream_connect", "UF", 503, Fault::Upstream),
            (Failure::UpstreamTls(NoTls::Refused("tls_expired")), "tls_expired", "UF", 503, Fault::Upstream),
            (Failure::DownstreamTls(NoTls::Slow), "tls_slow", "DPE", 0, Fault::Caller),
            (Failure::NoEndpoints, "no_endpoints", "UH", 503, Fault::Mesh),
            (Failure::Overflow("requests"), "overflow", "UO", 503, Fault::Mesh),
            (Failure::UpstreamReset, "upstream_reset", "UC", 503, Fault::Upstream),
            (Failure::UpstreamRefused, "upstream_refused", "UR", 503, Fault::Upstream),
            (Failure::Timeout, "timeout", "UT", 504, Fault::Upstream),
            (Failure::FaultAbort(555), "fault_abort", "FI", 555, Fault::Mesh),
            (Failure::BadRequest(Malformed::Control), "bad_request", "DPE", 400, Fault::Caller),
            (Failure::BadRequest(Malformed::HeadTooLarge), "too_large", "DPE", 431, Fault::Caller),
            (Failure::UpgradeRefused, "upgrade_refused", "DPE", 501, Fault::Caller),
            (Failure::SlowReader, "slow_reader", "SI", 408, Fault::Caller),
            (Failure::DownstreamClosed, "downstream_closed", "DC", 0, Fault::Caller),
            (Failure::PolicyDenied, "policy_denied", "-", 403, Fault::Caller),
            (Failure::Unauthenticated(TokenError::Expired), "unauthenticated", "UAEX", 401, Fault::Caller),
        ] {
            assert_eq!(
                (failure.code(), failure.flag(), failure.status(), failure.fault()),
                (code, flag, status, fault)
            );
        }
    }
}
