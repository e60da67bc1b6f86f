//! Faults that a rule injects: `httpFault`, `l4Fault`.

use serde::{Serialize, Serializer};

use super::check;
use super::duration::DurationText;
use crate::model;
use crate::read::{Context, Read};
use crate::yaml::Node;

/// Faults of requests, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HttpFault {
    /// A wait before the request goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// An answer instead of the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A wait, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// Share of requests.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub percent: Option<f64>,
    /// How long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<DurationText>,
}

/// An answer, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// Share of requests.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub percent: Option<f64>,
    /// Status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i64>,
    /// Error of HTTP/2 instead of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_error: Option<String>,
}

/// Faults of connections, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct L4Fault {
    /// Slows connections down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// Ends connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate: Option<Terminate>,
}

/// Slows connections down, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttle {
    /// Share of connections.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub percent: Option<f64>,
    /// Bits per second towards the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downstream_limit_bps: Option<i64>,
    /// Bits per second towards the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_limit_bps: Option<i64>,
    /// Begins after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_after_period: Option<DurationText>,
    /// Begins after so many bytes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub throttle_after_bytes: Option<f64>,
    /// Lasts so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_for_period: Option<DurationText>,
}

/// Ends connections, as typed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminate {
    /// Share of connections.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub percent: Option<f64>,
    /// After this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate_after_period: Option<DurationText>,
}

impl Read for HttpFault {
    const WHAT: &'static str = "a mapping with `delay` or `abort`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let fault = HttpFault { delay: fields.optional("delay"), abort: fields.optional("abort") };
        fields.end();
        Some(fault)
    }
}

impl Read for Delay {
    const WHAT: &'static str = "a mapping with `percent` and `fixedDelay`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let delay = Delay { percent: fields.optional("percent"), fixed_delay: fields.optional("fixedDelay") };
        fields.unsupported("exponentialDelay", "use `fixedDelay`");
        fields.unsupported("overrideHeaderName", "leave it out: no header changes the delay");
        fields.end();
        Some(delay)
    }
}

impl Read for Abort {
    const WHAT: &'static str = "a mapping with `percent` and `httpStatus`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let abort = Abort {
            percent: fields.optional("percent"),
            http_status: fields.optional("httpStatus"),
            http2_error: fields.optional("http2Error"),
        };
        fields.unsupported("grpcStatus", "use `httpStatus`");
        fields.unsupported("overrideHeaderName", "leave it out: no header changes the abort");
        fields.end();
        Some(abort)
    }
}

impl Read for L4Fault {
    const WHAT: &'static str = "a mapping with `throttle` or `terminate`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let fault = L4Fault { throttle: fields.optional("throttle"), terminate: fields.optional("terminate") };
        fields.end();
        Some(fault)
    }
}

impl Read for Throttle {
    const WHAT: &'static str = "a mapping with `percent` and limits";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let throttle = Throttle {
            percent: fields.optional("percent"),
            downstream_limit_bps: fields.optional("downstreamLimitBps"),
            upstream_limit_bps: fields.optional("upstreamLimitBps"),
            throttle_after_period: fields.optional("throttleAfterPeriod"),
            throttle_after_bytes: fields.optional("throttleAfterBytes"),
            throttle_for_period: fields.optional("throttleForPeriod"),
        };
        fields.end();
        Some(throttle)
    }
}

impl Read for Terminate {
    const WHAT: &'static str = "a mapping with `percent` and `terminateAfterPeriod`";

    fn read<'a>(node: &'a Node, context: &mut Context<'a>) -> Option<Self> {
        let mut fields = context.fields(node, Self::WHAT)?;
        let terminate = Terminate {
            percent: fields.optional("percent"),
            terminate_after_period: fields.optional("terminateAfterPeriod"),
        };
        fields.end();
        Some(terminate)
    }
}

impl HttpFault {
    /// Checks the faults and says what they mean, with `context` looking at `httpFault`.
    pub fn mean(&self, context: &mut Context<'_>) -> model::Fault {
        let delay = self.delay.as_ref().and_then(|delay| context.within("delay", |context| delay.mean(context)));
        let abort = self.abort.as_ref().and_then(|abort| context.within("abort", |context| abort.mean(context)));
        if self.delay.is_none() && self.abort.is_none() && context.is_clean() {
            context.warn("`httpFault` has no fault, so it does nothing", "give it a `delay` or an `abort`");
        }
        model::Fault { delay, abort }
    }
}

impl Delay {
    fn mean(&self, context: &mut Context<'_>) -> Option<model::Delay> {
        let percent = share(self.percent, context);
        let Some(fixed_delay) = &self.fixed_delay else {
            if context.is_clean() {
                context.error_with_hint("`delay` does not say how long", "give it a `fixedDelay` such as `7s`");
            }
            return None;
        };
        let fixed = fixed_delay.mean("fixedDelay", context)?;
        Some(model::Delay { percent: percent?, fixed })
    }
}

impl Abort {
    fn mean(&self, context: &mut Context<'_>) -> Option<model::Abort> {
        let percent = share(self.percent, context);
        if self.http2_error.is_some() {
            context.not_in_force("http2Error");
        }
        let Some(status) = self.http_status else {
            if context.is_clean() {
                context.error_with_hint("`abort` does not say with what", "give it an `httpStatus` such as `500`");
            }
            return None;
        };
        match u16::try_from(status) {
            Ok(status @ 200..=599) => Some(model::Abort { percent: percent?, status }),
            _ => {
                context.within("httpStatus", |context| {
                    let message = format!("`httpStatus` is {status}, which is not between 200 and 599");
                    context.error_with_hint(message, "an answer needs a final HTTP status");
                });
                None
            }
        }
    }
}

impl L4Fault {
    /// Checks the faults, with `context` looking at `l4Fault`.
    pub fn check(&self, context: &mut Context<'_>) {
        if let Some(throttle) = &self.throttle {
            context.within("throttle", |context| throttle.check(context));
        }
        if let Some(terminate) = &self.terminate {
            context.within("terminate", |context| {
                let _ = terminate.percent.and_then(|percent| check::percent("percent", percent, context));
                let _ =
                    terminate.terminate_after_period.as_ref().map(|after| after.mean("terminateAfterPeriod", context));
            });
        }
    }
}

impl Throttle {
    fn check(&self, context: &mut Context<'_>) {
        let _ = self.percent.and_then(|percent| check::percent("percent", percent, context));
        check::not_negative("downstreamLimitBps", self.downstream_limit_bps, context);
        check::not_negative("upstreamLimitBps", self.upstream_limit_bps, context);
        let _ = self.throttle_after_period.as_ref().map(|after| after.mean("throttleAfterPeriod", context));
        let _ = self.throttle_for_period.as_ref().map(|period| period.mean("throttleForPeriod", context));
        if self.throttle_after_bytes.is_some_and(|bytes| bytes < 0.0) {
            context.within("throttleAfterBytes", |context| context.error("`throttleAfterBytes` is less than 0"));
        }
    }
}

/// The share of requests that a fault hits; without one it hits none, as the classic default is 0.
fn share(percent: Option<f64>, context: &mut Context<'_>) -> Option<model::Percent> {
    if percent.is_none() && context.is_clean() {
        let subject = context.subject();
        context.warn(
            format!("{subject} has no `percent`, so it hits no request"),
            "give it `percent: 100` to hit every request",
        );
    }
    check::percent("percent", percent.unwrap_or(0.0), context)
}

/// Writes whole numbers without a decimal point.
#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range, by the guard")]
        Some(value) if value.fract() == 0.0 && value.abs() < 9e15 => serializer.serialize_i64(*value as i64),
        Some(value) => serializer.serialize_f64(*value),
        None => serializer.serialize_none(),
    }
}
