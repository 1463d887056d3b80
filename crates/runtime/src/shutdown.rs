//! Stopping in two steps: first finish what is in flight, then stop at once.

use tokio_util::sync::CancellationToken;

/// Told to every long-lived task. Cloning gives another handle of the same.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// Nothing is to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// First step: take nothing new, finish what is in flight. May be called often.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Second step: stop at once. Implies the first.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Waits for the first step.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for the second step.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the first step was taken.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }
}
