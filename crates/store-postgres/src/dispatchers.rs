//! The table `dispatchers`: who sends, and when it was last heard of.

use signalpost_store::HEARTBEAT_LIFE;
use sqlx::PgConnection;

use crate::{error::Failure, queues::micros};

/// It lives: how many do, itself included. Takes those off the list that have been silent for a minute.
pub(crate) async fn beat(transaction: &mut PgConnection, dispatcher: u64) -> Result<u32, Failure> {
    let others: i64 = sqlx::query_scalar(
        "WITH seen AS (
             INSERT INTO dispatchers (id, seen_at) VALUES ($1, clock_timestamp())
             ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at
         ), gone AS (
             DELETE FROM dispatchers WHERE id = ANY(ARRAY(
                 SELECT id FROM dispatchers WHERE id <> $1 AND seen_at < clock_timestamp() - interval '1 minute'
                 FOR UPDATE SKIP LOCKED))
         )
         SELECT count(*) FROM dispatchers
         WHERE id <> $1 AND seen_at > clock_timestamp() - $2 * interval '1 microsecond'",
    )
    .bind(dispatcher.cast_signed())
    .bind(micros(HEARTBEAT_LIFE))
    .fetch_one(transaction)
    .await?;
    Ok(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1))
}

/// It ends.
pub(crate) async fn forget(transaction: &mut PgConnection, dispatcher: u64) -> Result<(), Failure> {
    sqlx::query("DELETE FROM dispatchers WHERE id = $1").bind(dispatcher.cast_signed()).execute(transaction).await?;
    Ok(())
}
