//! `RetryPolicy` → when a request is tried again.

use std::mem::take;
use std::time::Duration;

use super::fault::http_status;
use super::strict::{At, Refusal, duration, nothing_left, typed};
use crate::proto::{extension, previous_hosts, route as pb};
use crate::tables::{Retry, RetryOn};

/// The first back-off unless the policy says otherwise.
const BASE: Duration = Duration::from_millis(25);
/// The longest back-off is so many times the first unless the policy says otherwise.
const GROWTH: u32 = 10;

/// Compiles a policy; `None` if it never tries again.
pub(super) fn compile(mut message: pb::RetryPolicy) -> Result<Option<Retry>, Refusal> {
    let statuses = take(&mut message.retriable_status_codes);
    let on = conditions(&take(&mut message.retry_on), &statuses)?;
    let attempts = message.num_retries.take().map_or(1, |number| number.value);
    let per_try_timeout = duration(message.per_try_timeout.take()).at("per_try_timeout")?;
    let (base, max) = match message.retry_back_off.take() {
        None => (BASE, BASE * GROWTH),
        Some(back_off) => intervals(back_off).at("retry_back_off")?,
    };
    let predicates = take(&mut message.retry_host_predicate);
    let avoids_tried = !predicates.is_empty();
    for (nth, predicate) in predicates.into_iter().enumerate() {
        other_host(predicate).at_nth("retry_host_predicate", nth)?;
    }
    // How often to draw until it is another endpoint: here others are found by one look.
    message.host_selection_retry_max_attempts = 0;
    nothing_left(&message)?;
    let per_try_timeout = per_try_timeout.filter(|timeout| !timeout.is_zero());
    let retry = Retry { on, attempts, per_try_timeout, base, max, avoids_tried };
    Ok(Some(retry).filter(|retry| retry.attempts > 0 && retry.on != RetryOn::default()))
}

fn conditions(words: &str, statuses: &[u32]) -> Result<RetryOn, Refusal> {
    let mut on = RetryOn::default();
    for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "5xx" => on.server_errors = true,
            "gateway-error" => on.gateway_errors = true,
            "reset" => on.resets = true,
            "connect-failure" => on.connect_failures = true,
            "retriable-4xx" => on.conflicts = true,
            // Endpoints speak HTTP/1, which has no streams to refuse.
            "refused-stream" => {}
            "retriable-status-codes" => {
                let mut listed = statuses.iter().map(|status| http_status(*status)).collect::<Result<Vec<_>, _>>()?;
                listed.sort_unstable();
                on.statuses = listed.into();
            }
            other => return Err(Refusal::not_in_force(format!("retry_on: {other}"))),
        }
    }
    Ok(on)
}

fn intervals(message: pb::retry_policy::RetryBackOff) -> Result<(Duration, Duration), Refusal> {
    let base = duration(message.base_interval).at("base_interval")?.unwrap_or_default();
    if base.is_zero() {
        return Err(Refusal::invalid("`base_interval` is zero"));
    }
    let max = duration(message.max_interval).at("max_interval")?.unwrap_or(base.saturating_mul(GROWTH));
    if max < base {
        return Err(Refusal::invalid("`max_interval` is less than `base_interval`"));
    }
    Ok((base, max))
}

fn other_host(predicate: pb::retry_policy::RetryHostPredicate) -> Result<(), Refusal> {
    use pb::retry_policy::retry_host_predicate::ConfigType;
    let (name, type_url) = extension::PREVIOUS_HOSTS;
    if predicate.name != name {
        return Err(Refusal::not_in_force(predicate.name));
    }
    let Some(ConfigType::TypedConfig(config)) = predicate.config_type else { return Ok(()) };
    typed::<previous_hosts::PreviousHostsPredicate>(&config, type_url).map(drop)
}
