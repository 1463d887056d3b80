//! What a check of `doctor` found.

use std::fmt;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// How it is.
    pub state: State,
}

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be; with what was seen.
    Good(String),
    /// It works, but a person should know.
    Note(String),
    /// It does not work.
    Bad {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Finding {
    /// As it should be.
    pub fn good(what: &'static str, seen: impl Into<String>) -> Self {
        Self { what, state: State::Good(seen.into()) }
    }

    /// It works, but a person should know.
    pub fn note(what: &'static str, seen: impl Into<String>) -> Self {
        Self { what, state: State::Note(seen.into()) }
    }

    /// It does not work.
    pub fn bad(what: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state: State::Bad { problem: problem.into(), remedy: remedy.into() } }
    }

    /// Whether something is to be done.
    pub fn is_bad(&self) -> bool {
        matches!(self.state, State::Bad { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Good(seen) => write!(f, "ok    {:<18} {seen}", self.what),
            State::Note(seen) => write!(f, "note  {:<18} {seen}", self.what),
            State::Bad { problem, remedy } => write!(f, "FAIL  {:<18} {problem}\n{:25}→ {remedy}", self.what, ""),
        }
    }
}
