//! `HTTPFault` and shares of requests.

use super::strict::{At, Refusal, duration, nothing_left, typed};
use crate::proto::{common_fault, core, extension, fault as pb, protobuf, types};
use crate::tables::{Fault, FaultShare};

/// Reads the fault filter's configuration; `None` if it injects nothing.
pub(super) fn fault(any: &protobuf::Any) -> Result<Option<Fault>, Refusal> {
    let mut message: pb::HttpFault = typed(any, extension::FAULT.1)?;
    let delay = message.delay.take().map(delay).transpose().at("delay")?;
    let abort = message.abort.take().map(abort).transpose().at("abort")?;
    nothing_left(&message)?;
    Ok((delay.is_some() || abort.is_some()).then_some(Fault { delay, abort }))
}

/// Takes the fault out of configurations by filter, and refuses the others.
pub(super) fn per_filter(
    configs: &mut std::collections::HashMap<String, protobuf::Any>,
) -> Result<Option<Fault>, Refusal> {
    let found = configs.remove(extension::FAULT.0).map(|any| fault(&any)).transpose();
    let found = found.at("typed_per_filter_config")?;
    match configs.keys().min() {
        Some(other) => Err(Refusal::not_in_force(format!("typed_per_filter_config[{other}]"))),
        None => Ok(found.flatten()),
    }
}

fn delay(mut message: common_fault::FaultDelay) -> Result<(FaultShare, std::time::Duration), Refusal> {
    use common_fault::fault_delay::FaultDelaySecifier;
    let share = share(message.percentage.take())?;
    let wait = match message.fault_delay_secifier.take() {
        Some(FaultDelaySecifier::FixedDelay(wait)) => duration(Some(wait)).at("fixed_delay")?.unwrap_or_default(),
        Some(FaultDelaySecifier::HeaderDelay(_)) => return Err(Refusal::not_in_force("header_delay")),
        None => return Err(Refusal::invalid("the delay has no length")),
    };
    nothing_left(&message)?;
    Ok((share, wait))
}

fn abort(mut message: pb::FaultAbort) -> Result<(FaultShare, u16), Refusal> {
    let share = share(message.percentage.take())?;
    let status = match message.error_type.take() {
        Some(pb::fault_abort::ErrorType::HttpStatus(status)) => status,
        Some(_) => return Err(Refusal::not_in_force("grpc_status and header_abort")),
        None => return Err(Refusal::invalid("the abort has no status")),
    };
    nothing_left(&message)?;
    Ok((share, http_status(status)?))
}

/// A status that a proxy may answer with.
pub(super) fn http_status(status: u32) -> Result<u16, Refusal> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| Refusal::invalid(format!("{status} is not an HTTP status from 200 to 599")))
}

/// A share of requests; nothing said is none, as in Envoy.
pub(super) fn share(percent: Option<types::FractionalPercent>) -> Result<FaultShare, Refusal> {
    use types::fractional_percent::DenominatorType;
    let percent = percent.unwrap_or_default();
    let denominator = match DenominatorType::try_from(percent.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(error) => return Err(Refusal::invalid(format!("denominator: {error}"))),
    };
    Ok(FaultShare { numerator: percent.numerator, denominator })
}

/// A share that could be changed at run time where there is a runtime; here its default counts.
pub(super) fn runtime_share(message: &core::RuntimeFractionalPercent) -> Result<FaultShare, Refusal> {
    if !message.runtime_key.is_empty() {
        return Err(Refusal::not_in_force("runtime_key"));
    }
    share(message.default_value)
}
