//! The audit log.

use serde_json::Value;
use signalpost_core::{AuditEntry, AuditId, AuditOutcome, TenantId, Timestamp, id::AuditKind};
use signalpost_store::{read::Page, tenants::AuditFilter};
use sqlx::{PgConnection, QueryBuilder, Row, postgres::PgRow};

use crate::{
    error::Failure,
    ids::{first_at, push_accepted},
    read::push_page,
    rows::{id, optional_json},
};

pub(super) async fn begin(transaction: &mut PgConnection, entry: &AuditEntry) -> Result<(), Failure> {
    let outcome = entry.outcome.as_ref();
    sqlx::query(
        "INSERT INTO audit_log (id, tenant_id, actor, action, target, address, request_id, before, after, status)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb, $10) ON CONFLICT (id) DO NOTHING",
    )
    .bind(entry.id.uuid())
    .bind(entry.tenant_id.uuid())
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.target)
    .bind(entry.address.map(|address| address.to_string()))
    .bind(&entry.request_id)
    .bind(entry.before.as_ref().map(Value::to_string))
    .bind(outcome.and_then(|outcome| outcome.after.as_ref()).map(Value::to_string))
    .bind(outcome.map(|outcome| i32::from(outcome.status)))
    .execute(transaction)
    .await?;
    Ok(())
}

pub(super) async fn end(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: AuditId,
    target: Option<&str>,
    outcome: &AuditOutcome,
) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE audit_log SET target = COALESCE($3, target), status = $4, after = $5::jsonb
         WHERE id = $1 AND tenant_id = $2",
    )
    .bind(id.uuid())
    .bind(tenant.uuid())
    .bind(target)
    .bind(i32::from(outcome.status))
    .bind(outcome.after.as_ref().map(Value::to_string))
    .execute(transaction)
    .await?;
    Ok(())
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &AuditFilter,
    page: Page<AuditId>,
) -> Result<Vec<AuditEntry>, Failure> {
    let mut query = QueryBuilder::new(
        "SELECT id, tenant_id, actor, action, target, address, request_id, before::text AS before,
                after::text AS after, status FROM audit_log WHERE tenant_id = ",
    );
    query.push_bind(tenant.uuid());
    if let Some(actor) = &filter.actor {
        query.push(" AND actor = ").push_bind(actor);
    }
    if let Some(action) = &filter.action {
        query.push(" AND action = ").push_bind(action);
    }
    push_accepted::<AuditKind>(&mut query, "id", filter.since, filter.until);
    push_page(&mut query, "id", page);
    query.build().fetch_all(connection).await?.iter().map(entry).collect()
}

fn entry(row: &PgRow) -> Result<AuditEntry, Failure> {
    let address = row.try_get::<Option<&str>, _>("address")?.map(str::parse).transpose();
    let after = optional_json(row, "after")?;
    let outcome = row
        .try_get::<Option<i32>, _>("status")?
        .map(|status| AuditOutcome { status: u16::try_from(status).unwrap_or_default(), after });
    Ok(AuditEntry {
        id: id(row, "id")?,
        tenant_id: id(row, "tenant_id")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        address: address.map_err(|error| Failure::Inconsistent(format!("an address of the audit log: {error}")))?,
        request_id: row.try_get("request_id")?,
        before: optional_json(row, "before")?,
        outcome,
    })
}

/// Removes entries of before that time.
pub(crate) async fn prune(transaction: &mut PgConnection, before: Timestamp, most: usize) -> Result<usize, Failure> {
    let removed = sqlx::query(
        "DELETE FROM audit_log WHERE id = ANY(ARRAY(
             SELECT id FROM audit_log WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(first_at::<AuditKind>(before).uuid())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .execute(transaction)
    .await?
    .rows_affected();
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}
