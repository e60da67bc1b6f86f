//! Paths of requests: canonical once is canonical twice.
#![no_main]

use engine::path::{PathPolicy, canonical_path};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let policy = PathPolicy::default();
    if let Ok(once) = canonical_path(text, policy) {
        assert_eq!(canonical_path(&once, policy).as_deref().ok(), Some(&*once));
    }
});
