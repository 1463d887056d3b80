//! The real clock and the real randomness. The only place that calls them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use signalpost_core::{Clock, Entropy, Timestamp};

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
    /// Added to the system's time.
    offset_us: i64,
}

impl SystemClock {
    /// A clock whose `elapsed` starts now.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now(), offset_us: 0 }
    }

    /// The same on a machine whose clock is off by so many milliseconds. `elapsed` is not: it belongs to no date.
    #[must_use]
    pub fn off_by_ms(self, offset_ms: i64) -> Self {
        Self { offset_us: offset_ms.saturating_mul(1_000), ..self }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_add(self.offset_us))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The thread's cryptographically strong generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[allow(clippy::disallowed_methods, reason = "this is the source of randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
