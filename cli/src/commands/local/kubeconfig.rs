//! `local kubeconfig`: how `kubectl` reaches the mesh.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Mesh;
use crate::app::App;
use crate::error::{Error, io_words};
use crate::resources::text;

const EXAMPLES: &str = "\
Examples:
  # Use kubectl on the mesh, in this shell
  KUBECONFIG=$(meshctl local kubeconfig) kubectl get pods,routerules -A
  # Add it to ~/.kube/config beside what is there; `local down` takes it out again
  meshctl local kubeconfig --merge
  kubectl --context mesh-default get pods
  # And make it the one that kubectl means
  meshctl local kubeconfig --merge --set-current";

/// Arguments of `local kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KubeconfigArgs {
    /// Print its text instead of its path
    #[arg(long, conflicts_with = "merge")]
    raw: bool,
    /// Add it to a kubeconfig, by default ~/.kube/config; everything else in that file stays
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "FILE", default_missing_value = KUBECTLS)]
    merge: Option<PathBuf>,
    /// With --merge: make it the current context
    #[arg(long, requires = "merge")]
    set_current: bool,
}

/// What `--merge` means by itself: kubectl's own file.
const KUBECTLS: &str = "~/.kube/config";
/// The file of the state directory that says where the mesh was merged into.
const NOTE: &str = "merged-kubeconfigs.json";
/// The lists of a kubeconfig.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// One kubeconfig that an entry was added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Merged {
    file: PathBuf,
    /// Name of the entry.
    name: String,
    /// The context that was the current one before.
    current_before: Option<String>,
}

/// Runs `local kubeconfig`.
///
/// # Errors
/// When the mesh has never run, or a file cannot be read or written.
pub(super) fn run(app: &App, mesh: &Mesh, args: &KubeconfigArgs) -> Result<(), Error> {
    let path = mesh.dir.join("kubeconfig");
    if !path.exists() {
        return Err(mesh.not_running());
    }
    if let Some(file) = &args.merge {
        let file = match file == Path::new(KUBECTLS) {
            false => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
            true => app.settings.default_kubeconfig().ok_or_else(|| {
                Error::failed("HOME is not set, so there is no ~/.kube/config").hint("name one with `--merge=FILE`")
            })?,
        };
        return merge(app, mesh, &file, args.set_current);
    }
    if args.raw {
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::failed(format!("cannot read {}: {}", path.display(), io_words(&e))))?;
        return app.ui.print(&text);
    }
    app.ui.line(&path.display().to_string())
}

fn merge(app: &App, mesh: &Mesh, file: &Path, set_current: bool) -> Result<(), Error> {
    let ours = read(&mesh.dir.join("kubeconfig"))?;
    let mut theirs =
        if file.exists() { read(file)? } else { json!({ "apiVersion": "v1", "kind": "Config", "preferences": {} }) };
    let name = text(&ours, &["current-context"]).unwrap_or_default().to_owned();
    let mut notes = notes(mesh);
    let known = notes.iter().position(|note| note.file == file && note.name == name);
    if known.is_none()
        && let Some(foreign) = foreign(&theirs, &ours, &name)
    {
        return Err(Error::failed(format!("{} has another {foreign} `{name}` already", file.display()))
            .hint("rename it there, or start the mesh under another name with `--name`"));
    }
    put(&mut theirs, &ours, &name, file)?;
    let current = text(&theirs, &["current-context"]).filter(|it| !it.is_empty()).map(str::to_owned);
    let mut note = match known {
        Some(at) => notes.remove(at),
        None => Merged { file: file.to_owned(), name: name.clone(), current_before: None },
    };
    if set_current && current.as_deref() != Some(&name) {
        note.current_before = current;
        theirs["current-context"] = json!(name);
    }
    notes.push(note);
    // The note first: what is noted and not there is harmless, what is there and not noted would stay for good.
    write(&mesh.dir.join(NOTE), &format!("{:#}\n", json!(notes)))?;
    write(file, &api::yaml::render(&theirs))?;
    app.ui.say(&format!(
        "added context `{name}` to {}; `meshctl local down{}` takes it out",
        file.display(),
        mesh.flag()
    ));
    app.ui.line(&name)
}

/// Takes out of kubeconfigs what [`merge`] added. What cannot be taken out is told and no reason to fail.
pub(super) fn unmerge(app: &App, mesh: &Mesh) {
    for note in notes(mesh) {
        match remove(&note) {
            Ok(true) => app.ui.say(&format!("removed context `{}` from {}", note.name, note.file.display())),
            Ok(false) => {}
            Err(error) => app.ui.warn(error.message()),
        }
    }
    let _ = std::fs::remove_file(mesh.dir.join(NOTE));
}

fn notes(mesh: &Mesh) -> Vec<Merged> {
    std::fs::read(mesh.dir.join(NOTE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn remove(note: &Merged) -> Result<bool, Error> {
    if !note.file.exists() {
        return Ok(false);
    }
    let mut config = read(&note.file)?;
    let mut is_changed = false;
    for list in LISTS {
        let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let before = entries.len();
        entries.retain(|entry| entry["name"] != *note.name);
        is_changed |= entries.len() != before;
    }
    if config["current-context"] == *note.name {
        let is_there = |name: &String| entries(&config, "contexts").any(|entry| entry["name"] == **name);
        config["current-context"] = json!(note.current_before.clone().filter(is_there).unwrap_or_default());
        is_changed = true;
    }
    if is_changed {
        write(&note.file, &api::yaml::render(&config))?;
    }
    Ok(is_changed)
}

fn entries<'a>(config: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    config.get(list).and_then(Value::as_array).into_iter().flatten()
}

/// An entry of that name that is not this mesh's: its cluster is trusted by another root.
fn foreign(theirs: &Value, ours: &Value, name: &str) -> Option<&'static str> {
    let entry = |config: &'_ Value, list| entries(config, list).find(|it| it["name"] == *name).cloned();
    let root = |config| entry(config, "clusters")?.pointer("/cluster/certificate-authority-data").cloned();
    let is_ours = root(theirs).is_some_and(|found| root(ours) == Some(found));
    if is_ours {
        return None;
    }
    [("clusters", "cluster"), ("users", "user"), ("contexts", "context")]
        .into_iter()
        .find(|(list, _)| entry(theirs, list).is_some())
        .map(|(_, word)| word)
}

fn put(theirs: &mut Value, ours: &Value, name: &str, file: &Path) -> Result<(), Error> {
    let not = || Error::failed(format!("{} is not a kubeconfig", file.display()));
    let fields = theirs.as_object_mut().ok_or_else(not)?;
    for list in LISTS {
        let Some(entry) = entries(ours, list).find(|entry| entry["name"] == *name) else { continue };
        let found = fields.entry(list).or_insert_with(|| json!([]));
        if found.is_null() {
            *found = json!([]);
        }
        let found = found.as_array_mut().ok_or_else(not)?;
        match found.iter_mut().find(|it| it["name"] == *name) {
            Some(old) => *old = entry.clone(),
            None => found.push(entry.clone()),
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value, Error> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::failed(format!("cannot read {name}: {}", io_words(&e))))?;
    let (documents, problems) = api::yaml::parse(&name, &text);
    if !problems.is_empty() {
        return Err(Error::problems(format!("{name} is not a kubeconfig; it was left as it is"), problems));
    }
    match documents.as_slice() {
        [] => Ok(json!({ "apiVersion": "v1", "kind": "Config" })),
        [one] if one.entries().is_some() => Ok(one.to_json()),
        _ => Err(Error::failed(format!("{name} is not a kubeconfig; it was left as it is"))),
    }
}

/// Writes a file in one step; it keeps its place when it is a link, and is for its owner alone: it holds a key.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |e: &std::io::Error| Error::failed(format!("cannot write {}: {}", path.display(), io_words(e)));
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(directory) = target.parent() {
        std::fs::create_dir_all(directory).map_err(|e| failed(&e))?;
    }
    let temporary = target.with_extension("meshctl-new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, &target));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        failed(&e)
    })
}
