//! What stands before a store and takes part in some of its calls: a gate, an ear, a wrapper that fails or lies. For tests.

use std::{sync::Arc, time::Duration};

use signalpost_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, CircuitRecord, DeliveryId, Destination, DestinationId, DestinationState,
    Event, EventId, Kept, KeyHash, KeyId, ReplayId, Sealed, Tenant, TenantId, TenantSpec, Timestamp,
};

use crate::{
    Changes, DispatchStore, Health, IngestStore, ManageStore, ReadStore, ScheduleStore, Store, StoreError, TenantStore,
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

/// Makes of a port's methods the trait of its layers, which hands each of them on, and the port of a layer. In brackets: what
/// does not wait.
#[macro_export]
macro_rules! layers {
    ($layer:ident and $layered:ident of $port:ident, $error:ty: $($trait:ident {
        $($name:ident($($arg:ident: $of:ty),*) -> $ret:ty;)*
        $([$plain:ident($($plain_arg:ident: $plain_of:ty),*) -> $plain_ret:ty])?
    })*) => {
        /// What stands before that port.
        pub trait $layer: ::std::fmt::Debug + Send + Sync + 'static {
            /// What it stands before.
            fn inner(&self) -> &dyn $port;

            /// Hands on a call of which nothing else is said here.
            fn via<T: Send>(
                &self,
                _name: &'static str,
                call: impl ::std::future::Future<Output = Result<T, $error>> + Send,
            ) -> impl ::std::future::Future<Output = Result<T, $error>> + Send {
                call
            }

            $($(fn $name(&self, $($arg: $of),*) -> impl ::std::future::Future<Output = Result<$ret, $error>> + Send {
                async move { self.via(stringify!($name), self.inner().$name($($arg),*)).await }
            })*
            $(fn $plain(&self, $($plain_arg: $plain_of),*) -> $plain_ret {
                self.inner().$plain($($plain_arg),*)
            })?)*
        }

        /// That port, through a layer.
        #[derive(Debug)]
        pub struct $layered<L>(pub L);

        $(#[async_trait::async_trait]
        impl<L: $layer> $trait for $layered<L> {
            $(async fn $name(&self, $($arg: $of),*) -> Result<$ret, $error> {
                self.0.$name($($arg),*).await
            })*
            $(fn $plain(&self, $($plain_arg: $plain_of),*) -> $plain_ret {
                self.0.$plain($($plain_arg),*)
            })?
        })*
    };
}

layers! { StoreLayer and LayeredStore of Store, StoreError:
    ReadStore {
        tenant_by_slug(slug: &str) -> Option<TenantId>;
        tenant_exists(id: TenantId) -> bool;
        destination(tenant: TenantId, id: DestinationId) -> Option<Destination>;
        destination_by_uid(tenant: TenantId, uid: &str) -> Option<Destination>;
        list_destinations(tenant: TenantId, state: Option<DestinationState>, page: Page<DestinationId>) -> Vec<Destination>;
        event(tenant: TenantId, id: EventId) -> Option<EventView>;
        event_by_uid(tenant: TenantId, uid: &str) -> Option<EventId>;
        list_events(tenant: TenantId, filter: &EventFilter, page: Page<EventId>, with_data: bool) -> Vec<EventView>;
        delivery(tenant: TenantId, id: DeliveryId) -> Option<DeliveryView>;
        list_deliveries(tenant: TenantId, filter: &DeliveryFilter, page: Page<DeliveryId>) -> Vec<DeliveryView>;
        list_attempts(tenant: TenantId, filter: &AttemptFilter, page: Page<(DeliveryId, u32)>) -> Vec<AttemptView>;
        dead_letter(tenant: TenantId, id: DeliveryId) -> Option<DeadLetter>;
        list_dead_letters(tenant: TenantId, filter: &DeadLetterFilter, page: Page<DeliveryId>, with_data: bool)
            -> Vec<DeadLetter>;
        replay(tenant: TenantId, id: ReplayId) -> Option<ReplayJob>;
        list_replays(tenant: TenantId, page: Page<ReplayId>) -> Vec<ReplayJob>;
    }
    ManageStore {
        create_destination(destination: &Destination) -> Created;
        update_destination(tenant: TenantId, id: DestinationId, expected_version: u32, update: DestinationUpdate<'_>)
            -> Option<Destination>;
        set_paused(tenant: TenantId, id: DestinationId, paused: bool) -> Option<Destination>;
        delete_destination(tenant: TenantId, id: DestinationId) -> bool;
        retry_delivery(tenant: TenantId, id: DeliveryId) -> Retried;
        cancel_delivery(tenant: TenantId, id: DeliveryId) -> Cancelled;
        replay_event(tenant: TenantId, event: EventId, destination: Option<DestinationId>) -> Option<Vec<DeliveryId>>;
        replay_dead_letter(tenant: TenantId, id: DeliveryId) -> Retried;
        discard_dead_letter(tenant: TenantId, id: DeliveryId) -> bool;
        create_replay(job: &ReplayJob) -> ();
        count_replay(tenant: TenantId, selection: &ReplaySelection, most: u64) -> u64;
        cancel_replay(tenant: TenantId, id: ReplayId) -> Option<ReplayJob>;
        begin_idempotent(tenant: TenantId, key: &IdempotencyKey, lease: Duration) -> Begun;
        finish_idempotent(tenant: TenantId, key: &IdempotencyKey, answer: Option<&StoredAnswer>) -> ();
    }
    TenantStore {
        key_by_hash(hash: &KeyHash) -> Option<Holder>;
        tenant(id: TenantId) -> Option<Tenant>;
        list_tenants(page: Page<TenantId>) -> Vec<Tenant>;
        create_tenant(new: NewTenant<'_>) -> TenantCreated;
        update_tenant(id: TenantId, expected_version: u32, spec: &TenantSpec, ingest_secret: Option<&Sealed>)
            -> Option<Tenant>;
        delete_tenant(id: TenantId) -> bool;
        create_key(tenant: TenantId, key: &ApiKey) -> bool;
        list_keys(tenant: TenantId, page: Page<KeyId>) -> Vec<ApiKey>;
        revoke_key(tenant: TenantId, id: KeyId) -> bool;
        touch_keys(used: &[(KeyId, Timestamp)]) -> ();
        count_destinations(tenant: TenantId) -> u64;
        begin_audit(entry: &AuditEntry) -> ();
        end_audit(tenant: TenantId, id: AuditId, target: Option<&str>, outcome: &AuditOutcome) -> ();
        list_audit(tenant: TenantId, filter: &AuditFilter, page: Page<AuditId>) -> Vec<AuditEntry>;
        is_sealed() -> bool;
        mark_sealed() -> ();
        unsealed(newest: &str, after: Option<SealedRow>, most: usize) -> Vec<(SealedRow, TenantId, Kept)>;
        count_unsealed(newest: &str) -> u64;
        reseal(row: SealedRow, old: &Kept, new: &Sealed) -> bool;
        sealing_keys() -> Vec<String>;
    }
    Health {
        check() -> Timestamp;
    }
    IngestStore {
        ingest(group: &IngestGroup) -> Vec<UnitOutcome>;
        routes(tenant: TenantId) -> Routes;
        spilled() -> Vec<DestinationId>;
        [changes() -> Changes]
    }
    DispatchStore {
        destinations(ids: &[DestinationId]) -> Vec<Destination>;
        changed_since(since: Option<Timestamp>) -> (Vec<Destination>, Timestamp);
        examine(ids: &[DeliveryId]) -> Vec<Option<Standing>>;
        events(ids: &[EventId]) -> Vec<Arc<Event>>;
        write(batch: &[DeliveryWrite], hand_over: bool) -> WriteReport;
        heartbeat(dispatcher: u64) -> u32;
        take_over(leases: &[(DeliveryId, Timestamp)]) -> Vec<Option<Timestamp>>;
        farewell(dispatcher: u64) -> ();
        hold_queues(holds: &[QueueHold]) -> ();
        record_circuits(records: &[(DestinationId, CircuitRecord)]) -> ();
        disable_destination(tenant: TenantId, id: DestinationId, reason: &str) -> ();
    }
    ScheduleStore {
        relay(older_than: Duration, most_records: usize) -> usize;
        take_due(budget: FeedBudget) -> Due;
        give_back(deliveries: &[(DeliveryId, Timestamp)]) -> ();
        requeue_lost(until: Timestamp, most: usize) -> (usize, bool);
        expand_fan_outs(most: usize) -> usize;
        open_replays() -> Vec<OpenReplay>;
        step_replay(id: ReplayId, most: usize) -> (usize, bool);
        sweep_deleted(most: usize) -> usize;
        sweep_tenants(most: usize) -> usize;
        disable_failing(most: usize) -> usize;
        prepare_partitions(days_ahead: u32) -> ();
        retain(retention: Retention) -> bool;
        sample() -> Sample;
    }
}
