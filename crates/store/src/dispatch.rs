//! What the dispatcher needs.
//!
//! It acts for all tenants: the ids that it asks for come from the bus, from the feed and from rows, never from a caller of the
//! API, and what it is given carries its tenant. So its methods take no tenant.

use std::{fmt::Debug, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_core::{
    AttemptOutcome, CircuitRecord, DeadReason, DeliveryId, DeliveryState, Destination, DestinationId, Event, EventId,
    Guarantee, LaneId, TenantId, Timestamp, WaitReason,
};

use crate::{StoreError, schedule::DueDelivery};

/// Makes a batch; an empty one where there is nothing to write after all.
pub type MakeBatch = Box<dyn FnOnce() -> Arc<[DeliveryWrite]> + Send>;

/// The dispatcher's part.
#[async_trait]
pub trait DispatchStore: Debug + Send + Sync + 'static {
    /// The destinations with these ids, in any order; those that are gone are missing. One in state `Deleted` is given.
    ///
    /// # Errors
    /// The store is away.
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError>;

    /// The destinations that changed, or whose circuit was recorded, since a moment of the store's clock (with an
    /// overlap, so that none is missed), and the moment to ask from next time. `None` gives none and the present moment.
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

    /// Writes what came of deliveries, each on its condition, those of one delivery in the order of the batch. Results are in order.
    /// Repeating a batch is harmless; after an error some of it may have been written.
    ///
    /// What ends in a lane lets the next of the lane go: it is due now or, with `hand_over`, leased to the caller for
    /// [`crate::HANDOVER_LEASE`] and given back with the answer. An answer that is lost costs no more than that lease.
    ///
    /// Failed attempts count for `disable_after`; an attempt that arrived forgets them.
    ///
    /// # Errors
    /// `Unavailable`: unknown; repeat. `Data`: one is refused; split.
    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError>;

    /// As [`Self::write`], of a batch that is made when its transaction begins: so it holds all that came to an end while the
    /// store was busy with others. It may come to that after the caller has gone.
    ///
    /// # Errors
    /// As [`Self::write`]; the batch may not have been made then.
    async fn write_late(&self, make: MakeBatch, hand_over: bool) -> Result<WriteReport, StoreError> {
        let batch = make();
        self.write(&batch, hand_over).await
    }

    /// Takes over leases that the feed gave, each named by its mark, for [`crate::HANDOVER_LEASE`]: for deliveries of lanes, of which
    /// several dispatchers may have the message. The new mark of what is the caller's, in the order of the leases: whoever
    /// asks second with the old one, or asks again, gets none. An answer that is lost costs no more than that lease.
    ///
    /// # Errors
    /// The store is away.
    async fn take_over(&self, leases: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError>;

    /// This dispatcher lives: how many do, itself included. Called every second; one that was not heard of for
    /// [`crate::HEARTBEAT_LIFE`], by the store's clock, does not count. For shares while the limits are away.
    ///
    /// # Errors
    /// The store is away.
    async fn heartbeat(&self, dispatcher: u64) -> Result<u32, StoreError>;

    /// Takes a dispatcher off the list, at its end.
    ///
    /// # Errors
    /// The store is away; it falls off by itself.
    async fn farewell(&self, dispatcher: u64) -> Result<(), StoreError>;

    /// Holds queues, or lets them go, all in one transaction. Destinations that are gone are left out.
    ///
    /// # Errors
    /// The store is away.
    async fn hold_queues(&self, holds: &[QueueHold]) -> Result<(), StoreError>;

    /// Keeps what circuits did, for people, and for other dispatchers: [`Self::changed_since`] gives the destination, though
    /// this is no change of it. A record with fewer trips than the one that is kept, or as many and an older `since`,
    /// changes nothing.
    ///
    /// # Errors
    /// The store is away.
    async fn record_circuits(&self, records: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError>;

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
    /// Where it waits: until when (also the mark of the lease under which it was fed) and for what. A follower in its lane:
    /// [`crate::NEVER`].
    pub waiting: Option<(Timestamp, WaitReason)>,
    /// While it is leased (fed or handed over): for how much longer, by the store's clock.
    pub lease_left: Option<Duration>,
    /// Its lane.
    pub lane: Option<LaneId>,
    /// How often it may be sent.
    pub guarantee: Guarantee,
    /// A replay: when it was made. None: with its event.
    pub born_at: Option<Timestamp>,
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
    /// In a lane: the mark of the lease under which it is written. While somebody else has taken the delivery over, and may be
    /// sending it, the write is superseded, however late it arrives: its end would let the next of the lane go. None: whoever has it.
    pub lease: Option<Timestamp>,
}

/// What came of a delivery. All of them only on a delivery that has not ended; else [`Written::Superseded`].
#[derive(Debug, Clone, PartialEq)]
pub enum DeliveryWrite {
    /// A request was made. On condition that `attempt.number` attempts less one are recorded, or that this very number
    /// is recorded as `interrupted` and none after it (then it takes its place; in a lane only while nobody has the delivery for its next
    /// attempt: whoever holds the lease may be sending it, and its end would let the next of the lane go).
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
        /// At most once: gives back this claim, under which no request went out. One that is claimed is parked in no other way.
        claim: Option<u64>,
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
    /// At most once: its one request is about to go out. On condition that no attempt is recorded and that no other claim
    /// holds; else [`Written::Superseded`], and it must not be sent. The same claim again is [`Written::Done`]. It goes to `waiting` as
    /// [`WaitReason::InFlight`].
    Claim {
        /// Which.
        target: Target,
        /// Random, of this request.
        claim: u64,
        /// When the request must have ended, by the store's clock, from now.
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
            | Self::Claim { target, .. }
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

/// What came of a batch.
#[derive(Debug, Clone, Default)]
pub struct WriteReport {
    /// In the order of the batch.
    pub written: Vec<Written>,
    /// With `hand_over`: the next of lanes whose delivery ended by this batch, leased to the caller.
    pub followers: Vec<DueDelivery>,
}

/// Holds a destination's queue, or lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueHold {
    /// Whose queue.
    pub destination_id: DestinationId,
    /// The feed leaves it alone for that long from now; zero lets it go: due now. A longer hold that is there already stays, unless
    /// this one is zero. While it is held the destination is spilled.
    pub hold: Duration,
    /// After the hold the feed takes at most so many at a time, at most once a second. None: as usual.
    pub trial: Option<NonZeroU32>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// The delivery ended, or its next attempt is another: nothing was written.
    Superseded,
}
