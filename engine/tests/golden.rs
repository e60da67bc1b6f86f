//! Generated resources for bookinfo, compared with `tests/golden`; `BLESS=1` rewrites them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::path::Path;

use engine::Kind;
use engine::generate;
use engine::text::to_json;
use serde_json::Value;
use support::*;

#[test]
fn resources_for_bookinfo_are_those_of_the_golden_files() {
    let model = with_rules();
    let nodes = [
        ("productpage-v1", sidecar(&model, "productpage", "v1")),
        ("reviews-v2", sidecar(&model, "reviews", "v2")),
        ("gateway", gateway()),
    ];
    let mut differing = Vec::new();
    for (name, node) in nodes {
        let all = generate::everything(&model, &node);
        for kind in Kind::ALL {
            // What is the same for every sidecar is shown once.
            let is_shown = |name_of: &str| {
                name == "productpage-v1" || !generate::is_shared(&model, node.role, kind, name_of) || name == "gateway"
            };
            let of_kind = all.iter().filter(|resource| resource.kind == kind && is_shown(&resource.name));
            let shown: Vec<Value> = of_kind.map(|resource| to_json(kind, &resource.body).unwrap()).collect();
            if (name == "gateway" && matches!(kind, Kind::Cluster | Kind::Endpoints)) || shown.is_empty() {
                continue;
            }
            let file = format!("{name}-{}.json", kind.service().to_lowercase());
            differing.extend(compare(&file, &Value::Array(shown)));
        }
    }
    assert!(differing.is_empty(), "{differing:?} differ; BLESS=1 rewrites them");
}

#[test]
fn the_guards_before_an_application_are_those_of_the_golden_file() {
    let model = model_with(&samples(&ACCESS));
    let node = sidecar(&model, "productpage", "v1");
    let listener = generate::listener(&model, &node, "virtual_inbound").unwrap();
    let shown = to_json(Kind::Listener, &listener.body).unwrap();
    assert_eq!(compare("productpage-v1-access-lds.json", &shown), None, "it differs; BLESS=1 rewrites it");
}

/// Gives the file's name if it says something else.
fn compare(file: &str, found: &Value) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let found = format!("{found:#}\n");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    (expected != found).then(|| file.to_owned())
}
