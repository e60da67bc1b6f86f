//! Entries for fuzzers: what pods, and clients of the local API, may send. A panic is a finding; `tests/fuzz` has the targets.

pub use crate::api::fuzz_request as api_request;

/// What a pod asks the cluster's DNS server.
///
/// # Panics
///
/// When the answer is none to the question, or cannot be sent.
pub fn dns_question(bytes: &[u8]) {
    crate::node::fuzz_dns(bytes);
}

/// What a pod's health service answers to a probe.
pub fn health_answer(bytes: &[u8]) {
    crate::node::fuzz_health(bytes);
}
