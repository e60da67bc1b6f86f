//! Where words go: data on standard output, talk on standard error, colour on terminals alone.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use api::suggest::closest;
use serde_json::Value;

use crate::error::Error;
use crate::jsonpath::Template;
use crate::paint::Paint;
use crate::settings::Settings;

/// How data is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// YAML that can be given back with `-f`.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name` lines.
    Name,
    /// What a kubectl JSONPath template selects.
    JsonPath(Template),
}

/// What `-o` takes, for help texts.
pub const FORMATS: &str = "table|wide|yaml|json|name|jsonpath=TEMPLATE";

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" | "short" => Ok(Format::Table),
            "wide" => Ok(Format::Wide),
            "yaml" => Ok(Format::Yaml),
            "json" => Ok(Format::Json),
            "name" => Ok(Format::Name),
            _ => {
                if let Some(template) = text.strip_prefix("jsonpath=") {
                    return Template::parse(template).map(Format::JsonPath).map_err(|e| e.to_string());
                }
                let known = ["table", "wide", "yaml", "json", "name", "jsonpath=TEMPLATE"];
                Err(match closest(text, known) {
                    Some(near) => format!("unknown format, did you mean `{near}`? (formats: {FORMATS})"),
                    None => format!("unknown format (formats: {FORMATS})"),
                })
            }
        }
    }
}

/// The two streams of a command.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// Colour of standard output.
    pub out: Paint,
    /// Colour of standard error.
    pub err: Paint,
    /// Whether a person watches standard error.
    pub is_live: bool,
    /// Whether a person can be asked.
    pub can_ask: bool,
}

impl Ui {
    /// Looks at the process' own streams.
    #[must_use]
    pub fn of_process(settings: &Settings) -> Self {
        let colour = !settings.no_color && settings.term.as_deref() != Some("dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Ui {
            out: Paint::of(colour && out),
            err: Paint::of(colour && err),
            is_live: err && settings.term.as_deref() != Some("dumb"),
            can_ask: err && io::stdin().is_terminal(),
        }
    }

    /// Writes data to standard output, as it is.
    ///
    /// # Errors
    /// When the reader has gone, an error that says nothing; when the disk is full, one that says so.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes of somebody else's to standard output.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| write_error(&e))
    }

    /// Writes bytes of somebody else's to standard error.
    ///
    /// # Errors
    /// When the reader has gone, an error that says nothing.
    pub fn error_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stderr = io::stderr().lock();
        stderr.write_all(bytes).and_then(|()| stderr.flush()).map_err(|e| write_error(&e))
    }

    /// Writes one line of data.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn line(&self, text: &str) -> Result<(), Error> {
        self.print(&format!("{text}\n"))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn json(&self, value: &Value) -> Result<(), Error> {
        self.print(&format!("{value:#}\n"))
    }

    /// Writes a value as YAML.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn yaml(&self, value: &Value) -> Result<(), Error> {
        self.print(&api::yaml::render(value))
    }

    /// Says something on standard error.
    pub fn say(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Shows how far something is, on the last line of a terminal; an empty text takes that line away. Whoever does not
    /// watch sees nothing.
    pub fn progress(&self, text: &str) {
        if self.is_live {
            let width = usize::from(console::Term::stderr().size().1).saturating_sub(1);
            let text = console::truncate_str(text, width, "…");
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush());
        }
    }

    /// Says something on standard error that is no failure, but should be known.
    pub fn warn(&self, text: &str) {
        self.say(&format!("{} {text}", self.err.warning("warning:")));
    }
}

fn write_error(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::broken_pipe();
    }
    Error::failed("cannot write to standard output").because(crate::error::io_words(error))
}

/// Shows an error where its reader looks for it, and says how the process ends.
#[must_use]
pub fn report(error: &Error, as_json: bool, ui: &Ui) -> u8 {
    if error.is_quiet() {
        return error.code();
    }
    if as_json {
        let _ = ui.json(&error.to_json());
    } else {
        let _ = io::stderr().lock().write_all(error.to_text(ui.err).as_bytes());
    }
    error.code()
}
