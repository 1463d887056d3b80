//! A store that fails as a test says, before a real one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use signalpost_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, CircuitRecord, DeliveryId, Destination, DestinationId, Event, EventId,
    Kept, KeyHash, KeyId, ReplayId, Sealed, Tenant, TenantId, TenantSpec, Timestamp,
};
use signalpost_store::{
    Changes, DispatchStore, Health, IngestStore, ManageStore, ReadStore, ScheduleStore, StoreError, TenantStore,
    dispatch::{DeliveryWrite, QueueHold, Standing, WriteReport},
    ingest::{IngestGroup, Routes, StoredAnswer, UnitOutcome},
    manage::{Begun, Cancelled, Created, DestinationUpdate, IdempotencyKey, ReplayJob, ReplaySelection, Retried},
    read::{
        AttemptFilter, AttemptView, DeadLetter, DeadLetterFilter, DeliveryFilter, DeliveryView, EventFilter, EventView,
        Page,
    },
    schedule::{Due, FeedBudget, OpenReplay, Retention, Sample},
    tenants::{AuditFilter, Holder, NewTenant, SealedRow, TenantCreated},
};
use signalpost_store_sqlite::SqliteStore;

/// The type of the events that it refuses.
pub const REFUSED: &str = "refused";

/// See the module.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: SqliteStore,
    faults: Arc<Faults>,
}

/// What is wrong with it now.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every call fails.
    pub away: AtomicBool,
    /// Calls of this name fail, those of ingest excepted.
    pub fails: Mutex<Option<&'static str>>,
    /// Its clock is that many seconds ahead.
    pub seconds_ahead: AtomicUsize,
    /// Who asks to be told of changes is told of none.
    pub tells_nothing: AtomicBool,
    /// It is of an earlier version, whose processes cannot read encrypted secrets.
    pub unsealed: AtomicBool,
    /// Groups that it was given.
    pub groups: AtomicUsize,
    /// The group with this number is not taken, from 1.
    pub fails_at: AtomicUsize,
    /// Before every third group this destination changes, so that what was routed before is routed again.
    pub restless: Mutex<Option<DestinationId>>,
}

impl FaultyStore {
    /// A healthy one.
    pub fn new(inner: SqliteStore, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn check_away(&self) -> Result<(), StoreError> {
        if self.faults.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test took it away".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl IngestStore for FaultyStore {
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        self.check_away()?;
        let number = self.faults.groups.fetch_add(1, Ordering::SeqCst) + 1;
        if self.faults.fails_at.load(Ordering::SeqCst) == number {
            return Err(StoreError::Unavailable("the test let it fail".to_owned()));
        }
        let restless = *self.faults.restless.lock().unwrap();
        if let Some(id) = restless.filter(|_| number.is_multiple_of(3) && !group.units.is_empty()) {
            self.inner.set_paused(TenantId::DEFAULT, id, number.is_multiple_of(2)).await?;
        }
        if group.units.iter().flat_map(|unit| &unit.events).any(|new| new.event.event_type == REFUSED) {
            return Err(StoreError::Data("the test refuses it".to_owned()));
        }
        self.inner.ingest(group).await
    }

    async fn routes(&self, tenant: TenantId) -> Result<Routes, StoreError> {
        self.check_away()?;
        self.inner.routes(tenant).await
    }

    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError> {
        self.check_away()?;
        self.inner.spilled().await
    }

    fn changes(&self) -> Changes {
        if self.faults.tells_nothing.load(Ordering::SeqCst) {
            return tokio::sync::watch::channel(0).1;
        }
        self.inner.changes()
    }
}

#[async_trait]
impl Health for FaultyStore {
    async fn check(&self) -> Result<Timestamp, StoreError> {
        self.check_away()?;
        let ahead = self.faults.seconds_ahead.load(Ordering::SeqCst);
        Ok(self.inner.check().await? + Duration::from_secs(ahead as u64))
    }
}

macro_rules! delegate {
    ($trait:ident { $(fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)* } $(+ { $($more:tt)* })?) => {
        #[async_trait]
        impl $trait for FaultyStore {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result, StoreError> {
                self.check_away()?;
                if *self.faults.fails.lock().unwrap() == Some(stringify!($name)) {
                    return Err(StoreError::Unavailable("the test let it fail".to_owned()));
                }
                self.inner.$name($($argument),*).await
            })*
            $($($more)*)?
        }
    };
}

delegate! {
    ManageStore {
    fn create_destination(destination: &Destination) -> Created;
    fn update_destination(tenant: TenantId, id: DestinationId, expected_version: u32, update: DestinationUpdate<'_>) -> Option<Destination>;
    fn set_paused(tenant: TenantId, id: DestinationId, paused: bool) -> Option<Destination>;
    fn delete_destination(tenant: TenantId, id: DestinationId) -> bool;
    fn retry_delivery(tenant: TenantId, id: DeliveryId) -> Retried;
    fn cancel_delivery(tenant: TenantId, id: DeliveryId) -> Cancelled;
    fn replay_event(tenant: TenantId, event: EventId, destination: Option<DestinationId>) -> Option<Vec<DeliveryId>>;
    fn replay_dead_letter(tenant: TenantId, id: DeliveryId) -> Retried;
    fn discard_dead_letter(tenant: TenantId, id: DeliveryId) -> bool;
    fn create_replay(job: &ReplayJob) -> ();
    fn count_replay(tenant: TenantId, selection: &ReplaySelection, most: u64) -> u64;
    fn cancel_replay(tenant: TenantId, id: ReplayId) -> Option<ReplayJob>;
    fn begin_idempotent(tenant: TenantId, key: &IdempotencyKey, lease: Duration) -> Begun;
    fn finish_idempotent(tenant: TenantId, key: &IdempotencyKey, answer: Option<&StoredAnswer>) -> ();
    }
}

delegate! {
    ReadStore {
    fn tenant_by_slug(slug: &str) -> Option<TenantId>;
    fn tenant_exists(id: TenantId) -> bool;
    fn destination(tenant: TenantId, id: DestinationId) -> Option<Destination>;
    fn destination_by_uid(tenant: TenantId, uid: &str) -> Option<Destination>;
    fn list_destinations(tenant: TenantId, page: Page<DestinationId>) -> Vec<Destination>;
    fn event(tenant: TenantId, id: EventId) -> Option<EventView>;
    fn event_by_uid(tenant: TenantId, uid: &str) -> Option<EventId>;
    fn list_events(tenant: TenantId, filter: &EventFilter, page: Page<EventId>, with_data: bool) -> Vec<EventView>;
    fn delivery(tenant: TenantId, id: DeliveryId) -> Option<DeliveryView>;
    fn list_deliveries(tenant: TenantId, filter: &DeliveryFilter, page: Page<DeliveryId>) -> Vec<DeliveryView>;
    fn list_attempts(tenant: TenantId, filter: &AttemptFilter, page: Page<(DeliveryId, u32)>) -> Vec<AttemptView>;
    fn dead_letter(tenant: TenantId, id: DeliveryId) -> Option<DeadLetter>;
    fn list_dead_letters(tenant: TenantId, filter: &DeadLetterFilter, page: Page<DeliveryId>, with_data: bool) -> Vec<DeadLetter>;
    fn replay(tenant: TenantId, id: ReplayId) -> Option<ReplayJob>;
    fn list_replays(tenant: TenantId, page: Page<ReplayId>) -> Vec<ReplayJob>;
    }
}

delegate! {
    TenantStore {
    fn key_by_hash(hash: &KeyHash) -> Option<Holder>;
    fn tenant(id: TenantId) -> Option<Tenant>;
    fn list_tenants(page: Page<TenantId>) -> Vec<Tenant>;
    fn create_tenant(new: NewTenant<'_>) -> TenantCreated;
    fn update_tenant(id: TenantId, expected_version: u32, spec: &TenantSpec, ingest_secret: Option<&Sealed>) -> Option<Tenant>;
    fn delete_tenant(id: TenantId) -> bool;
    fn create_key(tenant: TenantId, key: &ApiKey) -> bool;
    fn list_keys(tenant: TenantId, page: Page<KeyId>) -> Vec<ApiKey>;
    fn revoke_key(tenant: TenantId, id: KeyId) -> bool;
    fn touch_keys(used: &[(KeyId, Timestamp)]) -> ();
    fn count_destinations(tenant: TenantId) -> u64;
    fn begin_audit(entry: &AuditEntry) -> ();
    fn end_audit(tenant: TenantId, id: AuditId, target: Option<&str>, outcome: &AuditOutcome) -> ();
    fn list_audit(tenant: TenantId, filter: &AuditFilter, page: Page<AuditId>) -> Vec<AuditEntry>;
    fn prune_audit(older_than: Timestamp, most: usize) -> usize;
    fn mark_sealed() -> ();
    fn unsealed(newest: &str, after: Option<SealedRow>, most: usize) -> Vec<(SealedRow, TenantId, Kept)>;
    fn count_unsealed(newest: &str) -> u64;
    fn reseal(row: SealedRow, old: &Kept, new: &Sealed) -> bool;
    fn sealing_keys() -> Vec<String>;
    } + {
        async fn is_sealed(&self) -> Result<bool, StoreError> {
            self.check_away()?;
            Ok(self.inner.is_sealed().await? && !self.faults.unsealed.load(Ordering::SeqCst))
        }
    }
}

delegate! {
    DispatchStore {
    fn destinations(ids: &[DestinationId]) -> Vec<Destination>;
    fn changed_since(since: Option<Timestamp>) -> (Vec<Destination>, Timestamp);
    fn examine(ids: &[DeliveryId]) -> Vec<Option<Standing>>;
    fn events(ids: &[EventId]) -> Vec<Arc<Event>>;
    fn write(batch: &[DeliveryWrite], hand_over: bool) -> WriteReport;
    fn heartbeat(dispatcher: u64) -> u32;
    fn take_over(leases: &[(DeliveryId, Timestamp)]) -> Vec<bool>;
    fn farewell(dispatcher: u64) -> ();
    fn hold_queues(holds: &[QueueHold]) -> ();
    fn record_circuits(records: &[(DestinationId, CircuitRecord)]) -> ();
    fn disable_destination(tenant: TenantId, id: DestinationId, reason: &str) -> ();
    }
}

delegate! {
    ScheduleStore {
    fn relay(older_than: Duration, most_records: usize) -> usize;
    fn take_due(budget: FeedBudget) -> Due;
    fn give_back(deliveries: &[(DeliveryId, Timestamp)]) -> ();
    fn requeue_lost(until: Timestamp, most: usize) -> (usize, bool);
    fn expand_fan_outs(most: usize) -> usize;
    fn open_replays() -> Vec<OpenReplay>;
    fn step_replay(id: ReplayId, most: usize) -> (usize, bool);
    fn sweep_deleted(most: usize) -> usize;
    fn sweep_tenants(most: usize) -> usize;
    fn disable_failing(most: usize) -> usize;
    fn prepare_partitions(days_ahead: u32) -> ();
    fn retain(retention: Retention) -> bool;
    fn sample() -> Sample;
    }
}
