//! Whether the pages for users name what there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of all files below a folder with this extension.
fn text_below(folder: &Path, extension: &str) -> String {
    let mut all = String::new();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            all.push_str(&text_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            all.push_str(&std::fs::read_to_string(&path).expect("text"));
        }
    }
    all
}

#[test]
fn every_variable_that_a_daemon_reads_is_in_the_docs() {
    // Named when a binary is built, and an operator of the access log.
    let others = ["MESH_REVISION", "MESH_FAILURE"];
    let docs = text_below(&root().join("docs"), "md");
    let mut read = BTreeSet::new();
    for part in ["proxy", "pilot", "ca", "runtime"] {
        let source = text_below(&root().join(part).join("src"), "rs");
        let is_name = |text: &&str| {
            text.starts_with("MESH_")
                && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        };
        read.extend(source.split('"').filter(is_name).map(str::to_owned));
    }
    assert!(read.len() > 50, "they are found: {read:?}");
    let missing: Vec<&String> =
        read.iter().filter(|name| !others.contains(&name.as_str()) && !docs.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "no page of docs/ says what these are: {missing:?}");
}
