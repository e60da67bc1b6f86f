//! Bytes of a caller of the CA: a certificate signing request, as PEM and as DER.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh_ca::csr::fuzz(bytes);
});
