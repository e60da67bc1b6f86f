//! Runs every fuzz target on its corpus, and on a fixed number of inputs made of it: the same ones each time.
//!
//! `MESH_FUZZ_ROUNDS` multiplies the number. `scripts/fuzz` looks for new inputs, with coverage as its guide.

#![expect(unreachable_pub, reason = "a test has no outside")]

#[path = "../../fuzz/targets.rs"]
mod targets;

mod coverage;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use engine::Kind;
use engine::text::from_json;
use serde_json::Value;
use targets::{TARGETS, Target};

/// Inputs that are made of the corpus of a target.
const INPUTS: usize = 20_000;
/// For targets that take longer.
const SLOW: &[(&str, usize)] = &[("yaml", 2_000), ("jwt", 4_000), ("admission", 2_000)];

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(&file).expect("a file"))).collect()
}

/// What Pilot sends for bookinfo, from the golden files. `BLESS=1` writes it into the corpus.
fn golden() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for (at, kind) in [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints].into_iter().enumerate() {
        let service = kind.service().to_lowercase();
        let file = root.join("../engine/tests/golden").join(format!("productpage-v1-{service}.json"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let resources: Vec<Value> = serde_json::from_str(&text).expect("a list of resources");
        for (nth, resource) in resources.iter().enumerate() {
            let name = resource["name"].as_str().or(resource["clusterName"].as_str()).expect("a name");
            let read = from_json(kind, resource, name).expect("a resource");
            let input = [&[at as u8][..], &read.body].concat();
            let corpus = root.join("fuzz/corpus/xds_resource").join(format!("{service}-{nth:02}"));
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&corpus, &input).expect("writes");
            }
            all.push((corpus, input));
        }
    }
    all
}

/// Runs a target; a panic becomes a message with the input that gives it.
fn run(target: Target, from: &Path, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| target(input)))
        .map_err(|_| format!("{} made {:?}", from.display(), String::from_utf8_lossy(input)))
}

fn fuzz(name: &str) {
    let (_, target) = TARGETS.iter().find(|(of, _)| *of == name).expect("a target");
    let mut corpus = corpus(name);
    if name == "xds_resource" {
        corpus.extend(golden());
    }
    assert!(!corpus.is_empty(), "the corpus of {name} is empty");
    for (file, input) in &corpus {
        run(*target, file, input).unwrap_or_else(|finding| panic!("{name}: {finding}"));
    }
    let rounds = std::env::var_os("MESH_FUZZ_ROUNDS")
        .map_or(1, |rounds| rounds.to_string_lossy().parse::<usize>().expect("MESH_FUZZ_ROUNDS is a number"));
    let inputs = SLOW.iter().find(|(of, _)| *of == name).map_or(INPUTS, |(_, inputs)| *inputs);
    let mut dice = mutate::Dice::new(name);
    for _ in 0..inputs * rounds {
        let (file, input) = dice.of(&corpus);
        let (_, other) = dice.of(&corpus);
        let made = mutate::mutated(&mut dice, input, other);
        run(*target, file, &made).unwrap_or_else(|finding| panic!("{name}: {finding}"));
    }
}

#[test]
fn http_request() {
    fuzz("http_request");
}

#[test]
fn http_response() {
    fuzz("http_response");
}

#[test]
fn chunked() {
    fuzz("chunked");
}

#[test]
fn first_bytes() {
    fuzz("first_bytes");
}

#[test]
fn path() {
    fuzz("path");
}

#[test]
fn xds_resource() {
    fuzz("xds_resource");
}

#[test]
fn yaml() {
    fuzz("yaml");
}

#[test]
fn csr() {
    fuzz("csr");
}

#[test]
fn certificate() {
    fuzz("certificate");
}

#[test]
fn h2_frames() {
    fuzz("h2_frames");
}

#[test]
fn h2_heads() {
    fuzz("h2_heads");
}

#[test]
fn grpc_messages() {
    fuzz("grpc_messages");
}

#[test]
fn trace_headers() {
    fuzz("trace_headers");
}

#[test]
fn health_answer() {
    fuzz("health_answer");
}

#[test]
fn workload_api() {
    fuzz("workload_api");
}

#[test]
fn jwt() {
    fuzz("jwt");
}

#[test]
fn jwks() {
    fuzz("jwks");
}

#[test]
fn dns_question() {
    fuzz("dns_question");
}

#[test]
fn api_request() {
    fuzz("api_request");
}

#[test]
fn admission() {
    fuzz("admission");
}
