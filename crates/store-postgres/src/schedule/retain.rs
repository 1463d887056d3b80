//! Retention: partitions whole, everything else in bounded chunks.

use std::time::Duration;

use signalpost_core::{DeliveryId, DeliveryState, DestinationId, Timestamp};
use signalpost_store::{StoreError, schedule::Retention};
use sqlx::PgConnection;

use crate::{
    PostgresStore,
    error::Failure,
    lanes,
    partitions::{self, Day},
    queues::micros,
    rows::{id, optional_lane},
    tenants,
    transaction::{read, transact},
};

/// Reading a whole partition may take longer than other work.
const SCAN_TIME: Duration = Duration::from_secs(60);

/// Chunks of rows, each with the time after which a row goes.
const DEAD_LETTERS: &str = "DELETE FROM dead_letters WHERE delivery_id = ANY(ARRAY(
    SELECT delivery_id FROM dead_letters WHERE dead_at < statement_timestamp() - $1 * interval '1 microsecond'
    ORDER BY dead_at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING delivery_id, destination_id, lane";
const KEYS: &str = "DELETE FROM idempotency c USING (
    SELECT tenant_id, scope, key FROM idempotency WHERE expires_at < statement_timestamp() - $1 * interval '1 microsecond'
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED) i
    WHERE c.tenant_id = i.tenant_id AND c.scope = i.scope AND c.key = i.key";
const REPLAYS: &str = "DELETE FROM replays WHERE id = ANY(ARRAY(
    SELECT id FROM replays WHERE finished_at < statement_timestamp() - $1 * interval '1 microsecond'
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))";

pub(super) async fn retain(store: &PostgresStore, retention: Retention) -> Result<bool, StoreError> {
    let chunk = i64::try_from(retention.chunk).unwrap_or(i64::MAX);
    let letters = transact!(store, |transaction| drop_letters(transaction, retention.dead_letters, chunk))?;
    let mut more = letters > 0 && letters >= retention.chunk;
    for (statement, age) in [(KEYS, Duration::ZERO), (REPLAYS, retention.events)] {
        let deleted = transact!(store, |transaction| delete(transaction, statement, age, chunk))?;
        more |= deleted > 0 && deleted >= retention.chunk as u64;
    }
    let before = read!(store, main, |connection| partitions::now(connection))? - retention.audit;
    let pruned = transact!(store, |transaction| tenants::prune(transaction, before, retention.chunk))?;
    more |= pruned > 0 && pruned >= retention.chunk;
    drop_partitions(store, retention.events).await?;
    Ok(more)
}

/// Lanes that they block go on.
async fn drop_letters(transaction: &mut PgConnection, age: Duration, chunk: i64) -> Result<usize, Failure> {
    let rows = sqlx::query(DEAD_LETTERS).bind(micros(age)).bind(chunk).fetch_all(&mut *transaction).await?;
    let mut blocking: Vec<(DestinationId, DeliveryId)> = Vec::new();
    for row in &rows {
        if optional_lane(row, "lane")?.is_some() {
            blocking.push((id(row, "destination_id")?, id(row, "delivery_id")?));
        }
    }
    lanes::release(transaction, &blocking).await?;
    Ok(rows.len())
}

async fn delete(
    transaction: &mut PgConnection,
    statement: &'static str,
    age: Duration,
    chunk: i64,
) -> Result<u64, Failure> {
    Ok(sqlx::query(statement).bind(micros(age)).bind(chunk).execute(transaction).await?.rows_affected())
}

async fn drop_partitions(store: &PostgresStore, age: Duration) -> Result<(), StoreError> {
    let days = read!(store, main, |connection| old_days(connection, age))?;
    for day in days {
        if transact!(store, SCAN_TIME, |transaction| has_queued(transaction, day))? {
            continue;
        }
        for table in partitions::TABLES {
            match transact!(store, |transaction| partitions::drop_partition(transaction, table, day)) {
                Ok(true) => {}
                Ok(false) => break,
                // Somebody reads for long: another time.
                Err(failure) if failure.sqlstate().as_deref() == Some("55P03") => {
                    let partition = partitions::name(table, day);
                    tracing::warn!(partition, "not dropped, as it is in use; this is tried again");
                    break;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    Ok(())
}

async fn old_days(connection: &mut PgConnection, age: Duration) -> Result<Vec<Day>, Failure> {
    let before: Timestamp = partitions::now(&mut *connection).await? - age;
    partitions::ended_before(connection, before).await
}

/// Whether something of that day is still `Queued` or waits. Nothing is queued below the reconciler's mark; else the
/// partition is read.
async fn has_queued(transaction: &mut PgConnection, day: Day) -> Result<bool, Failure> {
    // A statement of its own: it would be too late for the one that it stands in.
    sqlx::query("SELECT set_config('statement_timeout', $1, true)")
        .bind(SCAN_TIME.as_millis().to_string())
        .execute(&mut *transaction)
        .await?;
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM waiting WHERE delivery_id >= $1 AND delivery_id < $2)
             OR ((SELECT value::uuid FROM marks WHERE name = 'requeue_lost') < $2
                 AND EXISTS (SELECT FROM deliveries WHERE id >= $1 AND id < $2 AND state = $3))",
    )
    .bind(day.first_id())
    .bind(day.end_id())
    .bind(DeliveryState::Queued as i16)
    .fetch_one(transaction)
    .await?)
}
