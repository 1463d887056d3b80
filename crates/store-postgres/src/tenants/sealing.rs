//! What is encrypted, with which keys.
//!
//! What a row held before it was sealed again is not shown by any statement, but it is not gone: dead versions of the row stay in
//! the table's pages until they are vacuumed and used again, and the write-ahead log, replicas and backups keep it for as long as
//! they are kept. `VACUUM FULL destinations` rewrites the table; secrets that stood there in the clear are best rotated.

use signalpost_core::{DestinationSpec, Kept, Sealed, TenantId};
use signalpost_store::{secrets, tenants::SealedRow};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{error::Failure, rows::id};

/// Rows are read in the order of their ids, from where the last call stopped: all of them once, whatever is found.
pub(super) async fn unsealed(
    connection: &mut PgConnection,
    newest: &str,
    after: Option<SealedRow>,
    most: usize,
) -> Result<Vec<(SealedRow, TenantId, Kept)>, Failure> {
    // No id is nil.
    let (destinations, tenants) = match after {
        None => (Some(Uuid::nil()), Uuid::nil()),
        Some(SealedRow::Destination(after)) => (Some(after.uuid()), Uuid::nil()),
        Some(SealedRow::Ingest(after)) => (None, after.uuid()),
    };
    let mut found = Vec::new();
    if let Some(after) = destinations {
        let rows = sqlx::query(
            "SELECT id, tenant_id, spec::text AS spec, secret, sealed FROM destinations
             WHERE id > $1 AND sealed_by IS DISTINCT FROM $2 ORDER BY id LIMIT $3",
        )
        .bind(after)
        .bind(newest)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            found.push((SealedRow::Destination(id(row, "id")?), id(row, "tenant_id")?, kept(row)?.1));
        }
    }
    let rows = sqlx::query(
        "SELECT id, ingest_sealed FROM tenants
         WHERE id > $1 AND ingest_sealed IS NOT NULL AND ingest_sealed_by IS DISTINCT FROM $2 ORDER BY id LIMIT $3",
    )
    .bind(tenants)
    .bind(newest)
    .bind(i64::try_from(most - found.len()).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let tenant = id(row, "id")?;
        if let Some(sealed) = super::sealed(row, "ingest_sealed")? {
            found.push((SealedRow::Ingest(tenant), tenant, Kept::Sealed(sealed)));
        }
    }
    Ok(found)
}

fn kept(row: &PgRow) -> Result<(DestinationSpec, Kept), Failure> {
    secrets::read(row.try_get("spec")?, row.try_get("secret")?, row.try_get("sealed")?)
        .map_err(|error| Failure::Inconsistent(format!("a destination's spec: {error}")))
}

pub(super) async fn count_unsealed(connection: &mut PgConnection, newest: &str) -> Result<u64, Failure> {
    let count: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM destinations WHERE sealed_by IS DISTINCT FROM $1)
              + (SELECT count(*) FROM tenants WHERE ingest_sealed IS NOT NULL AND ingest_sealed_by IS DISTINCT FROM $1)",
    )
    .bind(newest)
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

pub(super) async fn reseal(
    transaction: &mut PgConnection,
    row: SealedRow,
    old: &Kept,
    new: &Sealed,
) -> Result<bool, Failure> {
    let changed = match (row, old) {
        (SealedRow::Destination(destination), _) => {
            let row =
                sqlx::query("SELECT spec::text AS spec, secret, sealed FROM destinations WHERE id = $1 FOR UPDATE")
                    .bind(destination.uuid())
                    .fetch_optional(&mut *transaction)
                    .await?;
            let Some(row) = row else { return Ok(false) };
            let (spec, found) = kept(&row)?;
            if found != *old {
                return Ok(false);
            }
            let kept = Kept::Sealed(new.clone());
            let columns = secrets::columns(&spec, &kept).map_err(|error| Failure::Inconsistent(error.to_string()))?;
            sqlx::query(
                "UPDATE destinations SET spec = $2::jsonb, secret = $3, sealed = $4, sealed_by = $5 WHERE id = $1",
            )
            .bind(destination.uuid())
            .bind(columns.spec)
            .bind(columns.secret)
            .bind(columns.sealed)
            .bind(columns.sealed_by)
            .execute(transaction)
            .await?
        }
        (SealedRow::Ingest(tenant), Kept::Sealed(old)) => {
            sqlx::query(
                "UPDATE tenants SET ingest_sealed = $3, ingest_sealed_by = $4 WHERE id = $1 AND ingest_sealed = $2",
            )
            .bind(tenant.uuid())
            .bind(old.as_bytes())
            .bind(new.as_bytes())
            .bind(new.key_id())
            .execute(transaction)
            .await?
        }
        (SealedRow::Ingest(_), Kept::Plain { .. }) => return Ok(false),
    };
    Ok(changed.rows_affected() > 0)
}
