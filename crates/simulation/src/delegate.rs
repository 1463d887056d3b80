//! The store port handed on, method by method: by a gate, and by a wrapper that lies in some of them.

/// Implements a trait of the store by handing its methods on: `self.via(name, inner call)`. What stands behind the list is
/// taken as it is.
macro_rules! hand_on {
    ($trait:ident for $type:ty { $($name:ident($($arg:ident: $of:ty),*) -> $ret:ty;)* } $($own:tt)*) => {
        #[async_trait::async_trait]
        impl $trait for $type {
            $(async fn $name(&self, $($arg: $of),*) -> Result<$ret, signalpost_store::StoreError> {
                self.via(stringify!($name), self.inner.$name($($arg),*)).await
            })*
            $($own)*
        }
    };
}

/// [`hand_on`] for the half of the store that people use.
macro_rules! hand_on_people {
    ($type:ty) => {
        hand_on! { ReadStore for $type {
            tenant_by_slug(slug: &str) -> Option<TenantId>;
            tenant_exists(id: TenantId) -> bool;
            destination(tenant: TenantId, id: DestinationId) -> Option<Destination>;
            destination_by_uid(tenant: TenantId, uid: &str) -> Option<Destination>;
            list_destinations(tenant: TenantId, page: Page<DestinationId>) -> Vec<Destination>;
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
        }}
        hand_on! { ManageStore for $type {
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
        }}
        hand_on! { Health for $type { check() -> Timestamp; }}
    };
}
