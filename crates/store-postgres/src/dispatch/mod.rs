//! The dispatcher's part.

mod apply;
mod circuits;
mod decide;
mod fast;
mod leases;
mod reads;
mod write;

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use signalpost_core::{
    CircuitRecord, DeliveryId, Destination, DestinationId, DestinationState, Event, EventId, TenantId, Timestamp,
};
use signalpost_store::{
    DispatchStore, StoreError,
    dispatch::{DeliveryWrite, QueueHold, Standing, WriteReport, Written},
};
use sqlx::PgConnection;

use crate::{
    PostgresStore,
    dispatch::fast::Way,
    dispatchers, due,
    error::Failure,
    holds,
    manage::{Bumped, bump},
    transaction::{read, transact},
};

#[async_trait]
impl DispatchStore for PostgresStore {
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError> {
        Ok(read!(self, main, |connection| reads::destinations(connection, ids))?)
    }

    async fn changed_since(&self, since: Option<Timestamp>) -> Result<(Vec<Destination>, Timestamp), StoreError> {
        Ok(read!(self, main, |connection| reads::changed_since(connection, since))?)
    }

    async fn examine(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Standing>>, StoreError> {
        Ok(read!(self, main, |connection| reads::examine(connection, ids))?)
    }

    async fn events(&self, ids: &[EventId]) -> Result<Vec<Arc<Event>>, StoreError> {
        Ok(read!(self, main, |connection| due::whole_events(connection, ids))?)
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        if batch.is_empty() {
            return Ok(WriteReport::default());
        }
        let done = self.write_arrivals(batch).await?;
        if done.len() == batch.len() {
            return Ok(WriteReport { written: vec![Written::Done; batch.len()], followers: Vec::new() });
        }
        let inline = self.settings.inline_bytes;
        Ok(transact!(self, |transaction| write::write(transaction, batch, &done, hand_over, inline))?)
    }

    async fn heartbeat(&self, dispatcher: u64) -> Result<u32, StoreError> {
        Ok(transact!(self, |transaction| dispatchers::beat(transaction, dispatcher))?)
    }

    async fn take_over(&self, leases: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        Ok(transact!(self, |transaction| leases::take_over(transaction, leases))?)
    }

    async fn farewell(&self, dispatcher: u64) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| dispatchers::forget(transaction, dispatcher))?)
    }

    async fn hold_queues(&self, holds: &[QueueHold]) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| holds::hold(transaction, holds))?)
    }

    async fn record_circuits(&self, records: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| circuits::record(transaction, records))?)
    }

    async fn disable_destination(&self, tenant: TenantId, id: DestinationId, reason: &str) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| disable(transaction, tenant, id, reason))?)
    }
}

impl PostgresStore {
    /// Writes the common case, and gives what was written so.
    async fn write_arrivals(&self, batch: &[DeliveryWrite]) -> Result<HashSet<DeliveryId>, Failure> {
        let mut done = HashSet::new();
        for ((day, way), places) in fast::places(batch) {
            let written = match way {
                Way::Straight => read!(self, hot, |connection| fast::write(connection, batch, day, way, &places)),
                Way::Fed => {
                    transact!(self, in hot, |transaction| fast::write_fed(transaction, batch, day, &places))
                }
            };
            match written {
                Ok(some) if done.is_empty() => done = some,
                Ok(some) => done.extend(some),
                // A partition of that day was dropped: nothing of it waited any more.
                Err(failure) if failure.sqlstate().as_deref() == Some("42P01") => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(done)
    }
}

/// Does nothing where it is not active or paused.
pub(crate) async fn disable(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: DestinationId,
    reason: &str,
) -> Result<(), Failure> {
    let changed = sqlx::query(
        "UPDATE destinations SET state = $4, disabled_reason = $3, version = version + 1, updated_at = clock_timestamp()
         WHERE id = $1 AND tenant_id = $2 AND state IN ('active', 'paused')",
    )
    .bind(id.uuid())
    .bind(tenant.uuid())
    .bind(reason.replace('\0', "\u{fffd}"))
    .bind(DestinationState::Disabled.as_str())
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if changed > 0 {
        bump(transaction, tenant, Bumped::Blocked(id)).await?;
    }
    Ok(())
}
