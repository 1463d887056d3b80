//! One clock for producers and receiver: both are in this process, so a latency is a difference of two of its readings.

use std::time::Duration;

use signalpost_core::{Clock as _, Timestamp};
use signalpost_runtime::SystemClock;
use tokio::time::Instant;

/// The moment from which everything of a run is counted.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    began: Instant,
    date: Timestamp,
}

impl Epoch {
    /// Counts from now on.
    pub fn start() -> Self {
        Self { began: Instant::now(), date: SystemClock::new().now() }
    }

    /// How long ago that was. Never goes back.
    pub fn now(self) -> Duration {
        self.began.elapsed()
    }

    /// Sleeps until that time; at once where it has passed.
    pub async fn sleep_until(self, at: Duration) {
        tokio::time::sleep_until(self.began + at).await;
    }

    /// Tells this run from all others, for what a Signalpost remembers longer than a run lasts: idempotency keys and slugs.
    /// Lower-case letters and digits.
    pub fn tag(self) -> String {
        format!("{:x}", self.date.as_micros())
    }
}
