//! What retry needs: everything that time drives.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use signalpost_core::{DeliveryId, DestinationId, ReplayId, Timestamp};
use signalpost_store::{
    ScheduleStore, StoreError,
    schedule::{Due, FeedBudget, OpenReplay, Retention, Sample},
};

use crate::{SqliteStore, columns::id, failing, failure::Outcome, feed, leftovers, replays, retention, tenants};

#[async_trait]
impl ScheduleStore for SqliteStore {
    async fn relay(&self, older_than: Duration, most_records: usize) -> Result<usize, StoreError> {
        let mut records = 0;
        loop {
            let left = most_records - records;
            let (taken, is_cut) = self.write(move |tx| leftovers::relay(tx, older_than, left)).await?;
            records += taken;
            if !is_cut {
                return Ok(records);
            }
        }
    }

    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError> {
        // Asked many times a second: what is not due costs no transaction.
        let now = self.now();
        let next = self.read(feed::next_due).await?;
        if next.is_none_or(|next| next > now) {
            return Ok(Due { next_in: next.map(|next| next.since(now)), ..Due::default() });
        }
        self.write(move |tx| feed::take(tx, budget)).await
    }

    async fn give_back(&self, deliveries: &[(DeliveryId, Timestamp)]) -> Result<(), StoreError> {
        let deliveries = deliveries.to_vec();
        self.write(move |tx| feed::give_back(tx, &deliveries)).await
    }

    async fn requeue_lost(&self, until: Timestamp, most: usize) -> Result<(usize, bool), StoreError> {
        let inherited = self.inner.inherited;
        self.write(move |tx| leftovers::requeue(tx, until, inherited, most)).await
    }

    async fn expand_fan_outs(&self, most: usize) -> Result<usize, StoreError> {
        self.write(move |tx| leftovers::expand_fan_outs(tx, most)).await
    }

    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
        let now = self.now();
        self.read(move |connection| replays::open(connection, now)).await
    }

    async fn step_replay(&self, id: ReplayId, most: usize) -> Result<(usize, bool), StoreError> {
        self.step(id, most).await
    }

    async fn sweep_deleted(&self, most: usize) -> Result<usize, StoreError> {
        // Looking for what is left of a destination may take long, so it is no part of the writer's work; what is found
        // to be over stays over, as a deleted destination gets nothing new.
        let now = self.now();
        let (empty, some_wait) = self
            .list(move |connection| {
                let empty = leftovers::empty_destinations(connection)?;
                Ok((empty, !leftovers::to_cancel(connection, now, 1)?.is_empty()))
            })
            .await?;
        if empty.is_empty() && !some_wait {
            return Ok(0);
        }
        self.write(move |tx| leftovers::sweep(tx, &empty, most)).await
    }

    async fn sweep_tenants(&self, most: usize) -> Result<usize, StoreError> {
        self.write(move |tx| tenants::sweep(tx, most)).await
    }

    async fn disable_failing(&self, most: usize) -> Result<usize, StoreError> {
        self.write(move |tx| failing::disable(tx, most)).await
    }

    async fn prepare_partitions(&self, _days_ahead: u32) -> Result<(), StoreError> {
        Ok(())
    }

    async fn retain(&self, retention: Retention) -> Result<bool, StoreError> {
        self.write(move |tx| retention::retain(tx, retention)).await
    }

    async fn sample(&self) -> Result<Sample, StoreError> {
        let now = self.now();
        self.list(move |connection| sample(connection, now)).await
    }
}

fn sample(connection: &Connection, now: Timestamp) -> Outcome<Sample> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let age = |oldest: Option<i64>| oldest.map_or(Duration::ZERO, |oldest| now.since(Timestamp::from_micros(oldest)));
    let mut sample = connection.query_row(
        "SELECT coalesce(sum(depth), 0), coalesce(sum(depth > 0), 0), coalesce(sum(spilled), 0) FROM queues",
        [],
        |row| {
            Ok(Sample {
                waiting: count(row.get(0)?),
                queues: count(row.get(1)?),
                spilled: count(row.get(2)?),
                ..Sample::default()
            })
        },
    )?;
    sample.dead_letters = count(connection.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?);
    sample.outbox_age = age(connection.query_row("SELECT min(created_at) FROM outbox", [], |row| row.get(0))?);
    // The queue's own time moves when it is served: what has been due for longest is its first row.
    sample.oldest_due = age(connection.query_row(
        "SELECT min((SELECT min(due_at) FROM waiting w WHERE w.destination_id = q.destination_id))
         FROM queues q WHERE q.blocked = 0 AND q.next_due <= ?1",
        [now.as_micros()],
        |row| row.get(0),
    )?);
    let mut deepest = connection.prepare_cached(
        "SELECT destination_id, depth FROM queues WHERE depth > 0 ORDER BY depth DESC, destination_id LIMIT 20",
    )?;
    let rows = deepest.query_map([], |row| Ok((id::<signalpost_core::id::DestinationKind>(row, 0)?, row.get(1)?)))?;
    sample.deepest = rows
        .map(|row| row.map(|(destination, depth): (DestinationId, i64)| (destination, count(depth))))
        .collect::<rusqlite::Result<_>>()?;
    Ok(sample)
}
