//! What the API shows: on the pool for reads, bounded in time, by key.

mod attempts;
mod dead_letters;
mod deliveries;
mod destinations;
mod events;
mod page;
mod replays;

use async_trait::async_trait;
use signalpost_core::{DeliveryId, Destination, DestinationId, DestinationState, EventId, ReplayId, TenantId, id::Id};
use signalpost_store::{
    ReadStore, StoreError,
    manage::ReplayJob,
    read::{
        AttemptFilter, AttemptView, DeadLetter, DeadLetterFilter, DeliveryFilter, DeliveryView, EventFilter, EventView,
        Page,
    },
};
use uuid::Uuid;

pub(crate) use self::page::push_page;
use crate::{PostgresStore, tenants, transaction::read};

#[async_trait]
impl ReadStore for PostgresStore {
    async fn tenant_by_slug(&self, slug: &str) -> Result<Option<TenantId>, StoreError> {
        let found: Option<Uuid> = read!(self, reads, |connection| sqlx::query_scalar(
            "SELECT id FROM tenants WHERE slug = $1 AND deleting_at IS NULL"
        )
        .bind(slug)
        .fetch_optional(connection))?;
        Ok(found.map(Id::from_uuid))
    }

    async fn tenant_exists(&self, id: TenantId) -> Result<bool, StoreError> {
        Ok(read!(self, reads, |connection| tenants::is_there(connection, id))?)
    }

    async fn destination(&self, tenant: TenantId, id: DestinationId) -> Result<Option<Destination>, StoreError> {
        Ok(read!(self, reads, |connection| destinations::one(connection, tenant, id))?)
    }

    async fn destination_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<Destination>, StoreError> {
        Ok(read!(self, reads, |connection| destinations::by_uid(connection, tenant, uid))?)
    }

    async fn list_destinations(
        &self,
        tenant: TenantId,
        state: Option<DestinationState>,
        page: Page<DestinationId>,
    ) -> Result<Vec<Destination>, StoreError> {
        Ok(read!(self, reads, |connection| destinations::list(connection, tenant, state, page))?)
    }

    async fn event(&self, tenant: TenantId, id: EventId) -> Result<Option<EventView>, StoreError> {
        Ok(read!(self, reads, |connection| events::one(connection, tenant, id))?)
    }

    async fn event_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<EventId>, StoreError> {
        Ok(read!(self, reads, |connection| events::by_uid(connection, tenant, uid))?)
    }

    async fn list_events(
        &self,
        tenant: TenantId,
        filter: &EventFilter,
        page: Page<EventId>,
        with_data: bool,
    ) -> Result<Vec<EventView>, StoreError> {
        Ok(read!(self, reads, |connection| events::list(connection, tenant, filter, page, with_data))?)
    }

    async fn delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeliveryView>, StoreError> {
        Ok(read!(self, reads, |connection| deliveries::one(connection, tenant, id))?)
    }

    async fn list_deliveries(
        &self,
        tenant: TenantId,
        filter: &DeliveryFilter,
        page: Page<DeliveryId>,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        Ok(read!(self, reads, |connection| deliveries::list(connection, tenant, filter, page))?)
    }

    async fn list_attempts(
        &self,
        tenant: TenantId,
        filter: &AttemptFilter,
        page: Page<(DeliveryId, u32)>,
    ) -> Result<Vec<AttemptView>, StoreError> {
        Ok(read!(self, reads, |connection| attempts::list(connection, tenant, filter, page))?)
    }

    async fn dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeadLetter>, StoreError> {
        Ok(read!(self, reads, |connection| dead_letters::one(connection, tenant, id))?)
    }

    async fn list_dead_letters(
        &self,
        tenant: TenantId,
        filter: &DeadLetterFilter,
        page: Page<DeliveryId>,
        with_data: bool,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(read!(self, reads, |connection| dead_letters::list(connection, tenant, filter, page, with_data))?)
    }

    async fn replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError> {
        Ok(read!(self, reads, |connection| replays::one(connection, tenant, id))?)
    }

    async fn list_replays(&self, tenant: TenantId, page: Page<ReplayId>) -> Result<Vec<ReplayJob>, StoreError> {
        Ok(read!(self, reads, |connection| replays::list(connection, tenant, page))?)
    }
}
