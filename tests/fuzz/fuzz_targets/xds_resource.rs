//! Bytes of a control plane: the first byte chooses the type, the rest is the resource.
#![no_main]

use engine::Kind;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, body)) = bytes.split_first() {
        let kinds = [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];
        let _ = engine::compile::check(kinds[usize::from(*kind) % kinds.len()], "fuzzed", body);
    }
});
