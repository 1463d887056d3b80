//! One clock for producers and receiver: both are in this process, so a latency is a difference of two of its readings.

use std::time::Duration;

use tokio::time::Instant;

/// The moment from which everything of a run is counted.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    /// Counts from now on.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was. Never goes back.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// Sleeps until that time; at once where it has passed.
    pub async fn sleep_until(self, at: Duration) {
        tokio::time::sleep_until(self.0 + at).await;
    }
}
