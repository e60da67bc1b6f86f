//! Circuit breakers and outlier detection of policies → fields of `Cluster`.

use api::model::{CircuitBreaker, Outlier};

use super::message::duration;
use crate::proto::{cluster as pb, protobuf};

use pb::circuit_breakers::{Thresholds, thresholds::RetryBudget};

/// Bounds of a policy. Without one there are none: a proxy's own defaults, which are for one upstream in front of the
/// open network, would come as a surprise here. Retries are bounded by a share of the requests, by the defaults of a
/// budget that is there: 20 %, and at least 3.
pub(super) fn breakers(breaker: Option<&CircuitBreaker>) -> pb::CircuitBreakers {
    let number = |bound: Option<std::num::NonZeroU32>| Some(value(bound.map_or(u32::MAX, std::num::NonZero::get)));
    let retries = breaker.and_then(|breaker| breaker.retries);
    let thresholds = Thresholds {
        max_connections: number(breaker.and_then(|breaker| breaker.connections)),
        max_pending_requests: number(breaker.map(|breaker| breaker.pending)),
        max_requests: number(breaker.map(|breaker| breaker.requests)),
        max_retries: retries.map(|bound| value(bound.get())),
        retry_budget: retries.is_none().then(RetryBudget::default),
        ..Default::default()
    };
    pb::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// Ejection by failures in a row alone: Envoy's other ways are switched off.
pub(super) fn outlier_detection(outlier: &Outlier) -> pb::OutlierDetection {
    pb::OutlierDetection {
        consecutive_5xx: Some(value(outlier.consecutive_errors.get())),
        interval: Some(duration(outlier.interval)),
        base_ejection_time: Some(duration(outlier.base_ejection)),
        max_ejection_percent: Some(value(outlier.max_percent)),
        enforcing_success_rate: Some(value(0)),
        always_eject_one_host: Some(protobuf::BoolValue { value: true }),
        ..Default::default()
    }
}

fn value(value: u32) -> protobuf::UInt32Value {
    protobuf::UInt32Value { value }
}
