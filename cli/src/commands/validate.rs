//! `validate -f`: what is wrong with files, without a mesh.

use clap::Args;
use serde_json::json;

use crate::app::App;
use crate::error::{Error, Exit, count, problem_text};
use crate::flags::FileArgs;
use crate::objects;

const EXAMPLES: &str = "\
Examples:
  # A file, or a directory of them
  meshctl validate -f route-rules.yaml
  meshctl validate -f config/ -R
  # For a program: problems with file, line and column
  meshctl validate -f config/ -o json";

/// Arguments of `validate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ValidateArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Fail over warnings too
    #[arg(long)]
    strict: bool,
    /// Format of the answer: table|json
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table", hide_default_value = true)]
    output: String,
}

/// Runs `validate`.
///
/// # Errors
/// When a file cannot be read or anything in it is wrong.
pub fn run(app: &App, args: &ValidateArgs) -> Result<(), Error> {
    let sources = objects::sources(&args.files)?;
    let mut parsed = objects::parse(&sources);
    parsed.doubt();
    let errors = parsed.problems.iter().filter(|p| p.is_error()).count();
    let warnings = parsed.problems.len() - errors;
    let is_valid = errors == 0 && (!args.strict || warnings == 0);
    if args.output == "json" {
        app.ui.json(&json!({
            "valid": is_valid,
            "objects": parsed.objects.len(),
            "files": sources.iter().map(|s| &s.name).collect::<Vec<_>>(),
            "problems": parsed.problems,
        }))?;
    } else {
        for problem in &parsed.problems {
            app.ui.say(problem_text(problem, app.ui.err).trim_end());
        }
        let files = count(sources.len(), "file");
        let warned = if warnings > 0 { format!(", {}", count(warnings, "warning")) } else { String::new() };
        if is_valid {
            app.ui.line(&format!("valid: {} in {files}{warned}", count(parsed.objects.len(), "object")))?;
        } else {
            app.ui.say(&format!("{}{warned} in {files}", count(errors, "error")));
        }
    }
    if is_valid { Ok(()) } else { Err(Error::said(Exit::Failed)) }
}
