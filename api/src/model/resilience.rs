//! What makes calls robust, as meant: retries, circuit breakers, ejection.

use std::num::NonZeroU32;
use std::time::Duration;

/// How often a request is tried again when its endpoint fails it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often at most, the first try not counted.
    pub attempts: NonZeroU32,
    /// How long each try may take; `None` is as long as the request may.
    pub per_try_timeout: Option<Duration>,
}

/// Bounds on what is open to a destination at one time. `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Connections.
    pub connections: Option<NonZeroU32>,
    /// Requests that wait for a connection.
    pub pending: NonZeroU32,
    /// Requests.
    pub requests: NonZeroU32,
    /// Retries; `None` is a share of the requests.
    pub retries: Option<NonZeroU32>,
    /// Requests on one connection.
    pub requests_per_connection: Option<NonZeroU32>,
}

/// When an endpoint that fails is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject it.
    pub consecutive_errors: NonZeroU32,
    /// How often endpoints are looked at: an interval without an ejection makes the next one shorter.
    pub interval: Duration,
    /// How long it is ejected the first time.
    pub base_ejection: Duration,
    /// The share of endpoints that may be ejected at one time, 1 to 100 percent.
    pub max_percent: u32,
}
