//! What a line looks like: operators between literal text.

use std::fmt;
use std::str::FromStr;

use super::operator::Operator;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Encoding {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Encoding::Text),
            "json" => Ok(Encoding::Json),
            _ => Err("write text or json"),
        }
    }
}

/// Why a format cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` begins nothing.
    #[error("column {column}: a `%` begins an operator that does not end; write `%%` for the sign itself")]
    Unfinished {
        /// Where it stands, from 1.
        column: usize,
    },
    /// Nobody knows this operator.
    #[error("column {column}: there is no operator %{name}%{}", hint(.near))]
    Unknown {
        /// Where it stands, from 1.
        column: usize,
        /// Its name.
        name: String,
        /// One that is spelled nearly so.
        near: Option<&'static str>,
    },
    /// Envoy knows this operator; this proxy has nothing to say for it.
    #[error("column {column}: %{name}% is known, but not in force here: leave it out")]
    NotInForce {
        /// Where it stands, from 1.
        column: usize,
        /// Its name.
        name: String,
    },
    /// What is in the operator's brackets, or behind them, makes no sense.
    #[error("column {column}: %{name}%: {reason}")]
    Argument {
        /// Where it stands, from 1.
        column: usize,
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A JSON format is no object.
    #[error("a JSON format is an object whose values are text, numbers or objects: {0}")]
    Json(String),
    /// A value of a JSON format cannot be used.
    #[error("the value of {key:?}")]
    Value {
        /// The key that it stands under.
        key: String,
        /// What is wrong with it.
        #[source]
        source: Box<FormatError>,
    },
    /// The format is empty, or longer than any that makes sense.
    #[error("a format has from 1 to {MAX} bytes")]
    Size,
}

fn hint(near: &Option<&'static str>) -> String {
    near.map(|near| format!("; did you mean %{near}%?")).unwrap_or_default()
}

/// Longer formats are refused.
pub(super) const MAX: usize = 16 * 1024;

/// A header that lines hold: its name in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(pub(super) Box<[u8]>);

impl Wanted {
    /// Its name in lower case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.0
    }
}

/// What a line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub(super) parts: Vec<Part>,
    /// Headers of requests that lines hold.
    pub(super) request: Vec<Wanted>,
    /// Headers of responses that lines hold.
    pub(super) response: Vec<Wanted>,
    pub(super) encoding: Encoding,
    pub(super) source: String,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Literal(Box<[u8]>),
    /// What an operator gives, cut to so many bytes.
    Operator(Operator, Option<usize>, Manner),
}

/// Where the value of an operator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// In text.
    Text,
    /// In a string of JSON, beside other text.
    JsonText,
    /// As a value of JSON: a number if it is one, `null` if there is nothing.
    JsonValue,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Format {
    /// How lines are written.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Headers of requests that lines hold.
    pub(crate) fn request_headers(&self) -> &[Wanted] {
        &self.request
    }

    /// Headers of responses that lines hold.
    pub(crate) fn response_headers(&self) -> &[Wanted] {
        &self.response
    }

    /// Whether lines hold the proxy's own address towards the upstream, which costs a system call.
    pub(crate) fn wants_upstream_local(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Operator(operator, ..) if operator.is_upstream_local()))
    }

    pub(super) fn literal(&mut self, text: &[u8]) {
        if let Some(Part::Literal(before)) = self.parts.last_mut() {
            *before = [&**before, text].concat().into();
        } else if !text.is_empty() {
            self.parts.push(Part::Literal(text.into()));
        }
    }
}
