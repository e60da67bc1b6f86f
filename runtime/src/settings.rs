//! Settings from the environment, typed, with errors that name the variable, its value and what it should be.
//!
//! This is the only place that reads environment variables.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Where a daemon's settings come from.
#[derive(Debug, Clone)]
pub struct Env {
    fixed: Option<BTreeMap<String, String>>,
}

/// Why a setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// It must be set and is not.
    #[error("{name} is not set; it must hold {what}")]
    Missing {
        /// The variable.
        name: String,
        /// What it must hold.
        what: &'static str,
    },
    /// It is set to something that does not make sense.
    #[error("{name}={value:?} is not {what}: {reason}")]
    Invalid {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        reason: String,
    },
    /// Its bytes are not UTF-8.
    #[error("{name} is not UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
}

impl Env {
    /// The process's own environment.
    #[must_use]
    pub fn process() -> Self {
        Env { fixed: None }
    }

    /// The given variables only, for tests.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let fixed = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Env { fixed: Some(fixed) }
    }

    /// The value of `name`; an empty value counts as not set.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, SettingError> {
        let value = match &self.fixed {
            Some(fixed) => fixed.get(name).cloned(),
            None => read(name)?,
        };
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The value of `name`, or `default`.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn text_or(&self, name: &str, default: &str) -> Result<String, SettingError> {
        Ok(self.text(name)?.unwrap_or_else(|| default.to_owned()))
    }

    /// The value of `name`, which must be set; `what` says what it must hold.
    ///
    /// # Errors
    ///
    /// When it is not set, or not UTF-8.
    pub fn required(&self, name: &str, what: &'static str) -> Result<String, SettingError> {
        self.text(name)?.ok_or_else(|| SettingError::Missing { name: name.to_owned(), what })
    }

    /// The value of `name` as a `T`; `what` says what it should hold, as `a number of threads`.
    ///
    /// # Errors
    ///
    /// When it is set and cannot be read as a `T`.
    pub fn parse<T>(&self, name: &str, what: &'static str) -> Result<Option<T>, SettingError>
    where
        T: FromStr<Err: Display>,
    {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(invalid(name, value, what, &error)),
        }
    }

    /// One part of the value of `name`, or its default, as a `T`.
    ///
    /// # Errors
    ///
    /// When it cannot be read as a `T`.
    pub fn parse_text<T>(&self, text: &str, name: &str, what: &'static str) -> Result<T, SettingError>
    where
        T: FromStr<Err: Display>,
    {
        text.parse().map_err(|error| invalid(name, text.to_owned(), what, &error))
    }

    /// The value of `name` in seconds, with or without a fraction, or `default`.
    ///
    /// # Errors
    ///
    /// When it is set and is not a number of seconds from 0 to a day.
    pub fn seconds_or(&self, name: &str, default: Duration) -> Result<Duration, SettingError> {
        const WHAT: &str = "a number of seconds";
        let Some(seconds) = self.parse::<f64>(name, WHAT)? else { return Ok(default) };
        if (0.0..=86_400.0).contains(&seconds) {
            return Ok(Duration::from_secs_f64(seconds));
        }
        Err(invalid(name, seconds.to_string(), WHAT, &"it must be from 0 to 86400"))
    }

    /// The value of `name` as `true` or `false` (also `1`, `0`, `yes`, `no`), or `default`.
    ///
    /// # Errors
    ///
    /// When it is set and is neither.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, SettingError> {
        let Some(value) = self.text(name)? else { return Ok(default) };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(invalid(name, value, "true or false", &"write true or false")),
        }
    }
}

fn invalid(name: &str, value: String, what: &'static str, reason: &dyn Display) -> SettingError {
    SettingError::Invalid { name: name.to_owned(), value, what, reason: reason.to_string() }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn read(name: &str) -> Result<Option<String>, SettingError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(SettingError::NotText { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_makes_no_sense_is_named_with_its_value() {
        let env = Env::of([("MESH_CONCURRENCY", "many"), ("MESH_DRAIN_SECONDS", "-1")]);
        let error = env.parse::<u16>("MESH_CONCURRENCY", "a number of threads").expect_err("it is no number");
        assert_eq!(
            error.to_string(),
            "MESH_CONCURRENCY=\"many\" is not a number of threads: invalid digit found in string"
        );
        let error = env.seconds_or("MESH_DRAIN_SECONDS", Duration::ZERO).expect_err("it is negative");
        assert_eq!(
            error.to_string(),
            "MESH_DRAIN_SECONDS=\"-1\" is not a number of seconds: it must be from 0 to 86400"
        );
    }

    #[test]
    fn what_is_not_set_or_empty_takes_its_default() {
        let env = Env::of([("EMPTY", "")]);
        assert_eq!(env.text_or("EMPTY", "x"), Ok("x".to_owned()));
        assert_eq!(env.seconds_or("ABSENT", Duration::from_secs(5)), Ok(Duration::from_secs(5)));
        assert_eq!(env.flag_or("ABSENT", true), Ok(true));
        assert_eq!(
            env.required("EMPTY", "the pod's name").expect_err("it is empty").to_string(),
            "EMPTY is not set; it must hold the pod's name"
        );
    }
}
