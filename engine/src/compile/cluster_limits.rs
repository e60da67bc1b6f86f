//! `CircuitBreakers` → bounds on what is open to a cluster at one time; `OutlierDetection` → when endpoints are ejected.

use std::mem::take;
use std::time::Duration;

use super::strict::{At, Refusal, duration, nothing_left};
use crate::proto::{cluster as pb, protobuf};
use crate::tables::{Limits, Outlier, RetryLimit};

use pb::circuit_breakers::Thresholds;
use pb::circuit_breakers::thresholds::RetryBudget;

/// Compiles the thresholds of ordinary requests, which are the only ones there are.
pub(super) fn compile(mut message: pb::CircuitBreakers) -> Result<Limits, Refusal> {
    let mut thresholds = take(&mut message.thresholds).into_iter();
    nothing_left(&message)?;
    let limits = thresholds.next().map_or_else(|| Ok(Limits::default()), limits).at_nth("thresholds", 0)?;
    if thresholds.next().is_some() {
        return Err(Refusal::invalid("the thresholds of a priority are given twice")).at_nth("thresholds", 1);
    }
    Ok(limits)
}

fn limits(mut message: Thresholds) -> Result<Limits, Refusal> {
    let defaults = Limits::default();
    let retries = match (message.retry_budget.take(), message.max_retries.take()) {
        // As in Envoy a budget takes the place of the number.
        (Some(budget), _) => share(budget).at("retry_budget")?,
        (None, Some(number)) => RetryLimit::AtMost(number.value),
        (None, None) => defaults.retries,
    };
    let bound = |number: Option<protobuf::UInt32Value>, default| number.map_or(default, |number| number.value);
    let connections = bound(message.max_connections.take(), defaults.connections);
    let pending = bound(message.max_pending_requests.take(), defaults.pending);
    let requests = bound(message.max_requests.take(), defaults.requests);
    // Whether statistics of what is left are kept changes nothing.
    message.track_remaining = false;
    nothing_left(&message)?;
    Ok(Limits { connections, pending, requests, retries })
}

fn share(mut message: RetryBudget) -> Result<RetryLimit, Refusal> {
    let percent = message.budget_percent.take().map_or(20.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        return Err(Refusal::invalid(format!("`budget_percent` is {percent}, which is not between 0 and 100")));
    }
    let at_least = message.min_retry_concurrency.take().map_or(3, |number| number.value);
    nothing_left(&message)?;
    Ok(RetryLimit::Share { per_myriad: (percent * 100.0).round() as u32, at_least })
}

/// Compiles outlier detection; `None` if it ejects nobody. Failures in a row are the only way that is in force, so the
/// one other way that Envoy has by default must be switched off.
pub(super) fn outlier(mut message: pb::OutlierDetection) -> Result<Option<Outlier>, Refusal> {
    let number = |number: Option<protobuf::UInt32Value>, default| number.map_or(default, |number| number.value);
    let consecutive_errors = number(message.consecutive_5xx.take(), 5);
    let enforced = number(message.enforcing_consecutive_5xx.take(), 100);
    if number(message.enforcing_success_rate.take(), 100) != 0 {
        return Err(Refusal::not_in_force("enforcing_success_rate"));
    }
    if !matches!(enforced, 0 | 100) {
        return Err(Refusal::not_in_force("enforcing_consecutive_5xx"));
    }
    if consecutive_errors == 0 {
        return Err(Refusal::invalid("`consecutive_5xx` is 0"));
    }
    let max_percent = number(message.max_ejection_percent.take(), 10);
    if max_percent > 100 {
        return Err(Refusal::invalid(format!("`max_ejection_percent` is {max_percent}, which is more than 100")));
    }
    let interval = duration(message.interval.take()).at("interval")?.unwrap_or(Duration::from_secs(10));
    let base = duration(message.base_ejection_time.take()).at("base_ejection_time")?.unwrap_or(Duration::from_secs(30));
    let max = duration(message.max_ejection_time.take()).at("max_ejection_time")?;
    let max = max.unwrap_or(Duration::from_secs(300)).max(base);
    if interval.is_zero() || base.is_zero() {
        return Err(Refusal::invalid("`interval` and `base_ejection_time` are above zero"));
    }
    // One endpoint may always be ejected.
    if message.always_eject_one_host.is_some_and(|always| always.value) {
        message.always_eject_one_host = None;
    }
    nothing_left(&message)?;
    Ok(Some(Outlier { consecutive_errors, interval, base, max, max_percent }).filter(|_| enforced != 0))
}
