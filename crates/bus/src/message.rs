//! What travels: one delivery that can be sent now.

use std::sync::Arc;

use signalpost_core::{DeliveryId, DestinationId, Event, Guarantee, LaneId, TenantId, Timestamp};
use signalpost_store::schedule::DueDelivery;

/// The largest `data` that a message carries whole; larger ones go by reference.
pub const MAX_INLINE_BYTES: usize = 64 * 1024;

/// One delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Which.
    pub delivery_id: DeliveryId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Where to. Also the key of the message.
    pub destination_id: DestinationId,
    /// The version of the destination when this was made: who has an older copy loads first.
    pub destination_version: u32,
    /// The number that its next attempt will have, from 1.
    pub attempt: u32,
    /// Who published it.
    pub origin: Origin,
    /// The event. With [`Payload::ByReference`] its `data` is empty and is read from the store.
    pub event: Arc<Event>,
    /// Whether the event is whole.
    pub payload: Payload,
    /// Its lane: it is checked against the store before it is sent, and sent only while its lease lasts.
    pub lane: Option<LaneId>,
    /// At most once: it is claimed in the store before it is sent.
    pub guarantee: Guarantee,
    /// A replay: when it was made. None: with its event.
    pub born_at: Option<Timestamp>,
}

impl Message {
    /// When it was born: what its age counts from.
    pub fn born_at(&self) -> Timestamp {
        self.born_at.unwrap_or_else(|| self.delivery_id.created_at())
    }

    /// Decides by size whether an event travels whole, and empties its `data` where it does not.
    pub fn carry(event: Arc<Event>) -> (Arc<Event>, Payload) {
        if event.data.len() <= MAX_INLINE_BYTES {
            return (event, Payload::Inline);
        }
        let mut light = (*event).clone();
        light.data = bytes::Bytes::new();
        (Arc::new(light), Payload::ByReference)
    }
}

impl From<DueDelivery> for Message {
    fn from(due: DueDelivery) -> Self {
        let (event, payload) = if due.whole { Self::carry(due.event) } else { (due.event, Payload::ByReference) };
        Self {
            delivery_id: due.delivery_id,
            tenant_id: due.tenant_id,
            destination_id: due.destination_id,
            destination_version: due.destination_version,
            attempt: due.attempts.saturating_add(1),
            origin: Origin::Feed { leased_until: due.leased_until },
            event,
            payload,
            lane: due.lane,
            guarantee: due.guarantee,
            born_at: due.born_at,
        }
    }
}

/// Who published a message. All but `Fresh` are suspects, checked against the store before sending; and so is a
/// `Fresh` one that was read before an assignment or is older than a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The API, right after its commit: for the first time.
    Fresh,
    /// The feed of what is due. Its anchor in `waiting` stays, leased until that moment of the store's clock: a message
    /// whose lease is no longer the one in the store is dropped.
    Feed {
        /// The mark of the lease.
        leased_until: Timestamp,
    },
}

/// Whether a message carries its event's `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// It does.
    Inline,
    /// The dispatcher reads it from the store, in batches.
    ByReference,
}
