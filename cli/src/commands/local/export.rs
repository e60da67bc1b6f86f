//! `local export`: what was made in a mesh, as a file that can be applied again.

use clap::Args;
use serde_json::json;

use super::Mesh;
use crate::app::App;
use crate::error::{Error, count};
use crate::resources::namespace_of;

const EXAMPLES: &str = "\
Examples:
  # Everything that was made in it; the mesh may run or not
  meshctl local export > mesh.yaml
  # Take it to a second mesh
  meshctl local export | meshctl local up --name second -f -
  # One namespace, as JSON
  meshctl local export -n shop -o json";

/// Arguments of `local export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// Format of the answer: yaml|json
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["yaml", "json"], default_value = "yaml", hide_default_value = true)]
    output: String,
}

/// Runs `local export`.
///
/// # Errors
/// When there is no such mesh, or its journal cannot be read.
pub(super) fn run(app: &App, mesh: &Mesh, args: &ExportArgs) -> Result<(), Error> {
    if !mesh.dir.join("journal").exists() {
        return Err(Error::failed(format!("local mesh `{}` has no state in {}", mesh.name, mesh.dir.display()))
            .hint(format!("start it with `meshctl local up{}`", mesh.flag())));
    }
    let objects = local::api::export::read(&mesh.dir).map_err(|e| super::journal_error(&e))?;
    let objects: Vec<_> = objects
        .into_iter()
        .map(|object| install::inject::remove_object(&object).unwrap_or(object))
        .filter(|object| match app.global.namespace.as_deref() {
            Some(wanted) => namespace_of(object) == wanted,
            None => true,
        })
        .collect();
    if objects.is_empty() {
        app.ui.say("nothing was made in this mesh");
    }
    if args.output == "json" {
        return app.ui.json(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }));
    }
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            app.ui.line("---")?;
        }
        app.ui.yaml(object)?;
    }
    app.ui.say(&format!("exported {}", count(objects.len(), "object")));
    Ok(())
}
