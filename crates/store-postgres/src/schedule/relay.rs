//! The relay: takes over what the API could not publish.

use std::time::Duration;

use signalpost_core::DeliveryId;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{error::Failure, ids::unpack, queues::micros, waiting};

/// About so many bytes of delivery ids (20,000 of them) are taken in one transaction; one record at least, however large.
const MOST_BYTES: i64 = 20_000 * 16;

/// What one transaction took.
pub(super) struct Taken {
    /// Records.
    pub(super) records: usize,
    /// Old records were left, as they held too many deliveries.
    pub(super) is_cut: bool,
}

pub(super) async fn relay(transaction: &mut PgConnection, older_than: Duration, most: usize) -> Result<Taken, Failure> {
    // The length of a large value is known without reading it.
    let rows = sqlx::query(
        "SELECT id, octet_length(delivery_ids)::bigint AS bytes FROM outbox
         WHERE created_at <= statement_timestamp() - $1 * interval '1 microsecond'
         ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(micros(older_than))
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(&mut *transaction)
    .await?;
    let mut chosen: Vec<Uuid> = Vec::with_capacity(rows.len());
    let mut bytes = 0_i64;
    for row in &rows {
        bytes = bytes.saturating_add(row.try_get("bytes")?);
        if bytes > MOST_BYTES && !chosen.is_empty() {
            break;
        }
        chosen.push(row.try_get("id")?);
    }
    let taken = Taken { records: chosen.len(), is_cut: chosen.len() < rows.len() };
    if chosen.is_empty() {
        return Ok(taken);
    }
    let records: Vec<Vec<u8>> = sqlx::query_scalar("DELETE FROM outbox WHERE id = ANY($1) RETURNING delivery_ids")
        .bind(chosen)
        .fetch_all(&mut *transaction)
        .await?;
    let mut ids: Vec<DeliveryId> = records.iter().flat_map(|record| unpack(record)).collect();
    if !ids.is_empty() {
        waiting::anchor(transaction, &mut ids).await?;
    }
    Ok(taken)
}
