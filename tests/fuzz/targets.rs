//! Every parser of bytes that come from elsewhere, as a function that takes any bytes and panics on a finding.
//!
//! Used by the fuzz targets (`scripts/fuzz`), and by the test that runs the corpus and what is made of it (`tests/tests/fuzz`).

use engine::Kind;
use engine::path::{canonical_authority, canonical_path};
use engine::tables::{PathPolicy, Provider, ServerName, Slashes};

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
    ("h2_frames", mesh_proxy::fuzz::http2::frames),
    ("h2_heads", mesh_proxy::fuzz::http2::heads),
    ("grpc_messages", mesh_proxy::fuzz::http2::messages),
    ("trace_headers", mesh_proxy::fuzz::small::trace_headers),
    ("health_answer", health_answer),
    ("workload_api", mesh_proxy::fuzz::small::workload_api),
    ("jwt", jwt),
    ("jwks", jwks),
    ("dns_question", local::fuzz::dns_question),
    ("api_request", local::fuzz::api_request),
    ("admission", mesh_pilot::webhook::fuzz),
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

/// Certificates of peers, and roots as the CA hands them out. What is read as an SVID is the identity of a workload.
pub fn certificate(bytes: &[u8]) {
    if let Ok(leaf) = runtime::svid::Leaf::read(&bytes.into()) {
        assert!(!leaf.peer.id.path().is_empty());
    }
    let domain = "cluster.local".parse().expect("a trust domain");
    if let Ok(bundle) = runtime::svid::Bundle::from_pem(&domain, &[], bytes) {
        assert!(!bundle.own_roots().is_empty(), "a bundle without a root trusts nobody, and is none");
    }
}

/// What a health service answers: to the proxy's probe, and to the node's.
pub fn health_answer(bytes: &[u8]) {
    mesh_proxy::fuzz::small::health_answer(bytes);
    local::fuzz::health_answer(bytes);
}

/// The keys of samples/auth/jwt.yaml, whose private half nobody has.
const KEYS: &[u8] = include_bytes!("corpus/jwks/demo");
/// The one token that was signed with it (samples/auth/demo.jwt), as far as it is signed.
const SIGNED: &str = include_str!("corpus/jwt/demo");

/// Tokens of end users: none but the one that was signed is believed, whatever stands around its parts.
pub fn jwt(bytes: &[u8]) {
    let read = engine::token::check(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let provider = Provider {
        name: "demo".into(),
        issuer: "https://issuer.example".into(),
        audiences: vec!["bookinfo".into()],
        keys: engine::token::KeySet::parse(KEYS).expect("keys"),
        headers: Vec::new(),
        params: Vec::new(),
        cookies: Vec::new(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        key: "demo".into(),
        skew: 60,
        must_expire: true,
        fingerprint: [0; 32],
    };
    let now = 1_800_000_000;
    if let Ok(claims) = engine::token::verify(&provider, text, now) {
        assert!(read.is_ok());
        assert_eq!(claims.principal().as_deref(), Some("https://issuer.example/jason"));
        assert_eq!(text, SIGNED.trim_end(), "only what was signed verifies, in its one spelling");
    }
}

/// The key sets of issuers: what is read has keys.
pub fn jwks(bytes: &[u8]) {
    if let Ok(keys) = engine::token::KeySet::parse(bytes) {
        assert!(!keys.is_empty(), "without a key nobody is let in, so there is no such set");
    }
}
