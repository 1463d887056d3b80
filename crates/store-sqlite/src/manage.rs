//! What the management half of the API changes: each call is one job of the writer.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;
use signalpost_core::{DeliveryId, Destination, DestinationId, EventId, ReplayId, TenantId};
use signalpost_store::{
    ManageStore, StoreError,
    ingest::StoredAnswer,
    manage::{Begun, Cancelled, Created, DestinationUpdate, IdempotencyKey, ReplayJob, ReplaySelection, Retried},
};

use crate::{SqliteStore, columns::key, deliveries, destinations, replays, selection::Walk};

#[async_trait]
impl ManageStore for SqliteStore {
    async fn create_destination(&self, destination: &Destination) -> Result<Created, StoreError> {
        let destination = destination.clone();
        self.write(move |tx| destinations::create(tx, &destination)).await
    }

    async fn update_destination(
        &self,
        tenant: TenantId,
        id: DestinationId,
        expected_version: u32,
        update: DestinationUpdate<'_>,
    ) -> Result<Option<Destination>, StoreError> {
        let (spec, secrets) = (update.spec.clone(), update.secrets.clone());
        self.write(move |tx| destinations::update(tx, tenant, id, expected_version, &spec, &secrets)).await
    }

    async fn set_paused(
        &self,
        tenant: TenantId,
        id: DestinationId,
        paused: bool,
    ) -> Result<Option<Destination>, StoreError> {
        self.write(move |tx| destinations::set_paused(tx, tenant, id, paused)).await
    }

    async fn delete_destination(&self, tenant: TenantId, id: DestinationId) -> Result<bool, StoreError> {
        self.write(move |tx| destinations::delete(tx, tenant, id)).await
    }

    async fn retry_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError> {
        self.write(move |tx| deliveries::retry(tx, tenant, id)).await
    }

    async fn cancel_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Cancelled, StoreError> {
        self.write(move |tx| deliveries::cancel(tx, tenant, id)).await
    }

    async fn replay_event(
        &self,
        tenant: TenantId,
        event: EventId,
        destination: Option<DestinationId>,
    ) -> Result<Option<Vec<DeliveryId>>, StoreError> {
        self.write(move |tx| deliveries::replay_event(tx, tenant, event, destination)).await
    }

    async fn replay_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError> {
        self.write(move |tx| deliveries::replay_dead_letter(tx, tenant, id)).await
    }

    async fn discard_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<bool, StoreError> {
        self.write(move |tx| deliveries::discard(tx, tenant, id)).await
    }

    async fn create_replay(&self, job: &ReplayJob) -> Result<(), StoreError> {
        let job = job.clone();
        self.write(move |tx| replays::create(tx, &job)).await
    }

    async fn count_replay(&self, tenant: TenantId, selection: &ReplaySelection, most: u64) -> Result<u64, StoreError> {
        self.count_matches(Walk::new(tenant, selection.clone()), most).await
    }

    async fn cancel_replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE replays SET state = 'cancelled', finished_at = ?3
                 WHERE id = ?1 AND tenant_id = ?2 AND state = 'running'",
                params![key(id), key(tenant), tx.now.as_micros()],
            )?;
            replays::load(tx.connection, tenant, id)
        })
        .await
    }

    async fn begin_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        lease: Duration,
    ) -> Result<Begun, StoreError> {
        let key = key.clone();
        self.write(move |tx| tx.begin(tenant, &key, lease)).await
    }

    async fn finish_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        let (key, answer) = (key.clone(), answer.cloned());
        self.write(move |tx| tx.finish(tenant, &key, answer.as_ref())).await
    }
}
