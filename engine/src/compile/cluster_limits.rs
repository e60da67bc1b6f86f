//! `CircuitBreakers` → bounds on what is open to a cluster at one time.

use std::mem::take;

use super::strict::{At, Refusal, nothing_left};
use crate::proto::cluster as pb;
use crate::tables::{Limits, RetryLimit};

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
    // Whether statistics of what is left are kept changes nothing.
    message.track_remaining = false;
    nothing_left(&message)?;
    Ok(Limits { retries, ..defaults })
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
