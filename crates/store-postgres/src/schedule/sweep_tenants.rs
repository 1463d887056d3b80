//! Removes what belongs to tenants that are being deleted: chunks of rows, each in a transaction of its own.
//!
//! Two tables have no index that begins with the tenant, and both are small: `fan_outs` holds what is still to be expanded, and
//! `queues` has a row per destination. All others are read by index; where a table is partitioned, in all partitions.

use signalpost_core::{DeliveryId, DeliveryState, DestinationId, TenantId};
use signalpost_store::{StoreError, tenants::LATE};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    PostgresStore,
    error::Failure,
    lanes,
    queues::micros,
    rows::{id, optional_lane},
    tenants::{count_removed, delete_destinations},
    transaction::{read, transact},
};

/// What goes at once.
const AT_ONCE: [&str; 4] = [
    "DELETE FROM fan_outs WHERE event_id = ANY(ARRAY(
         SELECT event_id FROM fan_outs WHERE tenant_id = $1 ORDER BY event_id LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM replays WHERE id = ANY(ARRAY(
         SELECT id FROM replays WHERE tenant_id = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM api_keys WHERE id = ANY(ARRAY(
         SELECT id FROM api_keys WHERE tenant_id = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))",
    "DELETE FROM idempotency c USING (
         SELECT tenant_id, scope, key FROM idempotency WHERE tenant_id = $1 ORDER BY scope, key LIMIT $2
         FOR UPDATE SKIP LOCKED) i
     WHERE c.tenant_id = i.tenant_id AND c.scope = i.scope AND c.key = i.key",
];
const EVENTS: &str = "DELETE FROM events WHERE id = ANY(ARRAY(
    SELECT id FROM events WHERE tenant_id = $1 ORDER BY id LIMIT $2))";
const AUDIT: &str = "DELETE FROM audit_log WHERE id = ANY(ARRAY(
    SELECT id FROM audit_log WHERE tenant_id = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))";

/// A tenant that is being deleted.
struct Doomed {
    tenant: TenantId,
    /// Nothing more of it can come.
    is_over: bool,
}

pub(super) async fn sweep(store: &PostgresStore, most: usize) -> Result<usize, StoreError> {
    let mut left = most;
    for doomed in read!(store, main, |connection| doomed(connection))? {
        if left == 0 {
            break;
        }
        left -= sweep_one(store, &doomed, left).await?;
    }
    Ok(most - left)
}

async fn doomed(connection: &mut PgConnection) -> Result<Vec<Doomed>, Failure> {
    let rows = sqlx::query(
        "SELECT id, deleting_at <= statement_timestamp() - $1 * interval '1 microsecond' AS is_over
         FROM tenants WHERE deleting_at IS NOT NULL ORDER BY deleting_at, id",
    )
    .bind(micros(LATE))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(Doomed { tenant: id(row, "id")?, is_over: row.try_get("is_over")? })).collect()
}

async fn sweep_one(store: &PostgresStore, doomed: &Doomed, most: usize) -> Result<usize, StoreError> {
    let tenant = doomed.tenant;
    let mut left = most;
    left -= transact!(store, |transaction| delete_destinations(transaction, tenant, left))?;
    for statement in AT_ONCE {
        left -= transact!(store, |transaction| delete(transaction, statement, tenant, left))?;
    }
    // The sweep of destinations ends what is under way, and then removes them: until then nothing else goes.
    if left == 0 || read!(store, main, |connection| has_destinations(connection, tenant))? {
        return Ok(most - left);
    }
    left -= transact!(store, |transaction| letters(transaction, tenant, left))?;
    let (rows, more) = transact!(store, |transaction| deliveries(transaction, tenant, left))?;
    left = left.saturating_sub(rows);
    if left > 0 && !more {
        left -= transact!(store, |transaction| delete(transaction, EVENTS, tenant, left))?;
    }
    if left > 0 && doomed.is_over {
        left -= transact!(store, |transaction| delete(transaction, AUDIT, tenant, left))?;
        if left > 0 {
            left -= transact!(store, |transaction| end(transaction, tenant))?;
        }
    }
    Ok(most - left)
}

/// Runs one of the statements, and counts what it removed.
async fn delete(
    transaction: &mut PgConnection,
    statement: &'static str,
    tenant: TenantId,
    most: usize,
) -> Result<usize, Failure> {
    let removed = sqlx::query(statement)
        .bind(tenant.uuid())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    counted(transaction, tenant, removed).await
}

async fn counted(transaction: &mut PgConnection, tenant: TenantId, rows: u64) -> Result<usize, Failure> {
    if rows > 0 {
        count_removed(transaction, &[(tenant, i64::try_from(rows).unwrap_or(i64::MAX))]).await?;
    }
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

async fn has_destinations(connection: &mut PgConnection, tenant: TenantId) -> Result<bool, Failure> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM destinations WHERE tenant_id = $1)
             OR EXISTS (SELECT FROM queues WHERE tenant_id = $1)",
    )
    .bind(tenant.uuid())
    .fetch_one(connection)
    .await?)
}

/// Lanes of what ended after its destination was deleted may be blocked.
async fn letters(transaction: &mut PgConnection, tenant: TenantId, most: usize) -> Result<usize, Failure> {
    let rows = sqlx::query(
        "DELETE FROM dead_letters WHERE delivery_id = ANY(ARRAY(
             SELECT delivery_id FROM dead_letters WHERE tenant_id = $1 ORDER BY delivery_id LIMIT $2
             FOR UPDATE SKIP LOCKED))
         RETURNING delivery_id, destination_id, lane",
    )
    .bind(tenant.uuid())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(&mut *transaction)
    .await?;
    let mut blocking: Vec<(DestinationId, DeliveryId)> = Vec::new();
    for row in &rows {
        if optional_lane(row, "lane")?.is_some() {
            blocking.push((id(row, "destination_id")?, id(row, "delivery_id")?));
        }
    }
    lanes::release(transaction, &blocking).await?;
    counted(transaction, tenant, rows.len() as u64).await
}

/// Removes deliveries with their attempts: how many rows, and whether there may be more. One that waits was accepted a moment ago and
/// has a queue without a destination: it is cancelled first, by the sweep of destinations. Nobody looks for one that is on the bus.
async fn deliveries(transaction: &mut PgConnection, tenant: TenantId, most: usize) -> Result<(usize, bool), Failure> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM deliveries WHERE tenant_id = $1 AND state <> $3 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(tenant.uuid())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(DeliveryState::Waiting as i16)
    .fetch_all(&mut *transaction)
    .await?;
    let attempts = sqlx::query("DELETE FROM attempts WHERE delivery_id = ANY($1)")
        .bind(&ids)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    let deliveries =
        sqlx::query("DELETE FROM deliveries WHERE id = ANY($1)").bind(&ids).execute(&mut *transaction).await?;
    let rows = counted(transaction, tenant, attempts + deliveries.rows_affected()).await?;
    Ok((rows, ids.len() >= most))
}

/// The tenant itself, where nothing of it is left.
async fn end(transaction: &mut PgConnection, tenant: TenantId) -> Result<usize, Failure> {
    let removed = sqlx::query(
        "DELETE FROM tenants WHERE id = $1 AND deleting_at IS NOT NULL
             AND NOT EXISTS (SELECT FROM destinations WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM queues WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM fan_outs WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM replays WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM api_keys WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM idempotency WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM dead_letters WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM deliveries WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM events WHERE tenant_id = $1)
             AND NOT EXISTS (SELECT FROM audit_log WHERE tenant_id = $1)",
    )
    .bind(tenant.uuid())
    .execute(transaction)
    .await?
    .rows_affected();
    Ok(usize::try_from(removed).unwrap_or_default())
}
