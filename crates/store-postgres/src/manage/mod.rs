//! Changes by people and their programs.

mod deliveries;
pub(crate) mod destinations;
mod idempotency;
mod replay_jobs;

use std::time::Duration;

use async_trait::async_trait;
use signalpost_core::{DeliveryId, Destination, DestinationId, EventId, ReplayId, TenantId, WaitReason};
use signalpost_store::{
    ManageStore, StoreError,
    ingest::StoredAnswer,
    manage::{Begun, Cancelled, Created, DestinationUpdate, IdempotencyKey, ReplayJob, ReplaySelection, Retried},
};
use sqlx::PgConnection;

pub(crate) use replay_jobs::{job, job_columns};

use crate::{
    PostgresStore, changes,
    error::Failure,
    holds,
    transaction::{read, transact},
};

#[async_trait]
impl ManageStore for PostgresStore {
    async fn create_destination(&self, destination: &Destination) -> Result<Created, StoreError> {
        Ok(transact!(self, |transaction| destinations::create(transaction, destination))?)
    }

    async fn update_destination(
        &self,
        tenant: TenantId,
        id: DestinationId,
        expected_version: u32,
        update: DestinationUpdate<'_>,
    ) -> Result<Option<Destination>, StoreError> {
        Ok(transact!(self, |transaction| destinations::update(transaction, tenant, id, expected_version, update))?)
    }

    async fn set_paused(
        &self,
        tenant: TenantId,
        id: DestinationId,
        paused: bool,
    ) -> Result<Option<Destination>, StoreError> {
        Ok(transact!(self, |transaction| destinations::set_paused(transaction, tenant, id, paused))?)
    }

    async fn delete_destination(&self, tenant: TenantId, id: DestinationId) -> Result<bool, StoreError> {
        Ok(transact!(self, |transaction| destinations::delete(transaction, tenant, id))?)
    }

    async fn retry_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError> {
        let entropy = &*self.entropy;
        Ok(transact!(self, |transaction| deliveries::retry(transaction, tenant, id, entropy))?)
    }

    async fn cancel_delivery(&self, tenant: TenantId, id: DeliveryId) -> Result<Cancelled, StoreError> {
        Ok(transact!(self, |transaction| deliveries::cancel(transaction, tenant, id))?)
    }

    async fn replay_event(
        &self,
        tenant: TenantId,
        event: EventId,
        destination: Option<DestinationId>,
    ) -> Result<Option<Vec<DeliveryId>>, StoreError> {
        let entropy = &*self.entropy;
        Ok(transact!(self, |transaction| deliveries::replay_event(transaction, tenant, event, destination, entropy))?)
    }

    async fn replay_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<Retried, StoreError> {
        let entropy = &*self.entropy;
        Ok(transact!(self, |transaction| deliveries::replay_dead_letter(transaction, tenant, id, entropy))?)
    }

    async fn discard_dead_letter(&self, tenant: TenantId, id: DeliveryId) -> Result<bool, StoreError> {
        Ok(transact!(self, |transaction| deliveries::discard(transaction, tenant, id))?)
    }

    async fn create_replay(&self, job: &ReplayJob) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| replay_jobs::create(transaction, job))?)
    }

    async fn count_replay(&self, tenant: TenantId, selection: &ReplaySelection, most: u64) -> Result<u64, StoreError> {
        Ok(read!(self, reads, |connection| replay_jobs::count(connection, tenant, selection, most))?)
    }

    async fn cancel_replay(&self, tenant: TenantId, id: ReplayId) -> Result<Option<ReplayJob>, StoreError> {
        Ok(transact!(self, |transaction| replay_jobs::cancel(transaction, tenant, id))?)
    }

    async fn begin_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        lease: Duration,
    ) -> Result<Begun, StoreError> {
        Ok(transact!(self, |transaction| idempotency::begin(transaction, tenant, key, lease))?)
    }

    async fn finish_idempotent(
        &self,
        tenant: TenantId,
        key: &IdempotencyKey,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| idempotency::finish(transaction, tenant, key, answer))?)
    }
}

/// What a change of a destination means for its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bumped {
    /// Nothing.
    Changed,
    /// It is no longer fed.
    Blocked(DestinationId),
    /// It is fed again, at once.
    Open(DestinationId),
}

/// The end of every change of a destination: its queue follows, its tenant's routing version grows, everybody is told.
pub(crate) async fn bump(transaction: &mut PgConnection, tenant: TenantId, bumped: Bumped) -> Result<(), Failure> {
    match bumped {
        Bumped::Changed => {}
        Bumped::Blocked(id) => {
            sqlx::query("UPDATE queues SET blocked = true WHERE destination_id = $1")
                .bind(id.uuid())
                .execute(&mut *transaction)
                .await?;
        }
        Bumped::Open(id) => {
            holds::release(transaction, id, &[WaitReason::Paused, WaitReason::Circuit]).await?;
            sqlx::query("UPDATE queues SET blocked = false WHERE destination_id = $1")
                .bind(id.uuid())
                .execute(&mut *transaction)
                .await?;
        }
    }
    sqlx::query(
        "WITH bumped AS (UPDATE tenants SET routing_version = routing_version + 1 WHERE id = $1 RETURNING id)
         SELECT pg_notify($2, id::text) FROM bumped",
    )
    .bind(tenant.uuid())
    .bind(changes::CHANNEL)
    .execute(transaction)
    .await?;
    Ok(())
}
