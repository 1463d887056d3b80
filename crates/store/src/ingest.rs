//! What the API's hot path needs: one transaction for whatever arrived while the one before ran.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use signalpost_core::{
    DeliveryId, DestinationId, DestinationState, Event, Guarantee, LaneId, OutboxId, TenantId, WaitReason,
    ordering::Ordering, pattern::EventPattern,
};

use crate::{Changes, StoreError};

/// Counts the changes of a tenant's destinations.
pub type RoutingVersion = i64;

/// The hot path of ingest.
#[async_trait]
pub trait IngestStore: Debug + Send + Sync + 'static {
    /// Commits a group: for each unit its events, deliveries, waiting rows, fan-out cursors and claims; for the group
    /// one outbox record with the ids of all deliveries that start [`Start::Queued`] (none where there are none); and
    /// deletes the outbox records in `published`.
    ///
    /// A unit whose tenant's routing version moved since it was routed is left out as [`UnitOutcome::Rerouted`]; one
    /// whose claim is taken as `Replayed` or `Mismatch`. The others commit. Equal claims never meet within one group
    /// (the API keeps them apart); across processes they wait for each other in the database. Deliveries of a lane take
    /// their places in the order of the units and their events, behind those that were committed before.
    ///
    /// # Errors
    /// `Data`: a unit is refused; nothing of the group was committed. `Unavailable`: unknown.
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError>;

    /// As [`Self::ingest`], of a group that is made when its transaction begins: so it holds all that arrived while the
    /// store was busy with others. It may come to that after the caller has gone.
    ///
    /// # Errors
    /// As [`Self::ingest`]; the group may not have been made then.
    async fn ingest_late(&self, make: MakeGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        match make() {
            Some(group) => self.ingest(&group).await,
            None => Ok(Vec::new()),
        }
    }

    /// The destinations of a tenant that are not deleted, with the version of this picture.
    ///
    /// # Errors
    /// The store is away.
    async fn routes(&self, tenant: TenantId) -> Result<Routes, StoreError>;

    /// The destinations (of all tenants) whose new deliveries shall go straight to `waiting`. Economy: a stale answer
    /// costs a detour over the bus.
    ///
    /// # Errors
    /// The store is away.
    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError>;

    /// Tells when destinations change.
    fn changes(&self) -> Changes;
}

/// Makes a group. None: there is nothing to commit after all.
pub type MakeGroup = Box<dyn FnOnce() -> Option<Arc<IngestGroup>> + Send>;

/// What is committed together.
#[derive(Clone)]
pub struct IngestGroup {
    /// Each stands or falls by itself, but for `Data` errors.
    pub units: Vec<IngestUnit>,
    /// The id of this group's outbox record.
    pub outbox_id: OutboxId,
    /// Records of earlier groups that the bus acknowledged.
    pub published: Vec<OutboxId>,
}

/// One request of a producer.
#[derive(Clone)]
pub struct IngestUnit {
    /// Whose.
    pub tenant: TenantId,
    /// Of the routes that the deliveries below were computed from.
    pub routing_version: RoutingVersion,
    /// The idempotency key of the request, where it has one.
    pub claim: Option<KeyClaim>,
    /// In the order of the request.
    pub events: Vec<NewEvent>,
}

/// An event and where it goes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// One per destination; ids carry the millisecond of the event's id. Where `fan_out` is used: those with a lane.
    pub deliveries: Vec<NewDelivery>,
    /// A large fan-out: further destinations, expanded later in chunks, without lanes. Committed with the event (I1).
    pub fan_out: Vec<DestinationId>,
    /// For an event with a `uid`: the hash of its content. `(tenant, source, uid)` is unique for as long as
    /// `ttl`: the same hash is a duplicate, another a conflict.
    pub uid: Option<UidClaim>,
    /// The answer that its producer gets (the JSON of one event answer, `duplicate: false`).
    pub answer: Bytes,
}

/// A delivery that is born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub destination_id: DestinationId,
    /// How it starts. One with a lane starts in `waiting` whatever this says: due now as the head of its lane, else as a follower.
    pub start: Start,
    /// Its lane; fixed from now on.
    pub lane: Option<LaneId>,
    /// How often it may be sent; fixed from now on.
    pub guarantee: Guarantee,
}

/// How a delivery starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// By the bus, with an outbox record.
    Queued,
    /// In `waiting`, due at once as far as its destination's queue allows.
    Waiting(WaitReason),
}

/// Makes the answer of a whole request from what came of its events. Pure.
pub type AnswerOf = Arc<dyn Fn(&[EventOutcome]) -> StoredAnswer + Send + Sync>;

/// The idempotency key of a request.
#[derive(Clone)]
pub struct KeyClaim {
    /// Tenant is the unit's. Route and, where given, destination.
    pub scope: String,
    /// As the client sent it, without quotes.
    pub key: String,
    /// SHA-256 of what makes two requests the same.
    pub body_hash: [u8; 32],
    /// How long it is kept.
    pub ttl: Duration,
    /// What is stored with it.
    pub answer: AnswerOf,
}

/// The producer's own id of an event.
#[derive(Debug, Clone)]
pub struct UidClaim {
    /// SHA-256 of the content.
    pub content_hash: [u8; 32],
    /// How long it is kept.
    pub ttl: Duration,
}

/// An answer that was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, as it was.
    pub body: Bytes,
}

/// What came of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitOutcome {
    /// It is committed; what came of each of its events.
    Committed(Vec<EventOutcome>),
    /// The key was used before, with this body.
    Replayed(StoredAnswer),
    /// The key was used before, with another body.
    Mismatch,
    /// The tenant's routing moved: load the routes and try again. Nothing was committed.
    Rerouted,
}

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome {
    /// It is committed.
    Accepted,
    /// Its uid was used before, with this content; the answer of then.
    Duplicate(Bytes),
    /// Its uid was used before, with other content.
    UidConflict,
}

/// A picture of a tenant's destinations.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Its version.
    pub version: RoutingVersion,
    /// Sorted by id.
    pub routes: Vec<Route>,
}

/// One destination, as a router sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which.
    pub destination_id: DestinationId,
    /// Travels in messages.
    pub destination_version: u32,
    /// What it wants.
    pub event_types: Vec<EventPattern>,
    /// Gives its deliveries their lanes.
    pub ordering: Ordering,
    /// Of its deliveries.
    pub guarantee: Guarantee,
    /// `Active`, `Paused` (its deliveries start waiting) or `Disabled` (it gets none).
    pub state: DestinationState,
}
