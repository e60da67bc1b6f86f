//! `diff -f`: what `apply` would change, as the server would store it.

use clap::Args;
use serde_json::{Value, json};
use similar::TextDiff;

use super::write::{self, Done, Planned, Verb, written};
use crate::app::App;
use crate::error::{Error, Exit, count};
use crate::flags::FileArgs;
use crate::objects;
use crate::paint::Paint;
use crate::resources::name_of;

const EXAMPLES: &str = "\
Examples:
  # What would change; ends with 1 if anything would
  meshctl diff -f route-rules.yaml
  # In a pipeline: only whether the mesh is what the files say
  meshctl diff -f config/ -o json | jq .different";

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Format of the answer: table|json
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table", hide_default_value = true)]
    output: String,
}

/// How one object would change.
struct Difference {
    label: String,
    change: &'static str,
    /// A unified diff; empty when nothing would change.
    text: String,
}

/// Runs `diff`.
///
/// # Errors
/// When anything is invalid or refused; in silence, with exit code 1, when anything would change.
pub fn run(app: &App, args: &DiffArgs) -> Result<(), Error> {
    let (objects, warnings) = objects::load(&args.files, "nothing was compared")?;
    for warning in &warnings {
        app.ui.say(crate::error::problem_text(warning, app.ui.err).trim_end());
    }
    let differences = app.block_on(async {
        let cluster = app.cluster().await?;
        let mut differences = Vec::new();
        for planned in write::plan(app, &cluster, Verb::Apply, objects).await? {
            let (answer, done) = write::send(&cluster, Verb::Apply, &planned, true).await?;
            differences.push(difference(&planned, &answer, done));
        }
        Ok(differences)
    })?;
    let changed = differences.iter().filter(|difference| !difference.text.is_empty()).count();
    if args.output == "json" {
        let objects: Vec<Value> = differences
            .iter()
            .map(|difference| json!({"object": difference.label, "change": difference.change, "diff": difference.text}))
            .collect();
        app.ui.json(&json!({"different": changed > 0, "objects": objects}))?;
    } else {
        for difference in &differences {
            app.ui.print(&painted(&difference.text, app.ui.out))?;
        }
        app.ui.say(&format!("{} of {} would change", changed, count(differences.len(), "object")));
    }
    if changed == 0 { Ok(()) } else { Err(Error::said(Exit::Failed)) }
}

fn difference(planned: &Planned, answer: &Value, done: Done) -> Difference {
    let label = write::label(&planned.resource, &planned.namespace, name_of(answer));
    let (change, before) = match (done, &planned.current) {
        (Done::Unchanged, _) => return Difference { label, change: "none", text: String::new() },
        (_, Some(current)) => ("updated", api::yaml::render(&plain(current))),
        (_, None) => ("created", String::new()),
    };
    let after = api::yaml::render(&plain(answer));
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    let (from, to) = (format!("live: {label}"), format!("files: {label}"));
    let text = diff.unified_diff().context_radius(3).header(&from, &to).to_string();
    Difference { label, change, text }
}

/// What users write, without what the server adds to every object.
fn plain(object: &Value) -> Value {
    let mut object = written(object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "creationTimestamp"] {
            metadata.shift_remove(field);
        }
    }
    object
}

fn painted(text: &str, paint: Paint) -> String {
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        let line = match line.as_bytes().first() {
            _ if line.starts_with("+++") || line.starts_with("---") => paint.strong(line),
            Some(b'+') => paint.good(line),
            Some(b'-') => paint.error(line),
            Some(b'@') => paint.dim(line),
            _ => line.to_owned(),
        };
        result.push_str(&line);
        result.push('\n');
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let stored = json!({
            "kind": "RouteRule", "status": {"a": 1}, "spec": {"precedence": 1},
            "metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "resourceVersion": "7", "generation": 2},
        });
        assert_eq!(plain(&stored), json!({"kind": "RouteRule", "spec": {"precedence": 1}, "metadata": {"name": "a"}}));
    }

    #[test]
    fn text_without_colour_is_the_diff_itself() {
        assert_eq!(painted("--- a\n+++ b\n-x\n+y\n", Paint::PLAIN), "--- a\n+++ b\n-x\n+y\n");
    }
}
