//! Hashes that are the same in every process: versions of resources are compared over replicas and restarts.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::FixedState;

/// Hashes a value with a fixed seed. Not for keys that an attacker chooses.
#[must_use]
pub fn of<T: Hash + ?Sized>(value: &T) -> u64 {
    FixedState::with_seed(0x6d65_7368).hash_one(value)
}
