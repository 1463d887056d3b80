//! How the deletion of a tenant begins. What follows is `schedule::sweep_tenants`.

use signalpost_core::{DestinationId, TenantId, id::Id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    changes,
    error::Failure,
    failing,
    ids::uuids,
    lanes,
    manage::{self, Bumped},
};

/// So many destinations are deleted in one transaction.
pub(super) const CHUNK: usize = 500;

/// Marks it, and tells that its routing is at an end. False where there is no such tenant.
pub(super) async fn begin(transaction: &mut PgConnection, tenant: TenantId) -> Result<bool, Failure> {
    sqlx::query(
        "WITH marked AS (
             UPDATE tenants SET deleting_at = clock_timestamp(), updated_at = clock_timestamp(), version = version + 1,
                    routing_version = routing_version + 1
             WHERE id = $1 AND deleting_at IS NULL RETURNING id
         )
         SELECT pg_notify($2, id::text) FROM marked",
    )
    .bind(tenant.uuid())
    .bind(changes::CHANNEL)
    .execute(&mut *transaction)
    .await?;
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM tenants WHERE id = $1)")
        .bind(tenant.uuid())
        .fetch_one(transaction)
        .await?)
}

/// Deletes up to so many destinations of a tenant, each as a change of it: how many.
pub(crate) async fn delete_destinations(
    transaction: &mut PgConnection,
    tenant: TenantId,
    most: usize,
) -> Result<usize, Failure> {
    let mut deleted: Vec<Uuid> = sqlx::query_scalar(
        "WITH live AS MATERIALIZED (
             SELECT id FROM destinations WHERE tenant_id = $1 AND state <> 'deleted' ORDER BY id LIMIT $2 FOR UPDATE
         )
         UPDATE destinations d SET state = 'deleted', version = version + 1, updated_at = clock_timestamp()
         FROM live l WHERE d.id = l.id RETURNING d.id",
    )
    .bind(tenant.uuid())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(&mut *transaction)
    .await?;
    if deleted.is_empty() {
        return Ok(0);
    }
    deleted.sort_unstable();
    let deleted: Vec<DestinationId> = deleted.into_iter().map(Id::from_uuid).collect();
    // Nobody waits for their dead letters any more.
    lanes::release_all(transaction, &deleted).await?;
    sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT destination_id FROM queues WHERE destination_id = ANY($1) ORDER BY destination_id FOR UPDATE
         )
         UPDATE queues q SET blocked = true FROM held h WHERE q.destination_id = h.destination_id",
    )
    .bind(uuids(deleted.iter().copied()))
    .execute(&mut *transaction)
    .await?;
    manage::bump(transaction, tenant, Bumped::Changed).await?;
    failing::forget(transaction, &deleted).await?;
    Ok(deleted.len())
}

/// Counts rows of tenants that were removed because the tenants are being deleted.
pub(crate) async fn count_removed(transaction: &mut PgConnection, removed: &[(TenantId, i64)]) -> Result<(), Failure> {
    sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT id FROM tenants WHERE id = ANY($1) AND deleting_at IS NOT NULL ORDER BY id FOR UPDATE
         )
         UPDATE tenants t SET deleted_rows = t.deleted_rows + i.rows
         FROM held h, unnest($1::uuid[], $2::bigint[]) AS i(id, rows) WHERE t.id = h.id AND i.id = h.id",
    )
    .bind(uuids(removed.iter().map(|(tenant, _)| *tenant)))
    .bind(removed.iter().map(|(_, rows)| *rows).collect::<Vec<_>>())
    .execute(transaction)
    .await?;
    Ok(())
}
