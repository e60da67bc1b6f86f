//! Endpoints that fail are left out for a while. Time is the caller's: milliseconds since any moment, never 0.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Endpoint;

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject it: answers from 500 to 599, or none.
    pub consecutive_errors: u32,
    /// Every such time without an ejection takes one off the factor of the next one.
    pub interval: Duration,
    /// How long the first ejection is; the second is twice as long, and so on.
    pub base: Duration,
    /// The longest ejection.
    pub max: Duration,
    /// The share of endpoints that may be ejected at one time; one always may.
    pub max_percent: u32,
}

/// How one endpoint has done. The data path writes it through [`Ejections`].
#[derive(Debug, Default)]
pub struct Health {
    errors: AtomicU32,
    until: AtomicU64,
    factor: AtomicU32,
}

impl Health {
    /// When the ejection ends, if the endpoint is ejected.
    #[must_use]
    pub fn ejected_until(&self, now: u64) -> Option<u64> {
        Some(self.until.load(Ordering::Relaxed)).filter(|until| *until > now)
    }
}

/// The ejections among a cluster's endpoints; they survive updates.
#[derive(Debug, Default)]
pub struct Ejections {
    /// When the last of them ends; 0 if there has been none.
    latest: AtomicU64,
    /// How many there have been.
    total: AtomicU64,
    /// One at a time is decided about, as each counts the others.
    deciding: Mutex<()>,
}

impl Ejections {
    /// Whether somebody may be ejected now: cheap, and exact once the last ejection has ended.
    #[must_use]
    pub fn may_be(&self) -> bool {
        self.latest.load(Ordering::Relaxed) != 0
    }

    /// How many there have been.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes down that everybody is back.
    pub(crate) fn settle(&self, now: u64) {
        let latest = self.latest.load(Ordering::Relaxed);
        if latest <= now {
            // If another has been ejected meanwhile, it is not the same moment any more.
            let _ = self.latest.compare_exchange(latest, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Takes down how a request went at an endpoint, and ejects it if that was one failure too many. `true` if it did.
    pub fn observe(
        &self,
        outlier: &Outlier,
        (endpoint, all): (&Endpoint, &[Arc<Endpoint>]),
        is_error: bool,
        now: impl FnOnce() -> u64,
    ) -> bool {
        let health = &endpoint.load.health;
        if !is_error {
            if health.errors.load(Ordering::Relaxed) != 0 {
                health.errors.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let errors = health.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        errors >= outlier.consecutive_errors && self.eject(outlier, health, all, now())
    }

    /// Leaves out an endpoint for a time, though it is not ejected: it takes nothing now.
    pub fn rest(&self, endpoint: &Endpoint, now: u64, time: Duration) {
        let until = now.saturating_add(millis(time));
        endpoint.load.health.until.fetch_max(until, Ordering::Relaxed);
        self.latest.fetch_max(until, Ordering::Relaxed);
    }

    fn eject(&self, outlier: &Outlier, health: &Health, all: &[Arc<Endpoint>], now: u64) -> bool {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if health.ejected_until(now).is_some() {
            return false;
        }
        let ejected = all.iter().filter(|other| other.load.health.ejected_until(now).is_some()).count();
        if ejected > 0 && (ejected + 1) * 100 > all.len() * outlier.max_percent as usize {
            return false;
        }
        let idle = now.saturating_sub(health.until.load(Ordering::Relaxed)) / millis(outlier.interval).max(1);
        let factor = u64::from(health.factor.load(Ordering::Relaxed)).saturating_sub(idle) + 1;
        let time = millis(outlier.base).saturating_mul(factor).min(millis(outlier.max.max(outlier.base)));
        let until = now.saturating_add(time);
        health.errors.store(0, Ordering::Relaxed);
        health.factor.store(u32::try_from(factor).unwrap_or(u32::MAX), Ordering::Relaxed);
        health.until.store(until, Ordering::Relaxed);
        self.latest.fetch_max(until, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
