//! `[destination_defaults]`: what a new destination has where its owner says nothing.
//!
//! They are members of a destination as the API knows them, so they stay a JSON document here. Names and types are
//! checked against the core's own; ranges are checked by the API, which reads them as it reads a request.

use serde_json::{Map, Value, json};
use signalpost_core::DestinationSpec;

use crate::{ConfigError, error::nearest};

/// Members of a destination; JSON as in the API.
pub type DestinationDefaults = Map<String, Value>;

/// Members that may have a default of the operator's.
pub const MEMBERS: &[&str] = &[
    "event_types",
    "method",
    "headers",
    "body_format",
    "timeout_ms",
    "rate_limit",
    "max_in_flight",
    "retry",
    "circuit",
    "guarantee",
    "ordering",
    "ordering_key_from",
    "ordering_on_dead",
    "disable_after",
];

/// Reads the table.
///
/// # Errors
/// A member is not known, or its value is not of its type.
pub(crate) fn read(table: &toml::Table, file: &str) -> Result<DestinationDefaults, ConfigError> {
    let mut defaults = Map::new();
    for (name, value) in table {
        let found = format!("destination_defaults.{name} in {file}");
        if !MEMBERS.contains(&name.as_str()) {
            let suggestion = nearest(name, MEMBERS.iter().copied()).map(str::to_owned);
            return Err(ConfigError::Unknown { name: found, suggestion });
        }
        let wrong = |problem: String| ConfigError::Invalid { name: found.clone(), value: None, problem };
        let value = serde_json::to_value(value).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        let mut destination = json!({ "url": "https://example.com/", "event_types": ["*"] });
        destination[name] = value.clone();
        serde_json::from_value::<DestinationSpec>(destination).map_err(|error| wrong(format!("is wrong: {error}")))?;
        defaults.insert(name.clone(), value);
    }
    Ok(defaults)
}
