//! The audit log.

use rusqlite::{Connection, Row, params};
use serde_json::Value;
use signalpost_core::{AuditEntry, AuditId, AuditOutcome, TenantId, Timestamp, id::AuditKind};
use signalpost_store::{read::Page, tenants::AuditFilter};

use crate::{
    columns::{first_at, id, key},
    failure::{Failure, Outcome},
    read::filter::Filter,
    tx::Tx,
};

/// Beginning the same again changes nothing.
pub(super) fn begin(tx: &Tx<'_>, entry: &AuditEntry) -> Outcome<()> {
    let outcome = entry.outcome.as_ref();
    tx.execute(
        "INSERT INTO audit_log (id, tenant_id, actor, action, target, address, request_id, before, after, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
        params![
            key(entry.id),
            key(entry.tenant_id),
            entry.actor,
            entry.action,
            entry.target,
            entry.address.map(|address| address.to_string()),
            entry.request_id,
            entry.before.as_ref().map(Value::to_string),
            outcome.and_then(|outcome| outcome.after.as_ref()).map(Value::to_string),
            outcome.map(|outcome| outcome.status)
        ],
    )?;
    Ok(())
}

pub(super) fn end(
    tx: &Tx<'_>,
    tenant: TenantId,
    id: AuditId,
    target: Option<&str>,
    outcome: &AuditOutcome,
) -> Outcome<()> {
    tx.execute(
        "UPDATE audit_log SET target = coalesce(?3, target), status = ?4, after = ?5 WHERE id = ?1 AND tenant_id = ?2",
        params![key(id), key(tenant), target, outcome.status, outcome.after.as_ref().map(Value::to_string)],
    )?;
    Ok(())
}

pub(super) fn list(
    connection: &Connection,
    tenant: TenantId,
    wanted: &AuditFilter,
    page: Page<AuditId>,
) -> Outcome<Vec<AuditEntry>> {
    let mut filter = Filter::default();
    filter.blob("tenant_id = ?", key(tenant));
    if let Some(actor) = &wanted.actor {
        filter.text("actor = ?", actor);
    }
    if let Some(action) = &wanted.action {
        filter.text("action = ?", action);
    }
    filter.created::<AuditKind>("id", wanted.since, wanted.until);
    let (sql, values) = filter.page("id", &page, page.limit);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, tenant_id, actor, action, target, address, request_id, before, after, status FROM audit_log {sql}"
    ))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(entry(row)?);
    }
    Ok(found)
}

fn entry(row: &Row<'_>) -> Outcome<AuditEntry> {
    let after = json(row, 8)?;
    Ok(AuditEntry {
        id: id(row, 0)?,
        tenant_id: id(row, 1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        address: row
            .get::<_, Option<String>>(5)?
            .map(|address| address.parse())
            .transpose()
            .map_err(Failure::internal)?,
        request_id: row.get(6)?,
        before: json(row, 7)?,
        outcome: row.get::<_, Option<u16>>(9)?.map(|status| AuditOutcome { status, after }),
    })
}

fn json(row: &Row<'_>, column: usize) -> Outcome<Option<Value>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(Failure::internal)?;
    Ok(text.map(serde_json::from_str).transpose()?)
}

/// Removes entries of before that time.
pub(crate) fn prune(tx: &Tx<'_>, before: Timestamp, most: usize) -> Outcome<usize> {
    tx.execute(
        "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE id < ?1 ORDER BY id LIMIT ?2)",
        params![key(first_at::<AuditKind>(before)), i64::try_from(most).unwrap_or(i64::MAX)],
    )
}
