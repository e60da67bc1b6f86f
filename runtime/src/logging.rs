//! Logs on stderr, as text or JSON, with a filter that can be changed while the daemon runs.

use std::fmt;
use std::io;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
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
    initial: Arc<str>,
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
    let initial = filter.into();
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = match format {
        Format::Text => {
            tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed()
        }
        Format::Json => tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(LoggingError::Twice)?;
    Ok(Logging { filter: handle, initial })
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

    /// Goes back to the filter that the daemon was started with.
    ///
    /// # Errors
    ///
    /// When the subscriber is gone.
    pub fn reset(&self) -> Result<(), LoggingError> {
        self.set_filter(&self.initial)
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// `GET /logging` tells the filter, `POST /logging?level=FILTER` changes it, `POST /logging?reset=true` goes back to the
/// one from the start. Who may ask is for the caller to decide.
pub fn router<S: Clone + Send + Sync + 'static>(logging: Option<Logging>) -> Router<S> {
    Router::new().route("/logging", get(tell).post(change)).with_state(logging)
}

async fn tell(State(logging): State<Option<Logging>>) -> Response {
    match logging {
        Some(logging) => format!("{}\n", logging.filter()).into_response(),
        None => not_ours(),
    }
}

/// What to change. A misspelt parameter is an error, not silence.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    level: Option<String>,
    #[serde(default)]
    reset: bool,
}

async fn change(State(logging): State<Option<Logging>>, Query(change): Query<Change>) -> Response {
    let Some(logging) = logging else { return not_ours() };
    let changed = match change {
        Change { level: Some(level), reset: false } => logging.set_filter(&level),
        Change { level: None, reset: true } => logging.reset(),
        Change { .. } => {
            let text = "say `POST /logging?level=debug`, `level=info,mesh_proxy=debug`, or `reset=true`\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    match changed {
        Ok(()) => {
            let filter = logging.filter();
            tracing::info!(filter, "the log filter has been changed");
            format!("{filter}\n").into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{}\n", crate::exit::chain(&error))).into_response(),
    }
}

fn not_ours() -> Response {
    (StatusCode::NOT_FOUND, "the log belongs to the program that this daemon runs in\n").into_response()
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
