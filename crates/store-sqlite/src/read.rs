//! What the API shows.

mod dead_letters;
mod deliveries;
mod events;
pub(crate) mod filter;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use signalpost_core::{DeliveryId, Destination, DestinationId, DestinationState, EventId, ReplayId, TenantId};
use signalpost_store::{
    ReadStore, StoreError,
    manage::ReplayJob,
    read::{
        AttemptFilter, AttemptView, DeadLetter, DeadLetterFilter, DeliveryFilter, DeliveryView, EventFilter, EventView,
        Page,
    },
};

use crate::{
    SqliteStore,
    columns::{self, DESTINATION, id, key},
    failure::Outcome,
    read::filter::Filter,
    replays, tenants,
};

#[async_trait]
impl ReadStore for SqliteStore {
    async fn tenant_by_slug(&self, slug: &str) -> Result<Option<TenantId>, StoreError> {
        let slug = slug.to_owned();
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT id FROM tenants WHERE slug = ?1 AND deleting_at IS NULL")?;
            Ok(statement.query_row([slug], |row| id(row, 0)).optional()?)
        })
        .await
    }

    async fn tenant_exists(&self, id: TenantId) -> Result<bool, StoreError> {
        self.read(move |connection| tenants::is_there(connection, id)).await
    }

    async fn destination(&self, tenant: TenantId, id: DestinationId) -> Result<Option<Destination>, StoreError> {
        self.read(move |connection| destination(connection, "id = ?2", tenant, &key(id))).await
    }

    async fn destination_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<Destination>, StoreError> {
        let uid = uid.to_owned();
        self.read(move |connection| destination(connection, "uid = ?2", tenant, &uid)).await
    }

    async fn list_destinations(
        &self,
        tenant: TenantId,
        state: Option<DestinationState>,
        page: Page<DestinationId>,
    ) -> Result<Vec<Destination>, StoreError> {
        self.list(move |connection| {
            let mut filter = Filter::default();
            filter.blob("tenant_id = ?", key(tenant));
            filter.text("state <> ?", "deleted");
            if let Some(state) = state {
                filter.text("state = ?", state.as_str());
            }
            let (sql, values) = filter.page("id", &page, page.limit);
            let mut statement = connection.prepare_cached(&format!("SELECT {DESTINATION} FROM destinations {sql}"))?;
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(columns::destination(row)?);
            }
            Ok(found)
        })
        .await
    }

    async fn event(&self, tenant: TenantId, id: EventId) -> Result<Option<EventView>, StoreError> {
        self.read(move |connection| events::one(connection, tenant, id)).await
    }

    async fn event_by_uid(&self, tenant: TenantId, uid: &str) -> Result<Option<EventId>, StoreError> {
        let uid = uid.to_owned();
        self.read(move |connection| {
            let mut statement = connection
                .prepare_cached("SELECT id FROM events WHERE tenant_id = ?1 AND uid = ?2 ORDER BY id DESC LIMIT 1")?;
            Ok(statement.query_row(params![key(tenant), uid], |row| id(row, 0)).optional()?)
        })
        .await
    }

    async fn list_events(
        &self,
        tenant: TenantId,
        filter: &EventFilter,
        page: Page<EventId>,
        with_data: bool,
    ) -> Result<Vec<EventView>, StoreError> {
        let filter = filter.clone();
        self.list(move |connection| events::list(connection, tenant, &filter, page, with_data)).await
    }

    async fn delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeliveryView>, StoreError> {
        self.read(move |connection| deliveries::one(connection, tenant, id)).await
    }

    async fn list_deliveries(
        &self,
        tenant: TenantId,
        filter: &DeliveryFilter,
        page: Page<DeliveryId>,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        let filter = filter.clone();
        self.list(move |connection| deliveries::list(connection, tenant, &filter, page)).await
    }

    async fn list_attempts(
        &self,
        tenant: TenantId,
        filter: &AttemptFilter,
        page: Page<(DeliveryId, u32)>,
    ) -> Result<Vec<AttemptView>, StoreError> {
        let filter = filter.clone();
        self.list(move |connection| deliveries::attempts(connection, tenant, &filter, page)).await
    }

    async fn dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Option<DeadLetter>, StoreError> {
        self.read(move |connection| dead_letters::one(connection, tenant, id)).await
    }

    async fn list_dead_letters(
        &self,
        tenant: TenantId,
        filter: &DeadLetterFilter,
        page: Page<DeliveryId>,
        with_data: bool,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let filter = filter.clone();
        self.list(move |connection| dead_letters::list(connection, tenant, &filter, page, with_data)).await
    }

    async fn replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError> {
        self.read(move |connection| replays::load(connection, tenant, id)).await
    }

    async fn list_replays(&self, tenant: TenantId, page: Page<ReplayId>) -> Result<Vec<ReplayJob>, StoreError> {
        self.list(move |connection| {
            let mut filter = Filter::default();
            filter.blob("tenant_id = ?", key(tenant));
            let (sql, values) = filter.page("id", &page, page.limit);
            replays::list(connection, &sql, &values)
        })
        .await
    }
}

fn destination(
    connection: &Connection,
    condition: &str,
    tenant: TenantId,
    value: &dyn rusqlite::ToSql,
) -> Outcome<Option<Destination>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {DESTINATION} FROM destinations WHERE tenant_id = ?1 AND {condition} AND state <> 'deleted'"
    ))?;
    let mut rows = statement.query(params![key(tenant), value])?;
    rows.next()?.map(columns::destination).transpose()
}
