//! The control side on loopback: a proxy that follows an ADS server which each test plays itself, and the binary on a
//! configuration from a file.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![allow(missing_docs, reason = "the harness is read with the tests")]

#[path = "control/ads.rs"]
mod ads;
#[path = "control/binary.rs"]
mod binary;
#[path = "control/dynamic.rs"]
mod dynamic;
#[path = "control/resources.rs"]
mod resources;
#[path = "control/tls_cost.rs"]
mod tls_cost;
#[path = "control/upstream.rs"]
mod upstream;

use std::time::Duration;

/// How long a test waits for a fact before it fails.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `fact` gives something, looking every few milliseconds.
pub async fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
