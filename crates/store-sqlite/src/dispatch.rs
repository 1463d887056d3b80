//! What the dispatcher needs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, params};
use signalpost_core::{CircuitRecord, DeliveryId, Destination, DestinationId, Event, EventId, TenantId, Timestamp};
use signalpost_store::{
    DispatchStore, StoreError,
    dispatch::{DeliveryWrite, MakeBatch, QueueHold, Standing, WriteReport},
};

use crate::{
    SqliteStore,
    columns::{self, DESTINATION, EVENT, key},
    destinations, feed, holds, outcomes,
    writer::MadeOnce,
};

/// A change is stamped before it is committed: who polls looks back that far.
const OVERLAP: Duration = Duration::from_secs(5);

#[async_trait]
impl DispatchStore for SqliteStore {
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {DESTINATION} FROM destinations WHERE id = ?1"))?;
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                if let Some(row) = statement.query([key(id)])?.next()? {
                    found.push(columns::destination(row)?);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn changed_since(&self, since: Option<Timestamp>) -> Result<(Vec<Destination>, Timestamp), StoreError> {
        let now = self.now();
        let Some(since) = since else { return Ok((Vec::new(), now)) };
        // Where the clock was set back, `since` lies ahead and would hide what changed after that.
        let from = since.min(now) - OVERLAP;
        let changed = self
            .read(move |connection| {
                let mut statement = connection.prepare_cached(&format!(
                    "SELECT {DESTINATION} FROM destinations WHERE updated_at >= ?1 OR circuit_at >= ?1
                     ORDER BY updated_at, id"
                ))?;
                let mut rows = statement.query([from.as_micros()])?;
                let mut changed = Vec::new();
                while let Some(row) = rows.next()? {
                    changed.push(columns::destination(row)?);
                }
                Ok(changed)
            })
            .await?;
        Ok((changed, now))
    }

    async fn examine(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Standing>>, StoreError> {
        let (ids, now) = (ids.to_vec(), self.now());
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT d.state, d.attempts, w.due_at, w.reason, w.leased, d.lane, d.guarantee, d.born_at
                 FROM deliveries d LEFT JOIN waiting w ON w.delivery_id = d.id WHERE d.id = ?1",
            )?;
            let mut standings = Vec::with_capacity(ids.len());
            for id in ids {
                let standing = statement.query_row(params![key(id)], |row| {
                    let waiting = columns::waiting(row, 2)?;
                    let leased = row.get::<_, Option<bool>>(4)?.unwrap_or(false);
                    let lease = waiting.filter(|(until, _)| leased && *until > now);
                    Ok(Standing {
                        state: columns::state(row, 0)?,
                        attempts: row.get(1)?,
                        waiting,
                        lease_left: lease.map(|(until, _)| until.since(now)),
                        lane: columns::lane(row, 5)?,
                        guarantee: columns::guarantee(row, 6)?,
                        born_at: columns::maybe_time(row, 7)?,
                    })
                });
                standings.push(standing.optional()?);
            }
            Ok(standings)
        })
        .await
    }

    async fn events(&self, ids: &[EventId]) -> Result<Vec<Arc<Event>>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!("SELECT {EVENT} FROM events e WHERE e.id = ?1"))?;
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                if let Some(row) = statement.query([key(id)])?.next()? {
                    found.push(Arc::new(columns::event(row, 0)?));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        let batch = batch.to_vec();
        SqliteStore::write(self, move |tx| outcomes::write(tx, &batch, hand_over)).await
    }

    async fn write_late(&self, make: MakeBatch, hand_over: bool) -> Result<WriteReport, StoreError> {
        let mut made = MadeOnce::new(make);
        SqliteStore::write(self, move |tx| outcomes::write(tx, made.get()?, hand_over)).await
    }

    async fn heartbeat(&self, dispatcher: u64) -> Result<u32, StoreError> {
        Ok(self.inner.dispatchers.beat(dispatcher, self.now()))
    }

    async fn take_over(&self, leases: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let leases = leases.to_vec();
        SqliteStore::write(self, move |tx| feed::take_over(tx, &leases)).await
    }

    async fn farewell(&self, dispatcher: u64) -> Result<(), StoreError> {
        self.inner.dispatchers.forget(dispatcher);
        Ok(())
    }

    async fn hold_queues(&self, holds: &[QueueHold]) -> Result<(), StoreError> {
        let holds = holds.to_vec();
        SqliteStore::write(self, move |tx| holds::hold(tx, &holds)).await
    }

    async fn record_circuits(&self, records: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError> {
        let records = records.to_vec();
        SqliteStore::write(self, move |tx| destinations::record_circuits(tx, &records)).await
    }

    async fn disable_destination(&self, tenant: TenantId, id: DestinationId, reason: &str) -> Result<(), StoreError> {
        let reason = reason.to_owned();
        SqliteStore::write(self, move |tx| destinations::disable(tx, tenant, id, &reason)).await
    }
}
