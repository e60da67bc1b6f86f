//! `debug`: everything that somebody needs who is to find out what is wrong, in one archive, without secrets.

mod archive;
mod collect;
mod scrub;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use self::collect::Bundle;
use crate::app::App;
use crate::error::{Error, count, io_words};
use crate::mesh;
use crate::resources::{name_of, namespace_of};

const EXAMPLES: &str = "\
Examples:
  # Of one pod: configuration dump, statistics, logs of application and proxy, events, versions
  meshctl debug deploy/reviews-v1
  meshctl debug reviews-v1-5d8f7c6b9d-x2k4z -o reviews.tar.gz
  # Of the whole mesh: control plane, all rules, all proxies
  meshctl debug --all
  # What is in it
  tar -tzf reviews.tar.gz
  tar -xzOf reviews.tar.gz mesh-debug/manifest.json

What looks like a secret is left out: private keys, tokens, values of variables and arguments whose names say so.
Secrets are never asked for. Logs are the application's own words: look through them before you hand the archive on.";

/// Arguments of `debug`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DebugArgs {
    /// POD, POD.NAMESPACE, or deploy/NAME
    #[arg(value_name = "POD", required_unless_present = "all", conflicts_with = "all")]
    pod: Option<String>,
    /// Of the whole mesh
    #[arg(long)]
    all: bool,
    /// Write to this file; `-` is standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// So many lines of each log
    #[arg(long, value_name = "LINES", default_value_t = 5000)]
    tail: u64,
    /// With --all: of so many proxies
    #[arg(long, value_name = "N", default_value_t = 200)]
    proxies: usize,
}

/// Runs `debug`.
///
/// # Errors
/// When the pod is not there, the server cannot be asked, or the file cannot be written. What cannot be collected is no
/// failure: the manifest says so.
pub fn run(app: &App, args: &DebugArgs) -> Result<(), Error> {
    let now = Timestamp::now();
    let (mut bundle, name) = app.block_on(async {
        let cluster = app.cluster().await?;
        let mut bundle = Bundle::new(app, args.tail);
        let name = match &args.pod {
            Some(word) => {
                let pod = mesh::find_pod(&cluster, app.namespace(&cluster), word).await?;
                collect::pod(&mut bundle, &cluster, &pod).await?;
                format!("{}.{}", name_of(&pod), namespace_of(&pod))
            }
            None => {
                collect::mesh(&mut bundle, &cluster, args.proxies).await?;
                "mesh".to_owned()
            }
        };
        bundle.about = json!({
            "of": name, "mesh": cluster.description, "collected": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "meshctl": crate::VERSION,
        });
        Ok((bundle, name))
    })?;
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let default = PathBuf::from(format!("mesh-debug-{name}-{stamp}.tar.gz"));
    let path = args.output.clone().unwrap_or(default);
    let files = bundle.finish();
    let packed = archive::pack("mesh-debug", &files, now.as_second().max(0).unsigned_abs())
        .map_err(|error| Error::failed("the archive cannot be packed").because(io_words(&error)))?;
    if path.as_os_str() == "-" {
        app.ui.bytes(&packed)?;
    } else {
        write(&path, &packed)?;
        app.ui.line(&path.display().to_string())?;
    }
    app.ui.say(&app.ui.err.dim(&format!("{}, {} KiB", count(files.len(), "file"), packed.len().div_ceil(1024))));
    for (what, why) in &bundle.missing {
        app.ui.warn(&format!("without {what}: {why}"));
    }
    Ok(())
}

/// Writes the archive for its owner alone.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Error::failed(format!("cannot write {}: {}", path.display(), io_words(&error))))
}
