//! Bytes of a downstream peer: heads, bodies, chunks, one request after the other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh_proxy::codec::fuzz_request(bytes);
});
