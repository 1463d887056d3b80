//! API keys.

use rusqlite::{Connection, Row, params};
use signalpost_core::{ApiKey, KeyHash, KeyId, Scopes, TenantId, Timestamp};
use signalpost_store::{read::Page, tenants::Holder};

use crate::{
    columns::{id, key, maybe_time, time},
    failure::{Failure, Outcome},
    read::filter::Filter,
    tx::Tx,
};

/// The columns that [`api_key`] reads.
const KEY: &str = "k.id, k.tenant_id, k.hash, k.hint, k.name, k.scopes, k.created_at, k.expires_at, k.last_used_at";

/// A key, from nine columns from the first one on.
fn api_key(row: &Row<'_>) -> Outcome<ApiKey> {
    Ok(ApiKey {
        id: id(row, 0)?,
        tenant_id: id(row, 1)?,
        hash: KeyHash::from_bytes(row.get(2)?),
        hint: row.get(3)?,
        name: row.get(4)?,
        scopes: Scopes::from_bits(row.get(5)?),
        created_at: time(row, 6)?,
        expires_at: maybe_time(row, 7)?,
        last_used_at: maybe_time(row, 8)?,
    })
}

pub(super) fn holder(connection: &Connection, hash: &KeyHash, now: Timestamp) -> Outcome<Option<Holder>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {KEY}, {} FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
         WHERE k.hash = ?1 AND (k.expires_at IS NULL OR k.expires_at > ?2) AND t.deleting_at IS NULL",
        super::TENANT
    ))?;
    let mut rows = statement.query(params![hash.as_bytes(), now.as_micros()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Holder { key: api_key(row)?, tenant: super::tenant(row, 9)? }))
}

/// Adding the same again changes nothing.
pub(super) fn create(tx: &Tx<'_>, tenant: TenantId, new: &ApiKey) -> Outcome<bool> {
    if new.tenant_id != tenant {
        return Err(Failure::internal("a key is another tenant's"));
    }
    if !super::is_there(tx.connection, tenant)? {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO api_keys (id, tenant_id, hash, hint, name, scopes, created_at, expires_at, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        params![
            key(new.id),
            key(tenant),
            new.hash.as_bytes(),
            new.hint,
            new.name,
            new.scopes.bits(),
            new.created_at.as_micros(),
            new.expires_at.map(Timestamp::as_micros),
            new.last_used_at.map(Timestamp::as_micros)
        ],
    )?;
    Ok(true)
}

pub(super) fn list(connection: &Connection, tenant: TenantId, page: Page<KeyId>) -> Outcome<Vec<ApiKey>> {
    let mut filter = Filter::default();
    filter.blob("k.tenant_id = ?", key(tenant));
    let (sql, values) = filter.page("k.id", &page, page.limit);
    let mut statement = connection.prepare_cached(&format!("SELECT {KEY} FROM api_keys k {sql}"))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(api_key(row)?);
    }
    Ok(found)
}

pub(super) fn touch(tx: &Tx<'_>, used: &[(KeyId, Timestamp)]) -> Outcome<()> {
    let mut statement = tx.prepare(
        "UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)",
    )?;
    for (id, at) in used {
        statement.execute(params![key(*id), at.as_micros()])?;
    }
    Ok(())
}
