//! The circuit of a destination, as its owner writes it.

use std::num::NonZeroU32;

use serde_json::{Map, Value};
use signalpost_core::CircuitPolicy;

use super::whole;
use crate::manage::fields::{Fields, as_integer};

/// The shortest time that a circuit stays open, in milliseconds.
pub const MIN_OPEN_MS: u64 = 100;
/// The longest time that a circuit stays open, in milliseconds: an hour.
pub const MAX_OPEN_MS: u64 = 60 * 60 * 1000;

/// Fills what is left out of a circuit from a default. A longest time that is shorter than the first one is none that the owner
/// wrote: of the two the default's gives way.
pub fn fill(members: &mut Map<String, Value>, default: &Map<String, Value>) {
    let (open_ms, max_open_ms) = (integer(members, "open_ms"), integer(members, "max_open_ms"));
    for (name, value) in default.iter().filter(|(_, value)| !value.is_null()) {
        let fits = match (name.as_str(), as_integer(value)) {
            ("max_open_ms", Some(most)) => open_ms.is_none_or(|open| open <= most),
            ("open_ms", Some(open)) => max_open_ms.is_none_or(|most| open <= most),
            _ => true,
        };
        if fits && members.get(name).is_none_or(Value::is_null) {
            members.insert(name.clone(), value.clone());
        }
    }
}

fn integer(members: &Map<String, Value>, name: &str) -> Option<u64> {
    members.get(name).and_then(as_integer)
}

/// Reads the members of `circuit`.
pub fn read(fields: &mut Fields<'_>) -> Option<CircuitPolicy> {
    let default = CircuitPolicy::default();
    let count = |fields: &mut Fields<'_>, name, most, default: NonZeroU32| {
        whole(fields.integer(name, 1..=most)).unwrap_or(default)
    };
    let open_ms = fields.integer("open_ms", MIN_OPEN_MS..=MAX_OPEN_MS).unwrap_or(default.open_ms);
    Some(CircuitPolicy {
        enabled: fields.boolean("enabled").unwrap_or(default.enabled),
        failures: count(fields, "failures", 1000, default.failures),
        failure_ratio: fields.number("failure_ratio", 0.01..=1.0).unwrap_or(default.failure_ratio),
        open_ms,
        max_open_ms: read_max_open(fields, open_ms).unwrap_or(default.max_open_ms.max(open_ms)),
        probes: count(fields, "probes", 100, default.probes),
    })
}

fn read_max_open(fields: &mut Fields<'_>, open_ms: u64) -> Option<u64> {
    let most = fields.integer("max_open_ms", MIN_OPEN_MS..=MAX_OPEN_MS)?;
    if most < open_ms {
        fields.wrong("max_open_ms", format_args!("must not be shorter than `open_ms`, which is {open_ms}"));
        return None;
    }
    Some(most)
}
