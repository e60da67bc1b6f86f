//! The validation table of the classic kinds, and the classic samples.

use std::fs;
use std::path::{Path, PathBuf};

use api::object;
use serde_json::{Value, json};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cases that are valid, but use something that is not in force yet: by the field or kind that is refused.
const NOT_IN_FORCE: &[&str] = &["EgressRule", "tcp", "mirror", "corsPolicy", "wildcard"];

#[test]
fn the_classic_validation_table_holds_except_for_what_is_not_in_force() {
    let cases: Vec<Value> = serde_json::from_str(&read(&data("validation.json"))).expect("the table is JSON");
    let mut wrong = Vec::new();
    for case in &cases {
        let object = json!({
            "apiVersion": "config.istio.io/v1alpha2",
            "kind": case["kind"],
            "metadata": {"name": "case", "namespace": "default"},
            "spec": case["spec"],
        });
        let problems = object::validate_object(&object);
        let (later, refused): (Vec<_>, Vec<_>) =
            problems.iter().filter(|problem| problem.is_error()).partition(|problem| problem.is_not_in_force());
        if refused.is_empty() != case["valid"].as_bool().expect("every case says what is expected") {
            wrong.push(format!("{case}: {refused:?}"));
        }
        for problem in later.iter().filter(|_| refused.is_empty()) {
            assert!(NOT_IN_FORCE.iter().any(|known| problem.message.contains(known)), "{case}: {}", problem.message);
        }
    }
    assert!(cases.len() > 80, "{}", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn samples() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for release in ["0.2.12", "0.5.1", "0.8.0-kube"] {
        let folder = data("bookinfo").join(release);
        for entry in fs::read_dir(&folder).expect("the samples are there") {
            found.push(entry.expect("a folder can be read").path());
        }
    }
    found.sort();
    found
}

#[test]
fn the_classic_samples_are_accepted_as_they_are() {
    let mut objects = 0;
    for path in samples() {
        let (parsed, problems) = object::validate_text(&path.display().to_string(), &read(&path));
        let refused: Vec<_> = problems.iter().filter(|problem| !problem.is_not_in_force()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let is_egress = path.display().to_string().contains("egress-rule");
        assert_eq!(parsed.iter().all(|object| object.is_accepted), !is_egress, "{}", path.display());
        objects += parsed.len();
    }
    assert!(objects > 50, "{objects}");
}

#[test]
fn an_accepted_object_is_accepted_again_as_it_is_rendered() {
    for path in samples() {
        let (parsed, _) = object::validate_text("first.yaml", &read(&path));
        for object in parsed {
            let text = api::yaml::render(&object.json);
            let (again, problems) = object::validate_text("again.yaml", &text);
            assert!(problems.iter().all(|problem| problem.is_not_in_force()), "{text}\n{problems:?}");
            assert_eq!(again[0].json, object.json, "{text}");
        }
    }
}

#[test]
fn the_classic_application_is_passed_through() {
    for file in ["bookinfo/kubernetes/bookinfo.yaml", "bookinfo/kubernetes/bookinfo-ingress.yaml"] {
        let (parsed, problems) = object::validate_text(file, &read(&data(file)));
        assert_eq!(problems, [], "{file}");
        assert!(!parsed.is_empty() && parsed.iter().all(|object| object.ours.is_none()), "{file}");
    }
}

#[test]
fn the_samples_of_this_repository_are_accepted() {
    let folders = ["bookinfo", "auth"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").join(name));
    let mut ours = 0;
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the samples are there"));
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".yaml") && name != "local-images.yaml" {
            let (parsed, problems) = object::validate_text(name, &read(&path));
            assert_eq!(problems, [], "{name}");
            ours += parsed.iter().filter(|object| object.ours.is_some()).count();
        }
    }
    assert!(ours > 10, "{ours}");
}
