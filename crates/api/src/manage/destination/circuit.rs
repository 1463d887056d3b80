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

/// Fills what is left out of a circuit from the operator's default. Its longest time is left alone where it is shorter than the
/// first one that the owner asks for: the owner did not write it.
pub fn fill(members: &mut Map<String, Value>, default: &Map<String, Value>) {
    let open_ms = members.get("open_ms").and_then(as_integer);
    for (name, value) in default {
        let too_short =
            name == "max_open_ms" && open_ms.is_some_and(|open| as_integer(value).is_some_and(|most| most < open));
        if !too_short && members.get(name).is_none_or(Value::is_null) {
            members.insert(name.clone(), value.clone());
        }
    }
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
