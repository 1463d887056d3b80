//! What the management half of the API changes.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use signalpost_core::{
    DeliveryId, DeliveryStatus, Destination, DestinationId, DestinationSpec, EventId, Kept, ReplayId, TenantId,
    Timestamp,
};

use crate::{StoreError, ingest::StoredAnswer};

/// Changes by people and their programs. Every change of a destination bumps its `version`, its `updated_at` and its
/// tenant's routing version, in the same transaction, and is told by [`crate::IngestStore::changes`].
#[async_trait]
pub trait ManageStore: Debug + Send + Sync + 'static {
    /// Creates a destination.
    ///
    /// # Errors
    /// The store is away.
    async fn create_destination(&self, destination: &Destination) -> Result<Created, StoreError>;

    /// Replaces what the owner sets, and the secrets; lets its queue go where it is held, and lanes that are blocked where it does not
    /// ask for that any more; on condition that the version is still `expected_version`. None where
    /// it is not, or where there is no such destination.
    ///
    /// # Errors
    /// The store is away.
    async fn update_destination(
        &self,
        tenant: TenantId,
        id: DestinationId,
        expected_version: u32,
        update: DestinationUpdate<'_>,
    ) -> Result<Option<Destination>, StoreError>;

    /// Pauses an active destination (its queue is held), or makes a paused or disabled one active (its queue is due now, and
    /// failures so far are forgotten). A destination that is so already is given as it is; but one that is active and whose circuit is not
    /// closed, by what was recorded, is changed all the same by resuming it, so that it is tried. None where there is none.
    ///
    /// # Errors
    /// The store is away.
    async fn set_paused(
        &self,
        tenant: TenantId,
        id: DestinationId,
        paused: bool,
    ) -> Result<Option<Destination>, StoreError>;

    /// Deletes a destination: it takes nothing new, what waits is cancelled in chunks. False where there is none.
    ///
    /// # Errors
    /// The store is away.
    async fn delete_destination(&self, tenant: TenantId, id: DestinationId) -> Result<bool, StoreError>;

    /// Makes a waiting delivery due now (limits, pause and hold of its queue still apply), or sends an ended one again,
    /// as a replay (a new delivery).
    ///
    /// # Errors
    /// The store is away.
    async fn retry_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError>;

    /// Cancels a delivery that has not ended and of which no request is known to be out; of a lane only while nobody can be about
    /// to send it, since its end lets the next one go: not under a lease that a dispatcher may have taken over.
    ///
    /// # Errors
    /// The store is away.
    async fn cancel_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Cancelled, StoreError>;

    /// Sends an event again: to each destination that it went to and that is not deleted (once each), or to the given one only.
    /// New deliveries start in `waiting`, due now; `replay_of` and `replayed_by` link them to the newest delivery to that
    /// destination, where there is one. None where there is no such event.
    ///
    /// # Errors
    /// The store is away.
    async fn replay_event(
        &self,
        tenant: TenantId,
        event: EventId,
        destination: Option<DestinationId>,
    ) -> Result<Option<Vec<DeliveryId>>, StoreError>;

    /// Sends a dead letter again and takes it off the list; the new delivery. Works from the copy in `dead_letters` where the
    /// event itself is gone (it is stored again under its id). One that blocks its lane is replayed in its place, and the lane goes on.
    ///
    /// # Errors
    /// The store is away.
    async fn replay_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError>;

    /// Takes a dead letter off the list; the delivery's reason becomes `discarded`; a lane that it blocked goes on. False where there is none.
    ///
    /// # Errors
    /// The store is away.
    async fn discard_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<bool, StoreError>;

    /// Creates a replay job.
    ///
    /// # Errors
    /// The store is away.
    async fn create_replay(&self, job: &ReplayJob) -> Result<(), StoreError>;

    /// Counts what a job would match now, without creating it (`dry_run`), up to `most`.
    ///
    /// # Errors
    /// The store is away.
    async fn count_replay(&self, tenant: TenantId, selection: &ReplaySelection, most: u64) -> Result<u64, StoreError>;

    /// Cancels a job that is not finished, at once, also while a step of it goes on; what it created stays, and no more is
    /// created. None where there is none; else the job as it is then.
    ///
    /// # Errors
    /// The store is away.
    async fn cancel_replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError>;

    /// For POSTs other than events: takes an idempotency key, under a lease of `lease`, or says what is known of it. Events use
    /// [`crate::ingest::KeyClaim`] instead, in the transaction of the event.
    ///
    /// # Errors
    /// The store is away.
    async fn begin_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        lease: Duration,
    ) -> Result<Begun, StoreError>;

    /// Keeps the answer of a request that began; `None` forgets the key (the request failed and may be repeated).
    ///
    /// # Errors
    /// The store is away.
    async fn finish_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError>;
}

/// What came of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Yes,
    /// Its `uid` is taken in this tenant, by this one.
    UidTaken(DestinationId),
}

/// The new values of a destination.
#[derive(Debug, Clone, Copy)]
pub struct DestinationUpdate<'a> {
    /// What the owner sets.
    pub spec: &'a DestinationSpec,
    /// What is secret of it.
    pub secrets: &'a Kept,
}

/// What came of a retry or a replay of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It waited and is due now, or is on its way already.
    DueNow,
    /// It had ended: this new delivery is on its way.
    Again(DeliveryId),
    /// A request of it is out.
    InFlight,
    /// It had ended, and was to be sent once at most (a replay is a person's decision, and goes another way).
    AtMostOnce,
    /// Its destination is deleted, or its event is gone.
    Gone,
    /// There is no such delivery (or it is no dead letter).
    NotFound,
}

/// What came of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled (now, or was before).
    Yes,
    /// It ended otherwise before.
    Ended(DeliveryStatus),
    /// A request of it is out, as far as the store knows.
    InFlight,
    /// There is no such delivery.
    NotFound,
}

/// Which deliveries a job sends again. Serialised into stores.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplaySelection {
    /// Only to this destination.
    pub destination_id: Option<DestinationId>,
    /// Only deliveries that ended so. Default: dead.
    pub statuses: Vec<DeliveryStatus>,
    /// Only of these types (patterns). Empty: all.
    pub event_types: Vec<signalpost_core::pattern::EventPattern>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// With a destination: also events that it wants now and that have no delivery to it.
    pub missing: bool,
}

/// A job that sends past deliveries again. A delivery that was replayed already (`replayed_by`) is not matched.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayJob {
    /// Which.
    pub id: ReplayId,
    /// Whose.
    pub tenant_id: TenantId,
    /// What.
    pub selection: ReplaySelection,
    /// How fast.
    pub rate_per_second: Option<f64>,
    /// How far.
    pub state: ReplayState,
    /// How many deliveries it will create; None until counted.
    pub matched: Option<u64>,
    /// How many it has created.
    pub replayed: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// Not begun, or under way.
    Running,
    /// All is created.
    Completed,
    /// Cancelled before that.
    Cancelled,
}

/// A key of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Route, and destination where given.
    pub scope: String,
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of what makes two requests the same.
    pub body_hash: [u8; 32],
    /// How long it is kept.
    pub ttl: Duration,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is ours: do it, then finish.
    First,
    /// Another request with it is under way: ask again soon.
    InFlight,
    /// It was answered.
    Answered(StoredAnswer),
    /// It was used with another body.
    Mismatch,
}
