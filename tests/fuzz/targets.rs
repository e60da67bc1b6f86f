//! Every parser of bytes that come from elsewhere, as a function that takes any bytes and panics on a finding.
//!
//! Used by the fuzz targets (`scripts/fuzz`), and by the test that runs the corpus and what is made of it (`tests/tests/fuzz`).

use engine::Kind;
use engine::path::{canonical_authority, canonical_path};
use engine::tables::{PathPolicy, ServerName, Slashes};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name; each has a folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("http_request", mesh_proxy::fuzz::requests),
    ("http_response", mesh_proxy::fuzz::responses),
    ("chunked", mesh_proxy::fuzz::chunks),
    ("first_bytes", mesh_proxy::fuzz::first_bytes),
    ("path", path),
    ("xds_resource", xds_resource),
    ("yaml", yaml),
    ("csr", mesh_ca::csr::fuzz),
    ("certificate", certificate),
];

/// Paths and authorities of requests: canonical once is canonical twice.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for escaped_slashes in [Slashes::Keep, Slashes::Reject, Slashes::Unescape] {
        let policy = PathPolicy { merge_slashes: true, escaped_slashes };
        if let Ok(once) = canonical_path(text, policy) {
            assert_eq!(canonical_path(&once, policy).as_deref().ok(), Some(&*once));
        }
    }
    if let Ok(once) = canonical_authority(text) {
        assert_eq!(canonical_authority(&once).as_deref().ok(), Some(&*once));
    }
    if let Some(name) = ServerName::parse(text) {
        assert_eq!(ServerName::parse(&name.to_string()), Some(name));
    }
}

/// Bytes of a control plane: the first byte chooses the type, the rest is the resource.
pub fn xds_resource(bytes: &[u8]) {
    if let Some((kind, body)) = bytes.split_first() {
        let kinds = [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];
        let _ = engine::compile::check(kinds[usize::from(*kind) % kinds.len()], "fuzzed", body);
    }
}

/// Files of users, and objects of the API server.
pub fn yaml(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = api::object::validate_text("fuzzed.yaml", text);
    }
}

/// Certificates of peers. What is read as an SVID is the identity of a workload.
pub fn certificate(bytes: &[u8]) {
    if let Ok(leaf) = runtime::svid::Leaf::read(&bytes.into()) {
        assert!(!leaf.peer.id.path().is_empty());
    }
}
