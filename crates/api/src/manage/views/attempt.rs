//! Attempts, as the API shows them.

use std::time::Duration;

use serde::Serialize;
use signalpost_core::{AttemptOutcome, DeliveryId, DestinationId, EventId, Timestamp};
use signalpost_store::{dispatch::Attempt, read::AttemptView};
use utoipa::ToSchema;

use crate::openapi::types::{AttemptOutcomeText, DeliveryIdText, DestinationIdText, EventIdText, TimeText};

/// One HTTP request that was made for a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptBody {
    /// For which delivery.
    #[schema(value_type = DeliveryIdText)]
    pub delivery_id: DeliveryId,
    /// Of which event.
    #[schema(value_type = EventIdText)]
    pub event_id: EventId,
    /// Where to.
    #[schema(value_type = DestinationIdText)]
    pub destination_id: DestinationId,
    /// From 1.
    pub number: u32,
    /// What came of it.
    #[schema(value_type = AttemptOutcomeText)]
    pub outcome: AttemptOutcome,
    /// The status of the response; null where none came.
    pub status_code: Option<u16>,
    /// How long it took, in whole milliseconds.
    pub duration_ms: u64,
    /// The beginning of the response's body, at most 4 KiB; null where no response came.
    pub response_excerpt: Option<String>,
    /// What went wrong; null where nothing did.
    pub error: Option<String>,
    /// When it began.
    #[schema(value_type = TimeText)]
    pub started_at: Timestamp,
}

impl AttemptBody {
    /// An attempt and whose it is.
    pub fn new(delivery_id: DeliveryId, event_id: EventId, destination_id: DestinationId, attempt: &Attempt) -> Self {
        Self {
            delivery_id,
            event_id,
            destination_id,
            number: attempt.number,
            outcome: attempt.outcome,
            status_code: attempt.status_code,
            duration_ms: whole_millis(attempt.duration),
            response_excerpt: attempt
                .status_code
                .map(|_| String::from_utf8_lossy(&attempt.response_excerpt).into_owned()),
            error: attempt.error.clone(),
            started_at: attempt.started_at,
        }
    }
}

impl From<&AttemptView> for AttemptBody {
    fn from(view: &AttemptView) -> Self {
        Self::new(view.delivery_id, view.event_id, view.destination_id, &view.attempt)
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.saturating_add(Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX)
}
