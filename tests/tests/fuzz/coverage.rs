//! Whether every parser has a target: what source has is compared with what runs here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::targets::TARGETS;

/// Functions of the product that read bytes of others, with the target that reaches each.
const PARSERS: &[(&str, &str)] = &[
    ("ca/src/csr.rs: from_der", "csr"),
    ("ca/src/csr.rs: from_pem", "csr"),
    ("engine/src/compile/strict.rs: decode", "xds_resource"),
    ("engine/src/token/json.rs: parse_strictly", "jwt"),
    ("engine/src/token/keys.rs: parse", "jwks"),
    ("local/src/node/probe_grpc.rs: serving", "health_answer"),
    ("proxy/src/app_probe/grpc.rs: serving", "health_answer"),
    ("proxy/src/codec/head.rs: find_end", "http_request"),
    ("proxy/src/codec/head.rs: parse", "http_request"),
    ("proxy/src/codec/head.rs: parse_field", "http_request"),
    ("proxy/src/codec/head.rs: parse_length", "http_request"),
    ("proxy/src/codec/head.rs: read", "http_request"),
    ("proxy/src/codec/request.rs: parse_request", "http_request"),
    ("proxy/src/codec/response.rs: parse_response", "http_response"),
    ("proxy/src/codec/target.rs: parse_target", "http_request"),
    ("proxy/src/detect.rs: recognise", "first_bytes"),
    ("proxy/src/detect/client_hello.rs: read", "first_bytes"),
    ("proxy/src/frames.rs: scan", "h2_frames"),
    ("proxy/src/frames.rs: scan_sent", "h2_frames"),
    ("proxy/src/frames/sent.rs: scan", "h2_frames"),
    ("proxy/src/headers/h2.rs: of_text", "h2_heads"),
    ("proxy/src/headers/h2.rs: response_of_text", "h2_heads"),
    ("proxy/src/headers/h2.rs: trailer_of_text", "h2_heads"),
    ("proxy/src/pump/messages.rs: see", "grpc_messages"),
    ("proxy/src/trace_context/w3c.rs: parse", "trace_headers"),
    ("runtime/src/svid/bundle.rs: from_pem", "certificate"),
    ("runtime/src/svid/bundle.rs: read", "certificate"),
];

/// What functions are called that read something.
const WORDS: [&str; 11] =
    ["parse", "read", "decode", "scan", "see", "recognise", "serving", "find_end", "of_text", "from_der", "from_pem"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file of the product, by its path in the repository.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for part in ["api", "engine", "runtime", "proxy", "pilot", "ca", "install", "local"] {
        walk(&root().join(part).join("src"), &mut found);
    }
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, std::fs::read_to_string(&path).expect("text"))
    };
    found.into_iter().filter(|path| !path.ends_with("tests.rs")).map(read).collect()
}

/// The functions of a file that take bytes, without its tests.
fn taking_bytes(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter_map(|line| {
        let (before, rest) = line.split_once("fn ")?;
        let is_one = before.split_whitespace().all(|word| word.starts_with("pub"));
        let name = rest.split(['(', '<']).next()?;
        let (_, arguments) = rest.split_once('(')?;
        (is_one && arguments.contains("[u8]")).then_some(name)
    })
}

#[test]
fn every_parser_of_bytes_is_reached_by_a_target() {
    let mut found = BTreeSet::new();
    for (file, text) in sources() {
        if file.contains("/fuzz") || file.starts_with("proxy/src/access_log") {
            continue;
        }
        for name in taking_bytes(&text) {
            if WORDS.iter().any(|word| name.starts_with(word)) || name.ends_with("_of_text") {
                found.insert(format!("{file}: {name}"));
            }
        }
    }
    let known: BTreeSet<String> = PARSERS.iter().map(|(parser, _)| (*parser).to_owned()).collect();
    let unknown: Vec<&String> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "no target is known to reach these; name it in PARSERS, or write one: {unknown:?}");
    let gone: Vec<&String> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these are no more: {gone:?}");
    for (parser, target) in PARSERS {
        assert!(TARGETS.iter().any(|(name, _)| name == target), "{parser}: there is no target {target}");
    }
}

#[test]
fn every_entry_for_fuzzers_is_a_target() {
    let targets = std::fs::read_to_string(root().join("tests/fuzz/targets.rs")).expect("the targets");
    for (file, text) in sources() {
        let module = Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        for line in text.lines().filter_map(|line| line.strip_prefix("pub fn ")) {
            let Some(name) = line.strip_suffix("(bytes: &[u8]) {") else { continue };
            let called = if name == "fuzz" { format!("{module}::fuzz") } else { format!("::{name}") };
            // The API's own entry goes by another name outside.
            let is_renamed = file == "local/src/api/request.rs" && targets.contains("local::fuzz::api_request");
            if name == "fuzz" || file.contains("/fuzz") {
                assert!(targets.contains(&called) || is_renamed, "{file}: no target calls `{name}`");
            }
        }
    }
}

#[test]
fn every_target_runs_here_and_under_the_fuzzer() {
    let here = include_str!("main.rs");
    let manifest = std::fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).expect("the manifest");
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/fuzz/corpus")).expect("the corpus") {
        folders.insert(entry.expect("an entry").file_name().to_string_lossy().into_owned());
    }
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, names, "each target has a corpus, and each corpus a target");
    for name in names {
        assert!(here.contains(&format!("#[test]\nfn {name}() {{\n    fuzz(\"{name}\");\n}}\n")), "{name} does not run");
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "{name} is no binary of tests/fuzz");
        let binary = root().join(format!("tests/fuzz/fuzz_targets/{name}.rs"));
        assert!(binary.exists(), "{} is not there", binary.display());
    }
}
