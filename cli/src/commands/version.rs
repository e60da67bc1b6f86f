//! `version`: of this binary, and of what runs in the mesh.

use std::collections::BTreeMap;

use api::messages::Proxies;
use clap::Args;
use serde_json::{Value, json};

use crate::app::App;
use crate::context;
use crate::error::{Error, Exit, count};
use crate::mesh;
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  # Of everything
  meshctl version
  # Of this binary alone, without asking a mesh
  meshctl version --client
  # For a program
  meshctl version -o json";

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VersionArgs {
    /// Only the version of this binary; asks no mesh
    #[arg(long)]
    client: bool,
    /// Format of the answer: table|json|yaml
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Versions, each with the number of those that have it.
type Versions = BTreeMap<String, u64>;

/// Runs `version`.
///
/// # Errors
/// When there is a mesh and it cannot be asked; the client's version is printed all the same.
pub fn run(app: &App, args: &VersionArgs) -> Result<(), Error> {
    let asked = if args.client { None } else { Some(ask(app)) };
    let (found, error) = match asked {
        None => (None, None),
        Some(Ok(found)) => (found, None),
        Some(Err(error)) => (None, Some(error)),
    };
    let mut answer = json!({ "client": { "version": crate::VERSION } });
    if let Some((pilots, proxies)) = &found {
        answer["controlPlane"] = json!(entries(pilots));
        answer["proxies"] = json!(entries(proxies));
    }
    if let Some(error) = &error {
        answer["error"] = error.to_json()["error"].clone();
    }
    match args.output {
        Format::Json => app.ui.json(&answer)?,
        Format::Yaml => app.ui.yaml(&answer)?,
        _ => {
            app.ui.line(&format!("client:         {}", crate::VERSION))?;
            if let Some((pilots, proxies)) = &found {
                app.ui.line(&format!("control plane:  {}", words(pilots, "pod")))?;
                app.ui.line(&format!("proxies:        {}", words(proxies, "proxy")))?;
            }
        }
    }
    match error {
        None => Ok(()),
        Some(error) if matches!(args.output, Format::Json | Format::Yaml) => Err(Error::said(error.exit())),
        Some(error) => Err(error),
    }
}

/// Versions of Pilots and proxies; `None` where there is no mesh to ask.
fn ask(app: &App) -> Result<Option<(Versions, Versions)>, Error> {
    let is_chosen = app.global.mesh.is_some() || app.global.context.is_some() || app.global.kubeconfig.is_some();
    let target = match context::find(&app.global, &app.settings) {
        Err(error) if !is_chosen && app.settings.kubeconfig.is_none() && error.exit() == Exit::Unreachable => {
            app.ui.say(&app.ui.err.dim("no mesh found; `meshctl local up -f FILE` starts one on this machine"));
            return Ok(None);
        }
        found => found?,
    };
    app.block_on(async {
        let cluster = crate::cluster::Cluster::open(&target).await?;
        let (mut pilots, mut proxies) = (Versions::new(), Versions::new());
        for pilot in &mut mesh::pilots(&cluster).await? {
            let answer: Proxies = pilot.connection.get("/v1/proxies").await?;
            *pilots.entry(answer.version).or_default() += 1;
            for proxy in answer.proxies {
                *proxies.entry(proxy.version).or_default() += 1;
            }
        }
        Ok(Some((pilots, proxies)))
    })
}

fn entries(versions: &Versions) -> Vec<Value> {
    versions.iter().map(|(version, count)| json!({ "version": version, "count": count })).collect()
}

fn words(versions: &Versions, noun: &str) -> String {
    if versions.is_empty() {
        return "none".to_owned();
    }
    let word = |(version, number): (&String, &u64)| {
        format!("{version} ({})", count(usize::try_from(*number).unwrap_or(usize::MAX), noun))
    };
    versions.iter().map(word).collect::<Vec<_>>().join(", ")
}
