//! What retry needs: everything that time drives.
//!
//! Several retry processes may run at once: each method takes rows with SKIP LOCKED or under a lease.
//!
//! It acts for all tenants: what it takes up, it finds by itself, and no caller names a row of a tenant that it was not given
//! before. So its methods take no tenant.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use signalpost_core::{DeliveryId, DestinationId, Event, Guarantee, LaneId, ReplayId, TenantId, Timestamp, WaitReason};

use crate::StoreError;

/// Retry's part.
#[async_trait]
pub trait ScheduleStore: Debug + Send + Sync + 'static {
    /// The relay: takes outbox records older than `older_than` (oldest first, by age and never by cursor), anchors those
    /// of their deliveries that are still `Queued` in `waiting` (due now) and deletes the records; each record in one
    /// transaction with its deliveries, as many at once as a transaction takes with ease.
    /// From then on the feed brings them to the bus. Returns how many records were taken.
    ///
    /// # Errors
    /// The store is away.
    async fn relay(&self, older_than: Duration, most_records: usize) -> Result<usize, StoreError>;

    /// The feed: leases what is due to the bus. Only queues that are due, not held and of an active destination are looked
    /// at, tenants and destinations in turn; each yields at most [`FeedBudget::per_destination`], and at most
    /// about 2 s of its rate limit. Due moves ahead by `lease` in the same statement.
    ///
    /// # Errors
    /// The store is away.
    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError>;

    /// Gives leased deliveries back (the bus did not take them): due now. On condition that the lease is still theirs.
    ///
    /// # Errors
    /// The store is away; the lease runs out by itself.
    async fn give_back(&self, deliveries: &[(DeliveryId, Timestamp)]) -> Result<(), StoreError>;

    /// The reconciler: anchors in `waiting` (due now) what is `Queued`, was accepted before `until`, and is in no outbox
    /// record. Goes through the deliveries in the order of their ids, from a durable mark below which nothing is `Queued`,
    /// and moves the mark. Returns how many it anchored, and whether it came to the end.
    ///
    /// # Errors
    /// The store is away.
    async fn requeue_lost(&self, until: Timestamp, most: usize) -> Result<(usize, bool), StoreError>;

    /// Expands fan-out cursors: creates up to `most` deliveries in `waiting`, due now. Returns how many. Deliveries of lanes are
    /// never among them: those are made with their event.
    ///
    /// # Errors
    /// The store is away.
    async fn expand_fan_outs(&self, most: usize) -> Result<usize, StoreError>;

    /// The replay jobs that are not finished, but for those whose rate allows them nothing yet.
    ///
    /// # Errors
    /// The store is away.
    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError>;

    /// Does the next piece of a job: counts (a part of) what matches where that is not known yet, else creates up to `most` new
    /// deliveries in `waiting`, moves the job's cursor and its counts, in one transaction; ends the job when nothing is left. Those of
    /// lanes join at the tail in their original order; for its sake a piece may be larger than `most`, up to the end of a millisecond.
    /// A job with a rate gets no more than that allows ([`crate::pace`]), over all processes.
    /// Returns how many were created, and whether the job goes on. A job that another process works on, that was cancelled (also
    /// while this went on: then none were created) or that does not exist gives `(0, false)`.
    ///
    /// # Errors
    /// The store is away.
    async fn step_replay(&self, id: ReplayId, most: usize) -> Result<(usize, bool), StoreError>;

    /// Cancels up to `most` waiting deliveries of deleted destinations; removes destinations of which none is left. Returns
    /// how many were cancelled or removed.
    ///
    /// # Errors
    /// The store is away.
    async fn sweep_deleted(&self, most: usize) -> Result<usize, StoreError>;

    /// Removes up to `most` rows of tenants that are being deleted, and counts them in [`signalpost_core::tenant::Deleting::rows`].
    /// Destinations that are not deleted yet are, as by [`crate::ManageStore::delete_destination`]; what is theirs goes when
    /// [`Self::sweep_deleted`] has removed all of them: attempts, deliveries, events, dead letters. Fan-outs, replay jobs, idempotency
    /// keys and API keys go at once. The audit log and the tenant itself go last, and not before [`crate::tenants::LATE`]
    /// after the deletion began. Returns how many were removed (or destinations deleted); zero where nothing can be done now.
    /// Not one transaction, but several.
    ///
    /// # Errors
    /// The store is away.
    async fn sweep_tenants(&self, most: usize) -> Result<usize, StoreError>;

    /// Disables up to `most` destinations to which nothing arrived for longer than their `disable_after` allows, each as a change
    /// of it, with a reason that a person understands. Returns how many.
    ///
    /// # Errors
    /// The store is away.
    async fn disable_failing(&self, most: usize) -> Result<usize, StoreError>;

    /// Makes partitions ahead (PostgreSQL); nothing elsewhere.
    ///
    /// # Errors
    /// The store is away.
    async fn prepare_partitions(&self, days_ahead: u32) -> Result<(), StoreError>;

    /// Drops what is older than its retention: partitions without a live delivery (PostgreSQL) or a bounded chunk of rows (SQLite);
    /// dead letters, idempotency keys, finished jobs and entries of the audit log. Returns whether there is more to drop at once.
    ///
    /// # Errors
    /// The store is away.
    async fn retain(&self, retention: Retention) -> Result<bool, StoreError>;

    /// Samples what the gauges show, from `queues`, `dead_letters` and the outbox, never by counting big tables.
    ///
    /// # Errors
    /// The store is away.
    async fn sample(&self) -> Result<Sample, StoreError>;
}

/// How much the feed takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedBudget {
    /// In all.
    pub most: usize,
    /// Of one destination.
    pub per_destination: usize,
    /// How far due moves ahead.
    pub lease: Duration,
}

/// What is due.
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// Leased to the caller.
    pub deliveries: Vec<DueDelivery>,
    /// More is due already.
    pub more: bool,
    /// When nothing more is due: how long until something is (at most; new work may come earlier). None: nothing waits.
    pub next_in: Option<Duration>,
}

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Which.
    pub delivery_id: DeliveryId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Where to.
    pub destination_id: DestinationId,
    /// The present version of the destination.
    pub destination_version: u32,
    /// How many attempts are recorded.
    pub attempts: u32,
    /// What it waited for. `InFlight`: a request, detached or claimed at most once, whose deadline passed without an outcome;
    /// the caller records attempt `attempts + 1` as interrupted instead of publishing (and the delivery as dead, at most once).
    pub reason: WaitReason,
    /// Its lane.
    pub lane: Option<LaneId>,
    /// How often it may be sent.
    pub guarantee: Guarantee,
    /// A replay: when it was made. None: with its event.
    pub born_at: Option<Timestamp>,
    /// Until when it is leased; the mark that [`crate::dispatch::Standing::waiting`] shows.
    pub leased_until: Timestamp,
    /// Its event; without `data` where that is larger than the store was told to load (64 KiB).
    pub event: Arc<Event>,
    /// Whether `event.data` is there.
    pub whole: bool,
}

/// A replay job that is not finished.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenReplay {
    /// Which.
    pub id: ReplayId,
    /// Whose.
    pub tenant_id: TenantId,
    /// At most so many deliveries per second, over all processes.
    pub rate_per_second: Option<f64>,
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, deliveries, attempts.
    pub events: Duration,
    /// Dead letters.
    pub dead_letters: Duration,
    /// Entries of the audit log.
    pub audit: Duration,
    /// The largest number of rows dropped in one transaction.
    pub chunk: usize,
}

/// What gauges show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Deliveries in `waiting`.
    pub waiting: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Age of the oldest outbox record.
    pub outbox_age: Duration,
    /// How long the oldest due queue has been due.
    pub oldest_due: Duration,
    /// Destinations with waiting deliveries.
    pub queues: u64,
    /// Those of them that are spilled.
    pub spilled: u64,
    /// The busiest queues, most first, at most 20: for logs, not for metric labels.
    pub deepest: Vec<(DestinationId, u64)>,
}
