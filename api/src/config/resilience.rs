//! What makes calls robust: timeouts and retries of rules, circuit breakers of policies.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use super::check;
use super::duration::DurationText;
use crate::model::{self, Retries};
use crate::read::{Context, Read};
use crate::yaml::Node;

/// `httpReqTimeout`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTimeout {
    /// The one kind there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple_timeout: Option<SimpleTimeout>,
}

/// How long the whole request may take, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SimpleTimeout {
    /// How long, retries included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
}

/// `httpReqRetries`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRetries {
    /// The one kind there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple_retry: Option<SimpleRetry>,
}

/// How often a request is tried again, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SimpleRetry {
    /// How often at most, the first try not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,
    /// How long each try may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<DurationText>,
}

/// `circuitBreaker`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// The one kind there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple_cb: Option<SimpleCircuitBreaker>,
}

/// Limits towards a destination and when an endpoint is ejected, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SimpleCircuitBreaker {
    /// Connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_max_pending_requests: Option<i64>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_max_requests: Option<i64>,
    /// How long an endpoint is ejected at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep_window: Option<DurationText>,
    /// Errors in a row that eject an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_consecutive_errors: Option<i64>,
    /// How often endpoints are looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_detection_interval: Option<DurationText>,
    /// Requests on one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_max_requests_per_connection: Option<i64>,
    /// Share of endpoints that may be ejected, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_max_ejection_percent: Option<i64>,
    /// Retries at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_max_retries: Option<i64>,
}

const CUSTOM: &str = "policies in a form of their own have no meaning to the mesh";

impl Read for HttpTimeout {
    const WHAT: &'static str = "a mapping with `simpleTimeout`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let timeout = HttpTimeout { simple_timeout: fields.optional("simpleTimeout") };
        fields.unsupported("custom", CUSTOM);
        fields.end();
        Some(timeout)
    }
}

impl Read for SimpleTimeout {
    const WHAT: &'static str = "a mapping with `timeout`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let timeout = SimpleTimeout { timeout: fields.optional("timeout") };
        fields.unsupported("overrideHeaderName", "leave it out: `x-envoy-upstream-rq-timeout-ms` is the header");
        fields.end();
        Some(timeout)
    }
}

impl Read for HttpRetries {
    const WHAT: &'static str = "a mapping with `simpleRetry`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let retries = HttpRetries { simple_retry: fields.optional("simpleRetry") };
        fields.unsupported("custom", CUSTOM);
        fields.end();
        Some(retries)
    }
}

impl Read for SimpleRetry {
    const WHAT: &'static str = "a mapping with `attempts`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let retry =
            SimpleRetry { attempts: fields.optional("attempts"), per_try_timeout: fields.optional("perTryTimeout") };
        fields.unsupported("overrideHeaderName", "leave it out: `x-envoy-max-retries` is the header");
        fields.end();
        Some(retry)
    }
}

impl Read for CircuitBreaker {
    const WHAT: &'static str = "a mapping with `simpleCb`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let breaker = CircuitBreaker { simple_cb: fields.optional("simpleCb") };
        fields.unsupported("custom", CUSTOM);
        fields.end();
        Some(breaker)
    }
}

impl Read for SimpleCircuitBreaker {
    const WHAT: &'static str = "a mapping with limits such as `maxConnections`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let breaker = SimpleCircuitBreaker {
            max_connections: fields.optional("maxConnections"),
            http_max_pending_requests: fields.optional("httpMaxPendingRequests"),
            http_max_requests: fields.optional("httpMaxRequests"),
            sleep_window: fields.optional("sleepWindow"),
            http_consecutive_errors: fields.optional("httpConsecutiveErrors"),
            http_detection_interval: fields.optional("httpDetectionInterval"),
            http_max_requests_per_connection: fields.optional("httpMaxRequestsPerConnection"),
            http_max_ejection_percent: fields.optional("httpMaxEjectionPercent"),
            http_max_retries: fields.optional("httpMaxRetries"),
        };
        fields.end();
        Some(breaker)
    }
}

impl HttpTimeout {
    /// Checks the timeout and says how long it is, with `context` looking at `httpReqTimeout`.
    #[must_use]
    pub fn mean(&self, context: &mut Context<'_>) -> Option<Duration> {
        let Some(simple) = &self.simple_timeout else {
            nothing("httpReqTimeout", "give it `simpleTimeout: {timeout: 10s}`", context);
            return None;
        };
        context.within("simpleTimeout", |context| match &simple.timeout {
            Some(timeout) => timeout.mean("timeout", context),
            None => {
                if context.is_clean() {
                    context.error_with_hint("`simpleTimeout` does not say how long", "give it `timeout: 10s`");
                }
                None
            }
        })
    }
}

impl HttpRetries {
    /// Checks the retries and says what they mean, with `context` looking at `httpReqRetries`.
    ///
    /// `None` when there are none.
    #[must_use]
    pub fn mean(&self, context: &mut Context<'_>) -> Option<Retries> {
        let Some(retry) = &self.simple_retry else {
            nothing("httpReqRetries", "give it `simpleRetry: {attempts: 3}`", context);
            return None;
        };
        context.within("simpleRetry", |context| {
            check::not_negative("attempts", retry.attempts, context);
            let per_try_timeout =
                retry.per_try_timeout.as_ref().and_then(|timeout| timeout.mean("perTryTimeout", context));
            if retry.attempts.is_none() {
                nothing("simpleRetry", "give it `attempts: 3`", context);
            }
            // More than a number of 32 bits holds is as good as for ever; the timeout of the request ends it.
            let attempts = u32::try_from(retry.attempts?).unwrap_or(u32::MAX);
            Some(Retries { attempts: NonZeroU32::new(attempts)?, per_try_timeout })
        })
    }
}

impl CircuitBreaker {
    /// Checks the circuit breaker and says what it means, with `context` looking at `circuitBreaker`.
    ///
    /// A number that is 0 is as if it were not there, as in the classic files; but `httpConsecutiveErrors: 0` or
    /// `httpMaxEjectionPercent: 0` ejects nobody.
    #[must_use]
    pub fn mean(&self, context: &mut Context<'_>) -> (Option<model::CircuitBreaker>, Option<model::Outlier>) {
        let Some(breaker) = &self.simple_cb else {
            nothing("circuitBreaker", "give it a `simpleCb`", context);
            return (None, None);
        };
        context.within("simpleCb", |context| (Some(breaker.limits(context)), breaker.outlier(context)))
    }
}

impl SimpleCircuitBreaker {
    fn limits(&self, context: &mut Context<'_>) -> model::CircuitBreaker {
        let mut bound = |field, number: Option<i64>| {
            check::not_negative(field, number, context);
            number.and_then(positive)
        };
        model::CircuitBreaker {
            connections: bound("maxConnections", self.max_connections),
            pending: bound("httpMaxPendingRequests", self.http_max_pending_requests).unwrap_or(REQUESTS),
            requests: bound("httpMaxRequests", self.http_max_requests).unwrap_or(REQUESTS),
            retries: bound("httpMaxRetries", self.http_max_retries),
            requests_per_connection: bound("httpMaxRequestsPerConnection", self.http_max_requests_per_connection),
        }
    }

    fn outlier(&self, context: &mut Context<'_>) -> Option<model::Outlier> {
        check::not_negative("httpConsecutiveErrors", self.http_consecutive_errors, context);
        let percent = self.http_max_ejection_percent.unwrap_or(EJECTION_PERCENT);
        if !(0..=100).contains(&percent) {
            context.within("httpMaxEjectionPercent", |context| {
                context.error(format!("`httpMaxEjectionPercent` is {percent}, which is not between 0 and 100"));
            });
        }
        let window = self.sleep_window.as_ref().map(|window| window.mean("sleepWindow", context));
        let interval =
            self.http_detection_interval.as_ref().map(|window| window.mean("httpDetectionInterval", context));
        Some(model::Outlier {
            consecutive_errors: positive(self.http_consecutive_errors.unwrap_or(CONSECUTIVE_ERRORS))?,
            interval: interval.unwrap_or(Some(INTERVAL))?,
            base_ejection: window.unwrap_or(Some(EJECTION))?,
            max_percent: positive(percent)?.get(),
        })
    }
}

/// A number above zero; more than 32 bits hold is as good as no bound.
fn positive(number: i64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// The classic defaults of a circuit breaker.
const REQUESTS: NonZeroU32 = NonZeroU32::new(1024).expect("it is not 0");
const CONSECUTIVE_ERRORS: i64 = 5;
const EJECTION_PERCENT: i64 = 10;
const INTERVAL: Duration = Duration::from_secs(10);
const EJECTION: Duration = Duration::from_secs(30);

/// Warns that a field is there but says nothing.
fn nothing(field: &'static str, hint: &'static str, context: &mut Context<'_>) {
    if context.is_clean() {
        context.warn(format!("`{field}` is empty, so it does nothing"), hint);
    }
}
