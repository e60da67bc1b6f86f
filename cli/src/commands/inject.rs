//! `kube-inject` and `uninject`: sidecars into the workloads of files and out of them, offline.
//!
//! Files keep their comments, order and style; see [`install::text`].

use std::path::{Path, PathBuf};

use api::names::SYSTEM_NAMESPACE;
use clap::Args;
use install::text::{self, Changed};
use install::{Images, Injection, Skip};

use crate::App;
use crate::args::FileArgs;
use crate::context;
use crate::error::{Error, count, io_words};
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

/// Arguments of `uninject`.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub struct UninjectArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Write to this file instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `kube-inject`.
///
/// # Errors
/// When anything in the files is wrong or cannot be injected; nothing is written then.
pub fn run(app: &App, args: &InjectArgs) -> Result<(), Error> {
    let sources = objects::sources(&args.files)?;
    let parsed = objects::parse(&sources);
    if parsed.problems.iter().any(api::problem::Problem::is_error) {
        return Err(objects::invalid(parsed.problems, sources.len(), "nothing was written"));
    }
    for warning in &parsed.problems {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    drop(parsed);
    let mut injection = Injection::new(images(&args.hub, &args.tag), &root(app, args)?);
    if let Some(address) = &args.pilot_address {
        injection.pilot_address.clone_from(address);
    }
    let change = |source: &Source| text::inject(&source.name, &source.text, &injection);
    each(app, &sources, args.output.as_deref(), "injected", change)
}

/// Runs `uninject`.
///
/// # Errors
/// When a sidecar cannot be taken out of a file; nothing is written then.
pub fn remove(app: &App, args: &UninjectArgs) -> Result<(), Error> {
    let sources = objects::sources(&args.files)?;
    let change = |source: &Source| text::remove(&source.name, &source.text);
    each(app, &sources, args.output.as_deref(), "without its sidecar", change)
}

/// Changes all texts, and writes and reports only if that was possible for all of them.
fn each(
    app: &App,
    sources: &[Source],
    output: Option<&Path>,
    done: &str,
    change: impl Fn(&Source) -> Result<Changed, Vec<api::problem::Problem>>,
) -> Result<(), Error> {
    let mut result = String::new();
    let mut said = String::new();
    let (mut changed, mut skipped) = (0, 0);
    let mut problems = Vec::new();
    for source in sources {
        let Changed { text, reports } = match change(source) {
            Ok(changed) => changed,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        for report in reports {
            let what = match report.skipped {
                None => {
                    changed += 1;
                    done.to_owned()
                }
                Some(why) => {
                    skipped += 1;
                    said_of(why)
                }
            };
            said.push_str(&format!("{}/{} {what}\n", hyphenated(&report.kind), report.name));
        }
        append(&mut result, &text);
    }
    if !problems.is_empty() {
        return Err(objects::invalid(problems, sources.len(), "nothing was written"));
    }
    match output {
        None => app.ui.print(&result)?,
        Some(path) => write(path, &result)?,
    }
    app.ui.say(said.trim_end());
    if changed + skipped > 1 {
        app.ui.say(
            &app.ui.err.dim(&format!("{}: {changed} {done}, {skipped} skipped", count(changed + skipped, "object"))),
        );
    }
    Ok(())
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
