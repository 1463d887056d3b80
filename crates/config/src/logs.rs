//! What is logged, and how it looks.

use crate::{setting::Setting, value::Value};

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// A filter of `tracing`: levels, and levels of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Warnings and errors of everything.
    pub fn warn() -> Self {
        Self("warn".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A word by itself is a level. `tracing` takes any other for a target of which everything is logged, and of all others nothing: a
/// slip in a level would silence the log. The rest of a filter is judged where it is used.
impl Value for LogFilter {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        let filter = Self(text.to_owned());
        // Fields of spans may hold commas.
        if text.contains(['[', '{']) {
            return Ok(filter);
        }
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains('='));
        for word in words {
            let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
            if !is_level && !word.parse::<u8>().is_ok_and(|number| number <= 5) {
                let (word, levels) = (word.escape_debug(), LEVELS.join(", "));
                return Err(format!("has `{word}`, which is no level ({levels}); of a target, write `target=level`"));
            }
        }
        Ok(filter)
    }
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// By whether standard error is a terminal.
    Auto,
    /// A line of JSON per event.
    Json,
    /// For people.
    Text,
}

impl Format {
    /// JSON or not; None: by the terminal.
    pub const fn json(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Json => Some(true),
            Self::Text => Some(false),
        }
    }
}

impl Value for Format {
    fn parse(text: &str, _: &Setting) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("must be auto, json or text".to_owned()),
        }
    }
}
