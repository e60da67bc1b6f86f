//! The last word of a process: the error's chain once, what to do next, and an exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// How a command or daemon ended (`DESIGN.md` §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Done = 0,
    /// Found problems, or failed.
    Failed = 1,
    /// It was called wrongly: flags, arguments, settings.
    Usage = 2,
    /// Something that it needs cannot be reached.
    Unreachable = 3,
    /// It waited for long enough.
    Timeout = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// An error on its way out of the process.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    source: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with code 1.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Failure { code: Code::Failed, source: error.into(), hint: None }
    }

    /// A failure because of flags, arguments or settings.
    #[must_use]
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Failure::new(error).with_code(Code::Usage)
    }

    /// The same with another code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The same with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::new(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", chain(self.source.as_ref()))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An error and its causes in one line. A cause that its effect has already quoted is not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

/// Ends `main`: prints a failure once on stderr and gives its exit code.
#[must_use]
pub fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => Code::Done.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the certificate in /etc/mesh/tls.crt cannot be used")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("it holds no certificate")]
    struct Inner;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::usage(Outer(Inner)).with_hint("install again with `meshctl install`");
        assert_eq!(
            failure.to_string(),
            "error: the certificate in /etc/mesh/tls.crt cannot be used: it holds no certificate\n\
             hint: install again with `meshctl install`"
        );
        assert_eq!(failure.code(), Code::Usage);
    }
}
