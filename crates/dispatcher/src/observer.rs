//! Lets somebody watch the attempts: the terminal of `dev`.

use std::time::Duration;

use signalpost_core::{AttemptOutcome, DeliveryId, DestinationId};

/// Is told of every attempt, after its outcome is written. Called on the hot path: it must not block.
pub trait Observer: Send + Sync {
    /// One attempt.
    fn attempted(&self, report: &AttemptReport);
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// Of the event.
    pub event_type: String,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Where to.
    pub destination_id: DestinationId,
    /// Its name; may be empty.
    pub destination_name: String,
    /// From 1.
    pub attempt: u32,
    /// How many there are at most; None: no limit.
    pub max_attempts: Option<u32>,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// Of the response.
    pub status_code: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// When it is tried again.
    pub next_in: Option<Duration>,
}
