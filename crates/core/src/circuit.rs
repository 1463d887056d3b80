//! The circuit of a destination: it opens when the destination fails, lets a few probes through after a while, and
//! closes by a ramp. While it is open nothing is sent, and no attempt is consumed.
//!
//! Here is what people set and see; the rules are in [`machine`].

pub mod machine;
mod window;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use self::machine::{Circuit, Permits, Seen};
use crate::Timestamp;

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitPolicy {
    /// Whether there is a circuit at all.
    pub enabled: bool,
    /// Opens on that many failures in a row over at least 5 s with no success between.
    pub failures: NonZeroU32,
    /// Opens when that part of at least 20 attempts of the last 30 s failed: 0.01 to 1.
    pub failure_ratio: f64,
    /// How long it stays open the first time: 100 to 3,600,000 ms. Doubles with each further opening, ± 20 %.
    pub open_ms: u64,
    /// The longest that it stays open.
    pub max_open_ms: u64,
    /// Requests let through to try: all must succeed.
    pub probes: NonZeroU32,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: NonZeroU32::MIN.saturating_add(4),
            failure_ratio: 0.5,
            open_ms: 30_000,
            max_open_ms: 300_000,
            probes: NonZeroU32::MIN.saturating_add(2),
        }
    }
}

/// What the store remembers of a circuit, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitRecord {
    /// As it was last told.
    pub state: CircuitState,
    /// Since when; None: since the destination was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// All openings since the destination was created.
    pub trips: u32,
    /// Why it opened, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a circuit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Requests go through.
    #[default]
    Closed,
    /// None does.
    Open,
    /// A few do, to try.
    HalfOpen,
}
