//! `kube-inject`: sidecars into the workloads of a file, offline.

use std::path::{Path, PathBuf};

use api::names::SYSTEM_NAMESPACE;
use clap::Args;
use install::{Images, Injection, Outcome, inject_object};
use serde_json::Value;

use crate::App;
use crate::args::FileArgs;
use crate::context;
use crate::error::{Error, io_words};
use crate::objects::{self, Object};
use crate::resources::{hyphenated, name_of};

const EXAMPLES: &str = "\
Examples:
  # Into a file
  meshctl kube-inject -f deployment.yaml -o injected.yaml
  # Into a cluster whose namespaces are not injected by themselves
  meshctl kube-inject -f deployment.yaml | kubectl apply -f -
  # For a mesh whose root certificate is in a file
  meshctl kube-inject -f deployment.yaml --root-cert root-cert.pem";

/// Arguments of `kube-inject`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InjectArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Write to this file instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Root certificate (PEM) that vouches for Pilot; by default that of the local mesh
    #[arg(long, value_name = "FILE")]
    root_cert: Option<PathBuf>,
    /// Where the images are
    #[arg(long, value_name = "REGISTRY", default_value = "mesh")]
    hub: String,
    /// Tag of the images
    #[arg(long, value_name = "TAG", default_value = crate::VERSION)]
    tag: String,
    /// Pilot's address
    #[arg(long, value_name = "HOST:PORT")]
    pilot_address: Option<String>,
}

/// Runs `kube-inject`.
///
/// # Errors
/// When anything in the files is wrong or cannot be injected; nothing is written then.
pub fn run(app: &App, args: &InjectArgs) -> Result<(), Error> {
    let (objects, warnings) = objects::load(&args.files, "nothing was written")?;
    for warning in &warnings {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    let mut injection = Injection::new(images(&args.hub, &args.tag), &root(app, args)?);
    if let Some(address) = &args.pilot_address {
        injection.pilot_address.clone_from(address);
    }
    let mut text = String::new();
    let mut reports = Vec::new();
    let mut problems = Vec::new();
    for object in &objects {
        match inject_object(&object.value, &injection) {
            Ok(Outcome::Injected(injected)) => {
                reports.push(report(object, "injected"));
                push(&mut text, &injected);
            }
            Ok(Outcome::Skipped(why)) => {
                reports.push(report(object, &format!("left as it is: {why}")));
                push(&mut text, &object.value);
            }
            Err(refusal) => problems.push(object.problem(format!("cannot be injected: {refusal}"))),
        }
    }
    if !problems.is_empty() {
        return Err(objects::invalid(problems, args.files.files.len(), "nothing was written"));
    }
    reports.iter().for_each(|line| app.ui.say(line));
    match &args.output {
        None => app.ui.print(&text),
        Some(path) => write(path, &text),
    }
}

/// Images of a registry.
pub(super) fn images(hub: &str, tag: &str) -> Images {
    let image = |name: &str| format!("{}/{name}:{tag}", hub.trim_end_matches('/'));
    Images { proxy: image("proxy"), init: image("init"), pilot: image("pilot") }
}

/// The root that the injected pods trust.
fn root(app: &App, args: &InjectArgs) -> Result<String, Error> {
    if let Some(path) = &args.root_cert {
        return std::fs::read_to_string(path)
            .map_err(|e| Error::failed(format!("cannot read {}: {}", path.display(), io_words(&e))));
    }
    let name = app.global.mesh.as_deref().unwrap_or("default");
    let kept = context::state_dir(name, &app.settings).map(|dir| dir.join(super::local::ROOT_FILE));
    if let Some(root) = kept.ok().and_then(|path| std::fs::read_to_string(path).ok()) {
        return Ok(root);
    }
    app.ui.warn("no root certificate is known, so these pods will trust no Pilot");
    app.ui.say(&format!(
        "{} give it with `--root-cert FILE`; a cluster has it in ConfigMap {SYSTEM_NAMESPACE}/mesh-root",
        app.ui.err.hint("hint:")
    ));
    Ok(String::new())
}

fn report(object: &Object, what: &str) -> String {
    let kind = object.value.get("kind").and_then(Value::as_str).unwrap_or_default();
    format!("{}/{} {what}", hyphenated(kind), name_of(&object.value))
}

fn push(text: &mut String, object: &Value) {
    if !text.is_empty() {
        text.push_str("---\n");
    }
    text.push_str(&api::yaml::render(object));
}

/// Writes a file in one step: a reader sees the old one or the new one.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {}", path.display(), io_words(&e)));
    if path.exists() && !path.is_file() {
        return std::fs::write(path, text).map_err(failed);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).map_err(failed)
}
