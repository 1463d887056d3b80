//! What can be wrong with settings. Each error is one line that names the setting and where it was found.

use std::path::PathBuf;

use crate::setting::Kind;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows a setting of this name.
    #[error("{name} is not a setting{}", suggest(.suggestion.as_deref()))]
    Unknown {
        /// As it was found, with where.
        name: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// The value cannot be. Of a secret the value is not shown.
    #[error("{name}{} {problem}", shown(.value.as_deref()))]
    Invalid {
        /// As it was found, with where.
        name: String,
        /// None for secrets.
        value: Option<String>,
        /// What is wrong with it.
        problem: String,
    },
    /// This kind of service does not work without.
    #[error("SIGNALPOST_{name} is not set; {kind} needs it, e.g. SIGNALPOST_{name}={example}")]
    Missing {
        /// Without the prefix.
        name: &'static str,
        /// Who needs it.
        kind: Kind,
        /// What it may look like.
        example: &'static str,
    },
    /// One setting is given in two ways: a secret directly and by file, or under two names.
    #[error("{name} and {other} are both set; set one")]
    Both {
        /// One of them.
        name: String,
        /// The other.
        other: String,
    },
    /// A file cannot be read.
    #[error("{name}: {} cannot be read: {problem}", .path.display())]
    Unreadable {
        /// The setting that names the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// The configuration file is not TOML.
    #[error("{} is not TOML: {problem}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        problem: String,
    },
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" (`{}`)", value.escape_debug()))
}

/// The known name that is most like another one, where one is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
