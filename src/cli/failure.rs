//! How a command fails: one sentence and an exit code.

use std::fmt;
use std::process::ExitCode;

/// What the user is told when a command does not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    sentence: String,
}

/// The command was understood and did not succeed.
const FAILED: u8 = 1;
/// The command was not understood.
const USAGE: u8 = 2;

pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(sentence: impl fmt::Display) -> Failure {
        Failure { code: FAILED, sentence: one_line(&sentence.to_string()) }
    }

    pub fn usage(sentence: impl fmt::Display) -> Failure {
        Failure { code: USAGE, sentence: one_line(&sentence.to_string()) }
    }

    /// Rebuilds a failure that another process reported.
    pub fn with_code(code: u8, sentence: &str) -> Failure {
        Failure { code: code.max(FAILED), sentence: one_line(sentence) }
    }

    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Prints the sentence and gives the exit code.
    pub fn report(&self, program: &str) -> ExitCode {
        eprintln!("{program}: {}", self.sentence);
        ExitCode::from(self.code)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// # Errors
    /// The same as before, as a [`Failure`] that begins with `doing`.
    fn or_fail(self, doing: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn or_fail(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{}: {error}", doing())))
    }
}

impl From<crate::config::layer::ConfigError> for Failure {
    fn from(error: crate::config::layer::ConfigError) -> Failure {
        Failure::usage(error)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::usage("the following arguments are missing:\n  <META>\n");
        assert_eq!(failure.sentence(), "the following arguments are missing: <META>");
        assert_eq!(failure.code(), 2);
    }
}
