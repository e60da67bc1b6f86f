//! What a command can fail with, and how it is shown: what, where, what next.

use std::fmt::Write as _;

use api::problem::{Problem, Severity};
use serde_json::{Value, json};

use crate::paint::Paint;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Problems were found, or something was refused.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The mesh cannot be reached.
    Unreachable = 3,
    /// Something took longer than it was given.
    Timeout = 4,
}

/// What every `--help` says about exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 problems found or refused, 2 usage, 3 mesh unreachable, 4 timeout";

/// Why a command failed.
///
/// An error of the edge: it is made where the command knows what the user tried to do, so it carries text for a
/// person. Code below the commands has its own error enums or none.
#[derive(Debug)]
pub struct Error(Box<Facts>);

#[derive(Debug)]
struct Facts {
    exit: Exit,
    /// Exit code of a program that was run for the user, instead of ours.
    code: Option<u8>,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    problems: Vec<Problem>,
    /// Nobody reads the output any more: nothing is said.
    quiet: bool,
    /// Somebody else has changed the object meanwhile.
    is_conflict: bool,
}

impl Error {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Error(Box::new(Facts {
            exit,
            code: None,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            problems: Vec::new(),
            quiet: false,
            is_conflict: false,
        }))
    }

    /// Somebody else has changed the object meanwhile.
    pub fn conflict(message: impl Into<String>) -> Self {
        let mut error = Error::failed(message);
        error.0.is_conflict = true;
        error
    }

    /// Whether somebody else has changed the object meanwhile.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.is_conflict
    }

    /// Something was refused or did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Error::new(Exit::Failed, message)
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Exit::Usage, message)
    }

    /// The mesh, or a part of it, does not answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Error::new(Exit::Unreachable, message)
    }

    /// Something took longer than it was given.
    pub fn timeout(message: impl Into<String>) -> Self {
        Error::new(Exit::Timeout, message)
    }

    /// Problems in what the user wrote; `message` sums them up.
    #[must_use]
    pub fn problems(message: impl Into<String>, problems: Vec<Problem>) -> Self {
        let mut error = Error::new(Exit::Failed, message);
        error.0.problems = problems;
        error
    }

    /// The reader of standard output went away: ends in silence.
    #[must_use]
    pub fn broken_pipe() -> Self {
        let mut error = Error::new(Exit::Ok, "broken pipe");
        error.0.quiet = true;
        error
    }

    /// Ends with `exit` without a word: all has been said.
    #[must_use]
    pub fn said(exit: Exit) -> Self {
        let mut error = Error::new(exit, "");
        error.0.quiet = true;
        error
    }

    /// A program that was run for the user ended with this code; it has said all itself.
    #[must_use]
    pub fn ended(code: u8) -> Self {
        let mut error = Error::said(Exit::Failed);
        error.0.code = Some(code);
        error
    }

    /// The exit code of the process.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.0.code.unwrap_or(self.0.exit as u8)
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a line of detail below the message.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    /// Whether all has been said.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.quiet
    }

    /// The sentence that says what went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error as a person reads it, with a newline at its end.
    #[must_use]
    pub fn to_text(&self, paint: Paint) -> String {
        let facts = &*self.0;
        let mut text = String::new();
        for problem in &facts.problems {
            text.push_str(&problem_text(problem, paint));
        }
        if facts.problems.is_empty() {
            let _ = writeln!(text, "{} {}", paint.error("error:"), facts.message);
        } else if !facts.message.is_empty() {
            let _ = writeln!(text, "{}", facts.message);
        }
        for cause in &facts.causes {
            let _ = writeln!(text, "  {}", cause.replace('\n', "\n  "));
        }
        if let Some(hint) = &facts.hint {
            let _ = writeln!(text, "{} {hint}", paint.hint("hint:"));
        }
        text
    }

    /// The error as a program reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let facts = &*self.0;
        let mut error = json!({ "message": facts.message, "exitCode": facts.exit as i32 });
        if !facts.causes.is_empty() {
            error["causes"] = json!(facts.causes);
        }
        if let Some(hint) = &facts.hint {
            error["hint"] = json!(hint);
        }
        if !facts.problems.is_empty() {
            error["problems"] = json!(facts.problems);
        }
        json!({ "error": error })
    }
}

/// One problem as a person reads it: what, where, what next.
#[must_use]
pub fn problem_text(problem: &Problem, paint: Paint) -> String {
    let word = match problem.severity {
        Severity::Error => paint.error("error:"),
        Severity::Warning => paint.warning("warning:"),
    };
    let mut text = format!("{word} {}\n", problem.message);
    let mut place: Vec<String> = Vec::new();
    if let Some(location) = &problem.location {
        place.push(format!("at {location}"));
    }
    let mut about: Vec<&str> = Vec::new();
    if let Some(object) = &problem.object {
        about.push(object);
    }
    if !problem.path.is_empty() {
        about.push(&problem.path);
    }
    match (place.is_empty(), about.is_empty()) {
        (false, false) => place.push(format!("({})", about.join(", "))),
        (true, false) => place.push(format!("in {}", about.join(", "))),
        _ => {}
    }
    if !place.is_empty() {
        let _ = writeln!(text, "  {}", place.join(" "));
    }
    if let Some(hint) = &problem.hint {
        let _ = writeln!(text, "{} {hint}", paint.hint("hint:"));
    }
    text
}

/// `1 problem`, `2 problems`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 {
        ""
    } else if noun.ends_with("xy") {
        "ies"
    } else {
        "s"
    };
    let stem = if ending == "ies" { &noun[..noun.len() - 1] } else { noun };
    format!("{number} {stem}{ending}")
}

/// An I/O error in plain words, without the number of the operating system.
#[must_use]
pub fn io_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
