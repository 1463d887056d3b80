//! Time as a parameter.

use std::time::Duration;

use crate::Timestamp;

/// Tells the time. The only way to learn it: `clippy.toml` bans the direct calls.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day. May jump. For what is shown and signed, never for measuring.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point of this process. Never goes back. For durations and leases.
    fn elapsed(&self) -> Duration;
}
