//! Dead letters, as the API shows them.

use serde::Serialize;
use signalpost_core::{DeadReason, DeliveryId, DestinationId, EventId, Timestamp};
use signalpost_store::read::DeadLetter;
use utoipa::ToSchema;

use super::{
    attempt::AttemptBody,
    event::{EventAttributes, EventData},
};
use crate::openapi::types::{DeadReasonText, DeliveryIdText, DestinationIdText, EventIdText, TimeText};

/// A delivery that failed for good, until it is replayed or discarded. It keeps its own copy of its event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterBody {
    /// The id of the delivery.
    #[schema(value_type = DeliveryIdText)]
    pub id: DeliveryId,
    #[allow(missing_docs)]
    #[schema(value_type = EventIdText)]
    pub event_id: EventId,
    #[allow(missing_docs)]
    pub event_type: String,
    /// Where it could not be delivered.
    #[schema(value_type = DestinationIdText)]
    pub destination_id: DestinationId,
    /// Why it failed for good.
    #[schema(value_type = DeadReasonText)]
    pub reason: DeadReason,
    /// When.
    #[schema(value_type = TimeText)]
    pub dead_at: Timestamp,
    /// How many attempts were made.
    pub attempts: u32,
    /// The deliveries behind it in its lane wait until it is replayed or discarded (`ordering_on_dead: "block"`).
    pub blocks_lane: bool,
    /// The last attempt; null where there was none, or where it is past its retention.
    pub last_attempt: Option<AttemptBody>,
    /// Its event.
    pub event: EventAttributes,
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub data: EventData,
}

impl DeadLetterBody {
    /// With or without `data`.
    pub fn new(letter: &DeadLetter, with_data: bool) -> Self {
        Self {
            id: letter.delivery_id,
            event_id: letter.event.id,
            event_type: letter.event.event_type.clone(),
            destination_id: letter.destination_id,
            reason: letter.reason,
            dead_at: letter.dead_at,
            attempts: letter.attempts,
            blocks_lane: letter.blocks_lane,
            last_attempt: letter
                .last_attempt
                .as_ref()
                .map(|attempt| AttemptBody::new(letter.delivery_id, letter.event.id, letter.destination_id, attempt)),
            event: EventAttributes::from(&*letter.event),
            data: if with_data { EventData::of(&letter.event) } else { EventData::default() },
        }
    }
}
