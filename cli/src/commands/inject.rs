//! `kube-inject` and `uninject`: sidecars into the workloads of files and out of them, offline.
//!
//! Files keep their comments, order and style; see [`install::text`].

use std::path::{Path, PathBuf};

use api::names::SYSTEM_NAMESPACE;
use api::problem::Problem;
use clap::Args;
use install::text::{self, Changed, Report};
use install::{Images, Injection, Skip};
use serde_json::{Value, json};

use crate::app::App;
use crate::context;
use crate::error::{Error, count, io_words};
use crate::flags::FileArgs;
use crate::objects::{self, Source};
use crate::resources::hyphenated;

const EXAMPLES: &str = "\
Examples:
  # Into a file; a diff shows added lines only
  meshctl kube-inject -f deployment.yaml -o injected.yaml
  # Into a cluster whose namespaces are not injected by themselves
  meshctl kube-inject -f deployment.yaml | kubectl apply -f -
  # For a mesh whose root certificate is in a file
  meshctl kube-inject -f deployment.yaml --root-cert root-cert.pem
  # For a program: a List on standard output, and on standard error in JSON what became of each object
  meshctl kube-inject -f deployment.yaml -o json 2> report.json | kubectl apply -f -
  # The sidecar is told about the pod by annotations, such as
  #   sidecar.meshctl.io/excludeOutboundPorts: \"3306\"
  #   sidecar.meshctl.io/includeOutboundIPRanges: \"10.0.0.0/8\"
  #   sidecar.meshctl.io/proxyCPU: \"100m\"";

const REMOVE_EXAMPLES: &str = "\
Examples:
  # The file as it was before kube-inject
  meshctl uninject -f injected.yaml -o deployment.yaml
  # What runs in a cluster, without sidecars
  kubectl get deployments -o yaml | meshctl uninject -f - | kubectl apply -f -";

/// Arguments of `kube-inject`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InjectArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Write to this file instead of standard output; `json` and `yaml` (or `-`) are standard output
    #[arg(short = 'o', long, value_name = "FILE|json|yaml")]
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

/// Arguments of `uninject`.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub struct UninjectArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Write to this file instead of standard output; `json` and `yaml` (or `-`) are standard output
    #[arg(short = 'o', long, value_name = "FILE|json|yaml")]
    output: Option<PathBuf>,
}

/// Runs `kube-inject`.
///
/// # Errors
/// When anything in the files is wrong or cannot be injected; nothing is written then.
pub fn run(app: &App, args: &InjectArgs) -> Result<(), Error> {
    let sources = objects::sources(&args.files)?;
    let mut injection = Injection::new(images(&args.hub, &args.tag), &root(app, args)?);
    if let Some(address) = &args.pilot_address {
        injection.pilot_address.clone_from(address);
    }
    let change = |source: &Source| text::inject_sound(&source.name, &source.text, &injection);
    each(app, &sources, args.output.as_deref(), ("injected", "injected"), change)
}

/// Runs `uninject`.
///
/// # Errors
/// When a sidecar cannot be taken out of a file; nothing is written then.
pub fn remove(app: &App, args: &UninjectArgs) -> Result<(), Error> {
    let sources = objects::sources(&args.files)?;
    let change = |source: &Source| Ok((text::remove(&source.name, &source.text)?, Vec::new()));
    each(app, &sources, args.output.as_deref(), ("without its sidecar", "removed"), change)
}

/// Changes all texts, and writes and reports only if that was possible for all of them. `done` says for people and for
/// programs what became of an object that was changed.
fn each(
    app: &App,
    sources: &[Source],
    output: Option<&Path>,
    (done, result_word): (&str, &str),
    change: impl Fn(&Source) -> Result<(Changed, Vec<Problem>), Vec<Problem>>,
) -> Result<(), Error> {
    let mut result = String::new();
    let mut told = Vec::new();
    let mut problems = Vec::new();
    let mut is_refused = false;
    for source in sources {
        match change(source) {
            Ok((Changed { text, reports }, warnings)) => {
                problems.extend(warnings);
                told.extend(reports.into_iter().map(|report| (source.name.as_str(), report)));
                append(&mut result, &text);
            }
            Err(found) => {
                is_refused = true;
                problems.extend(found);
            }
        }
    }
    if is_refused {
        return Err(objects::invalid(problems, sources.len(), "nothing was written"));
    }
    for warning in &problems {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    let is_json = output.is_some_and(|output| output.as_os_str() == "json");
    match output {
        Some(_) if is_json => app.ui.json(&list(&result))?,
        Some(path) if !["yaml", "-"].iter().any(|word| path.as_os_str() == *word) => write(path, &result)?,
        _ => app.ui.print(&result)?,
    }
    if is_json {
        app.ui.say(&format!(
            "{:#}",
            json!({ "objects": told.iter().map(|told| as_json(told, result_word)).collect::<Vec<_>>() })
        ));
        return Ok(());
    }
    for (_, report) in &told {
        let words = report.skipped.map_or_else(|| done.to_owned(), said_of);
        app.ui.say(&format!("{}/{} {words}", hyphenated(&report.kind), report.name));
    }
    if told.len() > 1 {
        let changed = told.iter().filter(|(_, report)| report.skipped.is_none()).count();
        let words = format!("{}: {changed} {done}, {} skipped", count(told.len(), "object"), told.len() - changed);
        app.ui.say(&app.ui.err.dim(&words));
    }
    Ok(())
}

/// All objects of a text as one List, which kubectl takes too.
fn list(text: &str) -> Value {
    let (documents, _) = api::yaml::parse("", text);
    let mut items = Vec::new();
    for document in documents.iter().map(api::yaml::Node::to_json) {
        match document.get("items").and_then(Value::as_array) {
            Some(own) if document.get("kind").and_then(Value::as_str) == Some("List") => {
                items.extend(own.iter().cloned())
            }
            _ => items.push(document),
        }
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// What became of an object, for a program: `done`, `skipped` or `unknown`, and why.
fn as_json((file, report): &(&str, Report), done: &str) -> Value {
    let result = match report.skipped {
        None => done,
        Some(Skip::UnknownKind) => "unknown",
        Some(_) => "skipped",
    };
    let mut told = json!({ "kind": report.kind, "name": report.name, "file": file, "result": result });
    if let Some(why) = report.skipped {
        told["reason"] = json!(why.to_string());
    }
    told
}

fn said_of(why: Skip) -> String {
    match why {
        Skip::UnknownKind => format!("left as it is: {why}"),
        _ => format!("skipped: {why}"),
    }
}

/// Adds a text to those before it, as documents of one stream. A single text is not touched.
fn append(result: &mut String, text: &str) {
    if !result.is_empty() {
        if !result.ends_with('\n') {
            result.push('\n');
        }
        if !text.starts_with("---") && !text.starts_with('%') {
            result.push_str("---\n");
        }
    }
    result.push_str(text);
}

/// Images of a registry.
pub(super) fn images(hub: &str, tag: &str) -> Images {
    let image = |name: &str| format!("{}/{name}:{tag}", hub.trim_end_matches('/'));
    Images { proxy: image("proxy"), init: image("init"), pilot: image("pilot"), ca: image("ca") }
}

/// The root that the injected pods trust.
fn root(app: &App, args: &InjectArgs) -> Result<String, Error> {
    if let Some(path) = &args.root_cert {
        return std::fs::read_to_string(path)
            .map_err(|e| Error::failed(format!("cannot read {}: {}", path.display(), io_words(&e))));
    }
    let name = app.global.mesh.as_deref().unwrap_or("default");
    let kept = context::state_dir(name, &app.settings).map(|dir| dir.join(context::ROOT_FILE));
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
