//! What the dispatcher needs.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryId, DeliveryState, Destination, DestinationId, Event, EventId, TenantId,
    Timestamp, WaitReason,
};

use crate::StoreError;

/// The dispatcher's part.
#[async_trait]
pub trait DispatchStore: Debug + Send + Sync + 'static {
    /// The destinations with these ids, in any order; those that are gone are missing. One in state `Deleted` is given.
    ///
    /// # Errors
    /// The store is away.
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError>;

    /// The destinations that changed since a moment of the store's clock (with an overlap, so that none is missed),
    /// and the moment to ask from next time. `None` gives none and the present moment.
    ///
    /// # Errors
    /// The store is away.
    async fn changed_since(&self, since: Option<Timestamp>) -> Result<(Vec<Destination>, Timestamp), StoreError>;

    /// How deliveries stand now, in the order of the ids; None where there is none.
    ///
    /// # Errors
    /// The store is away.
    async fn examine(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Standing>>, StoreError>;

    /// Whole events, in any order; missing ones are missing.
    ///
    /// # Errors
    /// The store is away.
    async fn events(&self, ids: &[EventId]) -> Result<Vec<Arc<Event>>, StoreError>;

    /// Writes what came of deliveries, all in one transaction, each on its condition. Results are in order.
    /// Repeating a batch is harmless.
    ///
    /// # Errors
    /// `Unavailable`: unknown; repeat. `Data`: one is refused; split.
    async fn write(&self, batch: &[DeliveryWrite]) -> Result<Vec<Written>, StoreError>;

    /// Disables a destination (410, or failing for too long), as a change of it. Does nothing where it is not active
    /// or paused.
    ///
    /// # Errors
    /// The store is away.
    async fn disable_destination(&self, tenant: TenantId, id: DestinationId, reason: &str) -> Result<(), StoreError>;
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub state: DeliveryState,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// Where it waits: until when (also the mark of the lease under which it was fed) and for what.
    pub waiting: Option<(Timestamp, WaitReason)>,
}

/// Which delivery a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub delivery_id: DeliveryId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Where to.
    pub destination_id: DestinationId,
    /// Of which event.
    pub event_id: EventId,
}

/// What came of a delivery. All of them only on a delivery that has not ended; else [`Written::Superseded`].
#[derive(Debug, Clone, PartialEq)]
pub enum DeliveryWrite {
    /// A request was made. On condition that `attempt.number` attempts less one are recorded, or that this very number
    /// is recorded as `interrupted` and none after it (then it takes its place).
    Attempt {
        /// Which.
        target: Target,
        /// The request.
        attempt: Attempt,
        /// What follows.
        next: Next,
    },
    /// It cannot be sent now: it goes to `waiting`. Consumes no attempt.
    Park {
        /// Which.
        target: Target,
        /// What for.
        reason: WaitReason,
        /// Due after this, by the store's clock.
        after: Duration,
        /// Hold the whole queue of the destination for that long, and spill it: new deliveries go straight to `waiting`
        /// until it has been drained.
        hold_queue: bool,
    },
    /// Its request is out for long: from now on the store brings it back if the process dies.
    Detach {
        /// Which.
        target: Target,
        /// The number of the request that is out.
        attempt: u32,
        /// When it must have ended, by the store's clock, from now.
        deadline: Duration,
    },
    /// It ends without a request: its destination is deleted (`Cancelled`), or it is too old (`Dead`).
    End {
        /// Which.
        target: Target,
        /// None: cancelled.
        dead: Option<DeadReason>,
    },
}

impl DeliveryWrite {
    /// Which delivery it is about.
    pub const fn target(&self) -> &Target {
        match self {
            Self::Attempt { target, .. }
            | Self::Park { target, .. }
            | Self::Detach { target, .. }
            | Self::End { target, .. } => target,
        }
    }
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it arrived.
    Delivered,
    /// Another attempt: it goes to (or stays in) `waiting`.
    Retry {
        /// Due after this, by the store's clock.
        after: Duration,
    },
    /// Nothing: it goes to `dead_letters`, with a copy of its event.
    Dead {
        /// Why.
        reason: DeadReason,
    },
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1, dense.
    pub number: u32,
    /// When it began, by the dispatcher's clock.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// Of the response, where there was one.
    pub status_code: Option<u16>,
    /// At most 4 KiB of the response's body.
    pub response_excerpt: Bytes,
    /// What went wrong, for its owner: no internal address, no secret.
    pub error: Option<String>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// The delivery ended, or its next attempt is another: nothing was written.
    Superseded,
}
