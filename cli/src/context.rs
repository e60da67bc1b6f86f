//! Which mesh a command means: `--context`/`--kubeconfig`, else `$KUBECONFIG`, else a running local mesh, else
//! kubectl's default.

use std::fmt;
use std::path::{Path, PathBuf};

use api::suggest::closest;
use kube::config::Kubeconfig;

use crate::error::Error;
use crate::flags::Global;
use crate::settings::Settings;

/// File in a local mesh's state directory that holds the root which vouches for its Pilot.
pub const ROOT_FILE: &str = "root-cert.pem";

/// The mesh that a command is about, found without any connection.
#[derive(Debug, Clone)]
pub struct Target {
    /// How it was found and what it is called.
    pub origin: Origin,
    /// What it takes to reach it.
    pub kubeconfig: Kubeconfig,
    /// The context within.
    pub context: String,
}

/// Where a [`Target`] came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A local mesh, by its name.
    Local(String),
    /// A kubeconfig: its files.
    Files(Vec<PathBuf>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Local(name) => write!(f, "local mesh `{name}`"),
            Origin::Files(files) => write!(f, "context `{}` of {}", self.context, list(files)),
        }
    }
}

/// Finds the mesh that is meant.
///
/// # Errors
/// When none is there, when several could be meant, or when what names it is broken.
pub fn find(global: &Global, settings: &Settings) -> Result<Target, Error> {
    if let Some(name) = &global.mesh {
        return named_local(name, settings).and_then(|dir| local(name, &dir));
    }
    if let Some(path) = &global.kubeconfig {
        return from_files(std::slice::from_ref(path), global.context.as_deref(), "--kubeconfig");
    }
    let named = settings.kubeconfig_files();
    if !named.is_empty() {
        return from_files(&named, global.context.as_deref(), "$KUBECONFIG");
    }
    if global.context.is_none()
        && let Some((name, dir)) = running_local(settings)?
    {
        return local(&name, &dir);
    }
    match settings.default_kubeconfig().filter(|path| path.exists()) {
        Some(path) => from_files(&[path], global.context.as_deref(), "kubectl's default"),
        None => Err(nothing_found(settings)),
    }
}

/// The state directory of a local mesh, by name.
///
/// # Errors
/// When neither `XDG_STATE_HOME` nor `HOME` says where state lives.
pub fn state_dir(name: &str, settings: &Settings) -> Result<PathBuf, Error> {
    settings.state_root().map(|root| root.join(name)).ok_or_else(|| {
        Error::failed("there is no place for the state of a local mesh: neither XDG_STATE_HOME nor HOME is set")
            .hint("name one with `--state-dir DIR`")
    })
}

/// Whether the local mesh with this state directory runs: its supervisor is alive.
#[must_use]
pub fn is_running(dir: &Path) -> bool {
    matches!(local::supervisor::read_record(dir), Ok(Some(_)))
}

/// Names and directories of all local meshes, running or not.
#[must_use]
pub fn local_meshes(settings: &Settings) -> Vec<(String, PathBuf)> {
    let Some(entries) = settings.state_root().and_then(|root| std::fs::read_dir(root).ok()) else {
        return Vec::new();
    };
    let mut meshes: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().join("kubeconfig").exists())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    meshes.sort();
    meshes
}

/// Names of all contexts that could be meant: those of this file, or of `$KUBECONFIG`, or of kubectl's own file.
#[must_use]
pub fn names(kubeconfig: Option<PathBuf>, settings: &Settings) -> Vec<String> {
    let mut files: Vec<PathBuf> = kubeconfig.into_iter().collect();
    if files.is_empty() {
        files = settings.kubeconfig_files();
    }
    if files.is_empty() {
        files.extend(settings.default_kubeconfig());
    }
    let read = files.iter().filter_map(|file| read(file).ok());
    read.flat_map(|kubeconfig| kubeconfig.contexts).map(|context| context.name).collect()
}

fn running_local(settings: &Settings) -> Result<Option<(String, PathBuf)>, Error> {
    let mut running: Vec<_> = local_meshes(settings).into_iter().filter(|(_, dir)| is_running(dir)).collect();
    if let Some(at) = running.iter().position(|(name, _)| name == "default") {
        return Ok(Some(running.swap_remove(at)));
    }
    if running.len() > 1 {
        let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::usage(format!("several local meshes run: {}", names.join(", ")))
            .hint(format!("say which one, as `--name {}`", names[0])));
    }
    Ok(running.pop())
}

fn named_local(name: &str, settings: &Settings) -> Result<PathBuf, Error> {
    let dir = state_dir(name, settings)?;
    if dir.join("kubeconfig").exists() {
        return Ok(dir);
    }
    let meshes = local_meshes(settings);
    let names: Vec<&str> = meshes.iter().map(|(name, _)| name.as_str()).collect();
    let error = Error::failed(format!("there is no local mesh `{name}`"));
    Err(match (closest(name, names.iter().copied()), names.is_empty()) {
        (Some(near), _) => error.hint(format!("did you mean `--name {near}`?")),
        (None, true) => error.hint(format!("start it with `meshctl local up --name {name} -f FILE`")),
        (None, false) => error.hint(format!("local meshes: {}", names.join(", "))),
    })
}

/// A local mesh, by its name and state directory.
///
/// # Errors
/// When it does not run, or its kubeconfig is broken.
pub fn local(name: &str, dir: &Path) -> Result<Target, Error> {
    if !is_running(dir) {
        let flag = if name == "default" { String::new() } else { format!(" --name {name}") };
        return Err(Error::unreachable(format!("local mesh `{name}` does not run"))
            .hint(format!("start it with `meshctl local up{flag}`")));
    }
    let path = dir.join("kubeconfig");
    let kubeconfig = read(&path)?;
    let context = kubeconfig.current_context.clone().unwrap_or_default();
    Ok(Target { origin: Origin::Local(name.to_owned()), kubeconfig, context })
}

fn from_files(files: &[PathBuf], wanted: Option<&str>, source: &str) -> Result<Target, Error> {
    let mut merged: Option<Kubeconfig> = None;
    let mut found = Vec::new();
    for file in files {
        // kubectl skips files of $KUBECONFIG that are not there.
        if source == "$KUBECONFIG" && files.len() > 1 && !file.exists() {
            continue;
        }
        let next = read(file)?;
        found.push(file.clone());
        merged = Some(match merged {
            None => next,
            Some(earlier) => earlier
                .merge(next)
                .map_err(|e| Error::failed(format!("{} cannot be merged", list(files))).because(e.to_string()))?,
        });
    }
    let Some(kubeconfig) = merged else {
        return Err(Error::failed(format!("none of the files of {source} exists: {}", list(files))));
    };
    let contexts: Vec<&str> = kubeconfig.contexts.iter().map(|c| c.name.as_str()).collect();
    let context = match wanted.or(kubeconfig.current_context.as_deref()).filter(|name| !name.is_empty()) {
        Some(name) if contexts.contains(&name) => name.to_owned(),
        Some(name) => {
            let error = Error::failed(format!("there is no context `{name}` in {}", list(&found)));
            return Err(match closest(name, contexts.iter().copied()) {
                Some(near) => error.hint(format!("did you mean `--context {near}`?")),
                None if contexts.is_empty() => error.hint("the file has no contexts at all"),
                None => error.hint(format!("contexts: {}", contexts.join(", "))),
            });
        }
        None => {
            let error = Error::failed(format!("{} ({source}) has no current context", list(&found)));
            return Err(match contexts.first() {
                Some(first) => error.hint(format!("choose one, as `--context {first}`")),
                None => error.hint("start a mesh on this machine with `meshctl local up -f FILE`"),
            });
        }
    };
    Ok(Target { origin: Origin::Files(found), kubeconfig, context })
}

fn read(path: &Path) -> Result<Kubeconfig, Error> {
    use kube::config::KubeconfigError;
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::ReadConfig(error, _) => {
            Error::failed(format!("cannot read kubeconfig {}: {}", path.display(), crate::error::io_words(&error)))
        }
        KubeconfigError::Parse(error) => {
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            Error::failed(format!("{} is not a kubeconfig", path.display())).because(first)
        }
        KubeconfigError::KindMismatch | KubeconfigError::ApiVersionMismatch => {
            Error::failed(format!("{} is not a kubeconfig", path.display())).because("it is of another kind or version")
        }
        other => Error::failed(format!("{} is not a kubeconfig", path.display())).because(other.to_string()),
    })
}

fn nothing_found(settings: &Settings) -> Error {
    let home = settings.default_kubeconfig().map_or_else(|| "~/.kube/config".to_owned(), |p| p.display().to_string());
    let state = settings.state_root().map_or_else(|| "~/.local/state/meshctl".to_owned(), |p| p.display().to_string());
    Error::unreachable("no mesh found")
        .because("searched: --context, --kubeconfig and --name (not given)")
        .because("          $KUBECONFIG (not set)")
        .because(format!("          a running local mesh in {state} (none)"))
        .because(format!("          {home} (not there)"))
        .hint("start a mesh on this machine with `meshctl local up -f FILE`")
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
