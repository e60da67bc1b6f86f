//! What `-f` brings: texts, and the objects in them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::model::Mesh;
use api::problem::{Location, Problem};
use api::registry::{Registry, Resource};
use serde_json::Value;

use crate::error::{Error, count, io_words};
use crate::flags::FileArgs;

/// A text and the name by which the user knows it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file as the user named it, `-` for standard input.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// An object of a file.
#[derive(Debug, Clone)]
pub struct Object {
    /// The object, in the API's own form.
    pub value: Value,
    /// Where it begins.
    pub location: Option<Location>,
}

impl Object {
    /// A problem with the object as a whole.
    #[must_use]
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        let problem = Problem::error(message);
        match &self.location {
            Some(location) => problem.at(location.clone()),
            None => problem,
        }
    }
}

/// Reads all files that are named.
///
/// # Errors
/// When none is named, or one cannot be read: all that cannot be read are listed.
pub fn sources(files: &FileArgs) -> Result<Vec<Source>, Error> {
    if files.files.is_empty() {
        return Err(Error::usage("no file is given").hint("name files with `-f FILE`, or `-f -` for standard input"));
    }
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for path in &files.files {
        let read = if path.as_os_str() == "-" { stdin() } else { read(path, files.recursive) };
        match read {
            Ok(found) => sources.extend(found),
            Err(problem) => problems.push(*problem),
        }
    }
    match problems.len() {
        0 => Ok(sources),
        _ => Err(Error::problems(String::new(), problems)),
    }
}

fn stdin() -> Result<Vec<Source>, Box<Problem>> {
    let mut text = String::new();
    match std::io::stdin().lock().read_to_string(&mut text) {
        Ok(_) => Ok(vec![Source { name: "-".to_owned(), text }]),
        Err(e) => Err(Problem::error(format!("cannot read standard input: {}", io_words(&e))).into()),
    }
}

fn read(path: &Path, recursive: bool) -> Result<Vec<Source>, Box<Problem>> {
    let unreadable = |path: &Path, e: &std::io::Error| {
        let problem = Problem::error(format!("cannot read {}: {}", path.display(), io_words(e)));
        Box::new(match neighbour(path) {
            Some(near) if e.kind() == std::io::ErrorKind::NotFound => {
                problem.with_hint(format!("did you mean `{near}`?"))
            }
            _ => problem,
        })
    };
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
        return Ok(vec![Source { name: path.display().to_string(), text }]);
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| unreadable(path, &e))? {
        paths.push(entry.map_err(|e| unreadable(path, &e))?.path());
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let is_text = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if (path.is_dir() && recursive) || (path.is_file() && is_text) {
            sources.extend(read(&path, recursive)?);
        }
    }
    if sources.is_empty() {
        return Err(Problem::error(format!("{} holds no .yaml, .yml or .json file", path.display())).into());
    }
    Ok(sources)
}

/// A file beside one that is not there, with nearly the same name.
fn neighbour(path: &Path) -> Option<String> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(parent)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let near = api::suggest::closest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(path.with_file_name(near).display().to_string())
}

/// What was read from texts: the objects that are sound, and every problem.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Objects without an error, in written order.
    pub objects: Vec<Object>,
    /// Problems of all texts, in written order.
    pub problems: Vec<Problem>,
}

impl Parsed {
    /// Adds what objects say that others of them say differently, and what is wrong with Ingresses of the mesh's.
    pub fn doubt(&mut self) {
        let resource_of = |object: &Object| {
            let text = |field: &str| object.value.get(field).and_then(Value::as_str).unwrap_or_default();
            Resource::of(text("apiVersion"), text("kind"))
        };
        let all: Vec<_> = self.objects.iter().filter_map(|object| Some((resource_of(object)?, object))).collect();
        // Most files are rules and services, of which nothing is asked here; services are where an Ingress leads to them.
        let has_ingress = all.iter().any(|(resource, _)| *resource == Resource::Ingress);
        let is_asked = |resource: Resource| match resource {
            Resource::Service | Resource::Ingress => has_ingress,
            Resource::RouteRule { .. } | Resource::DestinationPolicy { .. } => false,
            other => other.is_ours(),
        };
        let mut registry = Registry::new(Mesh::default());
        for (resource, object) in all.into_iter().filter(|(resource, _)| is_asked(*resource)) {
            registry.apply_from(resource, &object.value, object.location.clone());
        }
        self.problems.extend(registry.doubts());
    }
}

/// Parses and checks texts.
#[must_use]
pub fn parse(sources: &[Source]) -> Parsed {
    let mut parsed = Parsed::default();
    for source in sources {
        let (objects, problems) = api::object::validate_text(&source.name, &source.text);
        parsed.problems.extend(problems);
        let accepted = objects.into_iter().filter(|object| object.is_accepted);
        parsed.objects.extend(accepted.map(|object| Object { value: object.json, location: object.location }));
    }
    parsed
}

/// Reads, parses and checks all files; nothing comes out unless all of it is sound. Warnings are handed out.
///
/// # Errors
/// When a file cannot be read, or any object in any of them has a problem: all problems are in the error.
pub fn load(files: &FileArgs, consequence: &str) -> Result<(Vec<Object>, Vec<Problem>), Error> {
    let sources = sources(files)?;
    let parsed = parse(&sources);
    if parsed.problems.iter().any(Problem::is_error) {
        return Err(invalid(parsed.problems, sources.len(), consequence));
    }
    Ok((parsed.objects, parsed.problems))
}

/// The error that lists all problems and sums them up.
#[must_use]
pub fn invalid(problems: Vec<Problem>, files: usize, consequence: &str) -> Error {
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let warnings = problems.len() - errors;
    let mut summary = format!("{} in {}", count(errors, "error"), count(files, "file"));
    if warnings > 0 {
        summary = format!("{} and {} in {}", count(errors, "error"), count(warnings, "warning"), count(files, "file"));
    }
    Error::problems(format!("{summary}; {consequence}"), problems)
}

/// The objects of texts, whether or not they are sound: for commands that only need their names.
///
/// # Errors
/// When a text is not YAML, or an object in it has no kind or name.
pub fn parse_loosely(sources: &[Source]) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for source in sources {
        let (found, said) = api::object::validate_text(&source.name, &source.text);
        // Without any object, the problems say why.
        if found.is_empty() {
            problems.extend(said);
        }
        objects.extend(found.into_iter().map(|object| Object { value: object.json, location: object.location }));
    }
    if problems.is_empty() { Ok(objects) } else { Err(invalid(problems, sources.len(), "nothing was deleted")) }
}
