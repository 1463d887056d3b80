//! What the API shows. Reads run apart from the hot path and are bounded in time.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryId, DeliveryState, DeliveryStatus, Destination, DestinationId,
    DestinationState, Event, EventId, ReplayId, TenantId, Timestamp, WaitReason,
};

use crate::{StoreError, dispatch::Attempt, manage::ReplayJob};

/// The reading half of the API. Lists are pages by key, in the order of the key.
#[async_trait]
pub trait ReadStore: Debug + Send + Sync + 'static {
    /// The id of a tenant by slug. None where it is being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn tenant_by_slug(&self, slug: &str) -> Result<Option<TenantId>, StoreError>;

    /// Whether there is a tenant with this id that is not being deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn tenant_exists(&self, id: TenantId) -> Result<bool, StoreError>;

    /// One destination that is not deleted.
    ///
    /// # Errors
    /// The store is away.
    async fn destination(&self, tenant: TenantId, id: DestinationId) -> Result<Option<Destination>, StoreError>;

    /// One destination by the caller's own id.
    ///
    /// # Errors
    /// The store is away.
    async fn destination_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<Destination>, StoreError>;

    /// Destinations that are not deleted: all, or those in that state.
    ///
    /// # Errors
    /// The store is away.
    async fn list_destinations(
        &self,
        tenant: TenantId,
        state: Option<DestinationState>,
        page: Page<DestinationId>,
    ) -> Result<Vec<Destination>, StoreError>;

    /// One event with what became of it.
    ///
    /// # Errors
    /// The store is away.
    async fn event(&self, tenant: TenantId, id: EventId) -> Result<Option<EventView>, StoreError>;

    /// The newest event with that uid.
    ///
    /// # Errors
    /// The store is away.
    async fn event_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<EventId>, StoreError>;

    /// Events. Without `with_data` their `data` is empty.
    ///
    /// # Errors
    /// The store is away, or it takes too long.
    async fn list_events(
        &self,
        tenant: TenantId,
        filter: &EventFilter,
        page: Page<EventId>,
        with_data: bool,
    ) -> Result<Vec<EventView>, StoreError>;

    /// One delivery.
    ///
    /// # Errors
    /// The store is away.
    async fn delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeliveryView>, StoreError>;

    /// Deliveries.
    ///
    /// # Errors
    /// The store is away, or it takes too long.
    async fn list_deliveries(
        &self,
        tenant: TenantId,
        filter: &DeliveryFilter,
        page: Page<DeliveryId>,
    ) -> Result<Vec<DeliveryView>, StoreError>;

    /// Attempts, in the order of delivery and number.
    ///
    /// # Errors
    /// The store is away, or it takes too long.
    async fn list_attempts(
        &self,
        tenant: TenantId,
        filter: &AttemptFilter,
        page: Page<(DeliveryId, u32)>,
    ) -> Result<Vec<AttemptView>, StoreError>;

    /// One dead letter.
    ///
    /// # Errors
    /// The store is away.
    async fn dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeadLetter>, StoreError>;

    /// Dead letters, in the order of their delivery's id. Without `with_data` their events' `data` is empty.
    ///
    /// # Errors
    /// The store is away.
    async fn list_dead_letters(
        &self,
        tenant: TenantId,
        filter: &DeadLetterFilter,
        page: Page<DeliveryId>,
        with_data: bool,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One replay job.
    ///
    /// # Errors
    /// The store is away.
    async fn replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError>;

    /// Replay jobs.
    ///
    /// # Errors
    /// The store is away.
    async fn list_replays(&self, tenant: TenantId, page: Page<ReplayId>) -> Result<Vec<ReplayJob>, StoreError>;
}

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<K> {
    /// How many at most.
    pub limit: usize,
    /// The key of the last item of the page before.
    pub after: Option<K>,
    /// Newest (largest key) first.
    pub descending: bool,
}

/// Which events. Times are of acceptance: `since` inclusive, `until` exclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct EventFilter {
    pub event_type: Option<String>,
    pub uid: Option<String>,
    pub source: Option<String>,
    pub labels: Vec<(String, String)>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Which deliveries. Times are of the event's acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DeliveryFilter {
    pub event_id: Option<EventId>,
    pub destination_id: Option<DestinationId>,
    pub status: Option<DeliveryStatus>,
    pub event_type: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Which attempts. Times are of the attempt's start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct AttemptFilter {
    pub event_id: Option<EventId>,
    pub delivery_id: Option<DeliveryId>,
    pub destination_id: Option<DestinationId>,
    pub outcome: Option<AttemptOutcome>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Which dead letters. Times are of death.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DeadLetterFilter {
    pub destination_id: Option<DestinationId>,
    pub event_type: Option<String>,
    pub reason: Option<DeadReason>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// An event and what became of it. A replayed delivery counts by its replay.
#[derive(Debug, Clone, PartialEq)]
pub struct EventView {
    /// The event.
    pub event: Arc<Event>,
    /// Its deliveries.
    pub counts: DeliveryCounts,
}

/// How many deliveries stand how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DeliveryCounts {
    /// Includes what a large fan-out has still to create.
    pub pending: u64,
    pub retrying: u64,
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryView {
    /// Which.
    pub id: DeliveryId,
    /// Of which event.
    pub event_id: EventId,
    /// Of what type.
    pub event_type: String,
    /// Where to.
    pub destination_id: DestinationId,
    /// Where it is.
    pub state: DeliveryState,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// Where it waits: due when ([`crate::NEVER`]: not before others have ended), for what.
    pub waiting: Option<(Timestamp, WaitReason)>,
    /// The last attempt.
    pub last_attempt: Option<Attempt>,
    /// Why it is dead.
    pub reason: Option<DeadReason>,
    /// It sends this one again.
    pub replay_of: Option<DeliveryId>,
    /// It is sent again by this one.
    pub replayed_by: Option<DeliveryId>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// An attempt and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptView {
    /// Of which delivery.
    pub delivery_id: DeliveryId,
    /// Of which event.
    pub event_id: EventId,
    /// Where to.
    pub destination_id: DestinationId,
    /// The attempt.
    pub attempt: Attempt,
}

/// A delivery that failed for good, with its own copy of its event.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Which.
    pub delivery_id: DeliveryId,
    /// Where to.
    pub destination_id: DestinationId,
    /// Why.
    pub reason: DeadReason,
    /// When.
    pub dead_at: Timestamp,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// Its lane waits until it is replayed or discarded.
    pub blocks_lane: bool,
    /// The last attempt; it goes with the retention of events.
    pub last_attempt: Option<Attempt>,
    /// The copy.
    pub event: Arc<Event>,
}
