//! Leases that change hands between the feed and a dispatcher.

use std::collections::HashMap;

use signalpost_core::{DeliveryId, Timestamp};
use signalpost_store::HANDOVER_LEASE;
use sqlx::PgConnection;

use crate::{
    error::Failure,
    ids::uuids,
    queues::{QueueChanges, micros},
    rows::{id, time},
    time::Time,
};

/// Moves the marks of leases that are still as they are named, and tells the new ones. Deliveries are locked first, as by everybody who writes one:
/// who writes several does not go through `waiting` in the order of their ids.
pub(super) async fn take_over(
    transaction: &mut PgConnection,
    leases: &[(DeliveryId, Timestamp)],
) -> Result<Vec<Option<Timestamp>>, Failure> {
    let mut ids = uuids(leases.iter().map(|(id, _)| *id));
    ids.sort_unstable();
    sqlx::query("SELECT FROM deliveries WHERE id = ANY($1) ORDER BY id FOR UPDATE")
        .bind(&ids)
        .execute(&mut *transaction)
        .await?;
    let rows = sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT w.delivery_id FROM waiting w
             JOIN unnest($1::uuid[], $2::timestamptz[]) AS i(delivery_id, due_at)
                  ON w.delivery_id = i.delivery_id AND w.due_at = i.due_at
             WHERE w.leased AND w.delivery_id = ANY($1) ORDER BY w.delivery_id FOR UPDATE OF w
         )
         UPDATE waiting w SET due_at = statement_timestamp() + $3 * interval '1 microsecond' FROM held h
         WHERE w.delivery_id = h.delivery_id
         RETURNING w.delivery_id, w.tenant_id, w.destination_id, w.due_at",
    )
    .bind(uuids(leases.iter().map(|(id, _)| *id)))
    .bind(leases.iter().map(|(_, mark)| Time(*mark)).collect::<Vec<_>>())
    .bind(micros(HANDOVER_LEASE))
    .fetch_all(&mut *transaction)
    .await?;
    let mut changes = QueueChanges::default();
    let mut taken = HashMap::<DeliveryId, Timestamp>::with_capacity(rows.len());
    for row in &rows {
        taken.insert(id(row, "delivery_id")?, time(row, "due_at")?);
        changes.due(id(row, "tenant_id")?, id(row, "destination_id")?, micros(HANDOVER_LEASE));
    }
    changes.apply(transaction).await?;
    // Named twice, it is one's.
    Ok(leases.iter().map(|(delivery, _)| taken.remove(delivery)).collect())
}
