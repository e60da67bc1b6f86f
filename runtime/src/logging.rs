//! Logs on stderr, as text or JSON, with a filter that can be changed while the daemon runs.

use std::fmt;
use std::io;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("write text or json"),
        }
    }
}

/// Why logging cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error(
        "{filter:?} is not a log filter; write a level as info or debug, or levels by target as info,mesh_proxy=debug"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else has set up logging in this process already.
    #[error("logging is already set up in this process")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone, so its filter cannot be changed.
    #[error("the log filter cannot be changed")]
    Gone(#[source] reload::Error),
}

/// A handle on the process's log filter.
#[derive(Clone)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("filter", &self.filter()).finish()
    }
}

/// Sets up the process's logs. `filter` is a level or a list of `target=level`.
///
/// # Errors
///
/// When the filter cannot be read, or logging is set up already.
pub fn init(format: Format, filter: &str) -> Result<Logging, LoggingError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = match format {
        Format::Text => {
            tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed()
        }
        Format::Json => tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(LoggingError::Twice)?;
    Ok(Logging { filter: handle })
}

impl Logging {
    /// Changes the filter.
    ///
    /// # Errors
    ///
    /// When it cannot be read; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LoggingError> {
        self.filter.reload(parse(filter)?).map_err(LoggingError::Gone)
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    let builder = EnvFilter::builder().with_regex(false);
    builder.parse(filter).map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_an_example() {
        let error = parse("mesh_proxy=loud").expect_err("there is no such level");
        assert!(error.to_string().starts_with("\"mesh_proxy=loud\" is not a log filter; write a level"), "{error}");
        assert!(parse("info,mesh_proxy=debug").is_ok());
    }
}
