//! Cleans up after deleted destinations.

use signalpost_core::{DeliveryState, TenantId, WaitReason};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    error::Failure,
    lanes::{LaneKey, Lanes},
    queues::QueueChanges,
    rows::{id, optional_lane},
    tenants::count_removed,
    waiting,
};

/// Cancels deliveries that wait for destinations which are deleted, or gone altogether; not those of which a request is
/// out.
pub(super) async fn cancel(transaction: &mut PgConnection, most: usize) -> Result<usize, Failure> {
    let mut ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT w.delivery_id
         FROM queues q LEFT JOIN destinations d ON d.id = q.destination_id
         CROSS JOIN LATERAL (
             SELECT delivery_id FROM waiting
             WHERE destination_id = q.destination_id AND (reason <> $2 OR due_at <= statement_timestamp()) LIMIT $1
         ) w
         WHERE q.blocked AND q.depth > 0 AND (d.id IS NULL OR d.state = 'deleted') LIMIT $1",
    )
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(WaitReason::InFlight as i16)
    .fetch_all(&mut *transaction)
    .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    ids.sort_unstable();
    let rows = sqlx::query(
        "UPDATE deliveries SET state = $2, ended_at = statement_timestamp()
         WHERE id = ANY($1) AND state = $3 RETURNING id, destination_id, lane",
    )
    .bind(ids)
    .bind(DeliveryState::Cancelled as i16)
    .bind(DeliveryState::Waiting as i16)
    .fetch_all(&mut *transaction)
    .await?;
    let (mut cancelled, mut left) = (Vec::<Uuid>::with_capacity(rows.len()), Vec::<LaneKey>::new());
    for row in &rows {
        cancelled.push(row.try_get("id")?);
        if let Some(lane) = optional_lane(row, "lane")? {
            left.push((id(row, "destination_id")?, lane));
        }
    }
    let mut lanes = Lanes::default();
    lanes.lock(transaction, left.iter().copied().collect()).await?;
    left.into_iter().for_each(|lane| lanes.ended(lane));
    let mut changes = QueueChanges::default();
    let count = waiting::leave(transaction, cancelled, &mut changes).await?;
    lanes.settle(transaction, false, &mut changes).await?;
    changes.apply(transaction).await?;
    Ok(count)
}

/// Removes deleted destinations of which nothing is left, with their queues. While something is on the bus they stay, so
/// that a dispatcher sees why not to send it. Nothing is `Queued` below the reconciler's mark, so only what came after is read.
pub(super) async fn remove(transaction: &mut PgConnection, most: usize) -> Result<usize, Failure> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT d.id FROM destinations d
         WHERE d.state = 'deleted'
           AND NOT EXISTS (SELECT FROM queues q WHERE q.destination_id = d.id AND q.depth > 0)
           AND NOT EXISTS (SELECT FROM deliveries l WHERE l.destination_id = d.id AND l.state = $1
                           AND l.id > (SELECT value::uuid FROM marks WHERE name = 'requeue_lost'))
         ORDER BY d.id LIMIT $2 FOR UPDATE OF d SKIP LOCKED",
    )
    .bind(DeliveryState::Queued as i16)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(&mut *transaction)
    .await?;
    // A queue that got something meanwhile stays, blocked and without its destination: it is swept like the others.
    let rows = sqlx::query(
        "WITH gone AS (
             DELETE FROM queues WHERE depth <= 0 AND blocked AND (destination_id = ANY($1)
                 OR NOT EXISTS (SELECT FROM destinations d WHERE d.id = queues.destination_id))
         ), forgotten AS (
             DELETE FROM failing WHERE destination_id = ANY($1)
         ), removed AS (
             DELETE FROM destinations WHERE id = ANY($1) RETURNING tenant_id
         )
         SELECT tenant_id, count(*) AS rows FROM removed GROUP BY tenant_id",
    )
    .bind(ids)
    .fetch_all(&mut *transaction)
    .await?;
    let removed: Vec<(TenantId, i64)> =
        rows.iter().map(|row| Ok((id(row, "tenant_id")?, row.try_get("rows")?))).collect::<Result<_, Failure>>()?;
    if !removed.is_empty() {
        count_removed(transaction, &removed).await?;
    }
    let removed: i64 = removed.iter().map(|(_, rows)| rows).sum();
    Ok(usize::try_from(removed).unwrap_or_default())
}
