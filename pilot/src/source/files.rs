//! YAML files as a source: read once, for tests and for a look at what a configuration would give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::object;
use api::problem::Problem;
use api::registry::Resource;
use serde_json::Value as Json;

use super::Change;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read", path.display())]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Everything that a file, or the `.yaml`, `.yml` and `.json` files of a directory, hold.
#[derive(Debug, Default)]
pub struct Files {
    /// All objects, by kind; every kind is there.
    pub changes: Vec<Change>,
    /// What is wrong with them. Objects with errors are there all the same: whether they are used is the registry's
    /// business.
    pub problems: Vec<Problem>,
}

/// Reads a file or a directory.
///
/// # Errors
///
/// When it, or a file in it, cannot be read.
pub fn read(path: &Path) -> Result<Files, Unreadable> {
    let mut objects: BTreeMap<Resource, Vec<Json>> = Resource::ALL.into_iter().map(|kind| (kind, Vec::new())).collect();
    let mut problems = Vec::new();
    for file in files(path)? {
        let text = std::fs::read_to_string(&file).map_err(|source| Unreadable { path: file.clone(), source })?;
        let (parsed, found) = object::validate_text(&file.display().to_string(), &text);
        problems.extend(found);
        for object in parsed {
            let api_version = object.json.get("apiVersion").and_then(Json::as_str).unwrap_or_default();
            if let Some(kind) = Resource::of(api_version, &object.kind) {
                objects.entry(kind).or_default().push(object.json);
            }
        }
    }
    let changes = objects.into_iter().map(|(kind, objects)| Change::All(kind, objects)).collect();
    Ok(Files { changes, problems })
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let unreadable = |source| Unreadable { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "yaml" | "yml" | "json") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
