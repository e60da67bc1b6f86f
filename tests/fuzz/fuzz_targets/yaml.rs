//! Files of users and objects of the API server.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = api::object::validate_text("fuzzed.yaml", text);
});
