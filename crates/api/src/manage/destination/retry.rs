//! The retry policy of a destination, as its owner writes it.

use std::num::NonZeroU32;

use serde_json::{Map, Value};
use signalpost_core::retry_policy::{On4xx, RetryPolicy, STANDARD_DELAYS_MS, Strategy, default_jitter};

use crate::manage::fields::{Fields, as_integer};

/// The shortest pause, in milliseconds.
pub const MIN_PAUSE_MS: u64 = 10;
/// The longest pause, in milliseconds: 7 days.
pub const MAX_PAUSE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The most pauses of a schedule.
pub const MAX_DELAYS: usize = 100;

/// What an exponential policy takes for members that are left out: 5 s, doubled up to a day, 16 attempts in about
/// two days.
pub const DEFAULT_INITIAL_MS: u64 = 5000;
/// See [`DEFAULT_INITIAL_MS`].
pub const DEFAULT_FACTOR: f64 = 2.0;
/// See [`DEFAULT_INITIAL_MS`].
pub const DEFAULT_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// See [`DEFAULT_INITIAL_MS`].
pub const DEFAULT_MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);

#[derive(Clone, Copy)]
enum Kind {
    Exponential,
    Schedule,
}

const EXPONENTIAL_ONLY: &[&str] = &["initial_ms", "factor", "max_ms", "max_attempts"];
const SCHEDULE_ONLY: &[&str] = &["delays_ms"];
const OF_BOTH: &[&str] = &["jitter", "on_4xx"];

/// Fills what is left out of a policy from another one: what both strategies have, and all else where they have the same. A
/// policy that tells by no member which strategy it means has that of the other.
pub fn fill(members: &mut Map<String, Value>, default: &Map<String, Value>) {
    let strategy = meant(default);
    let same = strategy.is_none() || meant(members).is_none_or(|named| Some(named) == strategy);
    if same && let Some(strategy) = strategy {
        members.entry("strategy").or_insert_with(|| strategy.into());
    }
    for (name, value) in default {
        let fits = OF_BOTH.contains(&name.as_str()) || same;
        // A limit of null is one that was taken away.
        let is_gap = |given: &Value| given.is_null() && name != "max_attempts";
        if fits && members.get(name).is_none_or(is_gap) {
            members.insert(name.clone(), value.clone());
        }
    }
}

/// Which strategy a policy means, as it is written.
fn meant(members: &Map<String, Value>) -> Option<&str> {
    let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
    match members.get("strategy") {
        Some(Value::String(name)) => Some(name),
        _ if has(EXPONENTIAL_ONLY) => Some("exponential"),
        _ if has(SCHEDULE_ONLY) => Some("schedule"),
        _ => None,
    }
}

/// Reads the members of `retry`. Without `strategy` the members tell which one is meant. None where something is wrong.
pub fn read(fields: &mut Fields<'_>) -> Option<RetryPolicy> {
    let named = fields.choice("strategy", &[("exponential", Kind::Exponential), ("schedule", Kind::Schedule)]);
    if named.is_none() && fields.has("strategy") && !fields.is_null("strategy") {
        // What else is there belongs to a strategy that nobody knows.
        for name in EXPONENTIAL_ONLY.iter().chain(SCHEDULE_ONLY).chain(OF_BOTH) {
            fields.value(name);
        }
        return None;
    }
    let meant = if EXPONENTIAL_ONLY.iter().any(|name| fields.has(name)) { Kind::Exponential } else { Kind::Schedule };
    let strategy = match named.unwrap_or(meant) {
        Kind::Exponential => {
            let detail = "belongs to the strategy `schedule`; `initial_ms`, `factor`, `max_ms` and `max_attempts` do to \
                          `exponential`";
            fields.refuse(SCHEDULE_ONLY, detail);
            read_exponential(fields)
        }
        Kind::Schedule => {
            let detail =
                "belongs to the strategy `exponential`; a schedule makes one attempt more than it has `delays_ms`";
            fields.refuse(EXPONENTIAL_ONLY, detail);
            Strategy::Schedule { delays_ms: read_delays(fields) }
        }
    };
    let jitter = fields.number("jitter", 0.0..=1.0).unwrap_or_else(default_jitter);
    let on_4xx = fields
        .choice("on_4xx", &[("auto", On4xx::Auto), ("always", On4xx::Always), ("never", On4xx::Never)])
        .unwrap_or_default();
    Some(RetryPolicy { strategy, jitter, on_4xx })
}

fn read_exponential(fields: &mut Fields<'_>) -> Strategy {
    // Here, and only here, null is not the default: it says that there is no limit.
    let unlimited = fields.is_null("max_attempts");
    let max_attempts = fields.integer("max_attempts", 1..=u64::from(u32::MAX));
    let max_attempts = match max_attempts.and_then(|most| u32::try_from(most).ok()).and_then(NonZeroU32::new) {
        None if unlimited => None,
        None => Some(DEFAULT_MAX_ATTEMPTS),
        Some(most) => Some(most),
    };
    let initial_ms = fields.integer("initial_ms", MIN_PAUSE_MS..=MAX_PAUSE_MS).unwrap_or(DEFAULT_INITIAL_MS);
    Strategy::Exponential {
        initial_ms,
        factor: fields.number("factor", 1.0..=10.0).unwrap_or(DEFAULT_FACTOR),
        // A first pause beyond the default's longest is meant as it is written.
        max_ms: fields.integer("max_ms", MIN_PAUSE_MS..=MAX_PAUSE_MS).unwrap_or(DEFAULT_MAX_MS.max(initial_ms)),
        max_attempts,
    }
}

fn read_delays(fields: &mut Fields<'_>) -> Vec<u64> {
    let delays = fields.items("delays_ms", MAX_DELAYS, |item| {
        as_integer(item)
            .filter(|delay| (MIN_PAUSE_MS..=MAX_PAUSE_MS).contains(delay))
            .ok_or_else(|| format!("must be a whole number from {MIN_PAUSE_MS} to {MAX_PAUSE_MS}"))
    });
    delays.unwrap_or_else(|| STANDARD_DELAYS_MS.to_vec())
}
