//! API keys.

use std::collections::BTreeMap;

use signalpost_core::{ApiKey, KeyHash, KeyId, Scopes, TenantId, Timestamp};
use signalpost_store::{read::Page, tenants::Holder};
use sqlx::{PgConnection, QueryBuilder, Row, postgres::PgRow};

use super::tenant_columns;
use crate::{
    error::Failure,
    ids::uuids,
    read::push_page,
    rows::{id, optional_time, time},
    time::Time,
};

/// The columns of [`api_key`], of a table `k`.
macro_rules! key_columns {
    () => {
        "k.id, k.tenant_id, k.hash, k.hint, k.name, k.scopes, k.created_at, k.expires_at, k.last_used_at"
    };
}

/// Of [`key_columns`].
fn api_key(row: &PgRow) -> Result<ApiKey, Failure> {
    let hash: Vec<u8> = row.try_get("hash")?;
    let hash = hash.try_into().map_err(|_| Failure::Inconsistent("a key's hash has another length".to_owned()))?;
    let scopes: i32 = row.try_get("scopes")?;
    Ok(ApiKey {
        id: id(row, "id")?,
        tenant_id: id(row, "tenant_id")?,
        hash: KeyHash::from_bytes(hash),
        hint: row.try_get("hint")?,
        name: row.try_get("name")?,
        // Bits above the sixteenth mean nothing to this version.
        scopes: Scopes::from_bits(u16::try_from(scopes & 0xffff).unwrap_or_default()),
        created_at: time(row, "created_at")?,
        expires_at: optional_time(row, "expires_at")?,
        last_used_at: optional_time(row, "last_used_at")?,
    })
}

pub(super) async fn holder(connection: &mut PgConnection, hash: &KeyHash) -> Result<Option<Holder>, Failure> {
    let row = sqlx::query(concat!(
        "SELECT ",
        key_columns!(),
        ", ",
        tenant_columns!(),
        " FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
         WHERE k.hash = $1 AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp()) AND t.deleting_at IS NULL"
    ))
    .bind(hash.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Holder { key: api_key(&row)?, tenant: super::tenant(&row)? }))
}

/// Holds the tenant while it does, so that no deletion begins meanwhile.
pub(super) async fn create(transaction: &mut PgConnection, tenant: TenantId, key: &ApiKey) -> Result<bool, Failure> {
    if key.tenant_id != tenant {
        return Err(Failure::Inconsistent("a key is another tenant's".to_owned()));
    }
    let there = sqlx::query("SELECT FROM tenants WHERE id = $1 AND deleting_at IS NULL FOR SHARE")
        .bind(tenant.uuid())
        .fetch_optional(&mut *transaction)
        .await?;
    if there.is_none() {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO api_keys (id, tenant_id, hash, hint, name, scopes, created_at, expires_at, last_used_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(key.id.uuid())
    .bind(tenant.uuid())
    .bind(key.hash.as_bytes().as_slice())
    .bind(&key.hint)
    .bind(&key.name)
    .bind(i32::from(key.scopes.bits()))
    .bind(Time(key.created_at))
    .bind(key.expires_at.map(Time))
    .bind(key.last_used_at.map(Time))
    .execute(transaction)
    .await?;
    Ok(true)
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    page: Page<KeyId>,
) -> Result<Vec<ApiKey>, Failure> {
    let mut query = QueryBuilder::new(concat!("SELECT ", key_columns!(), " FROM api_keys k WHERE k.tenant_id = "));
    query.push_bind(tenant.uuid());
    push_page(&mut query, "k.id", page);
    query.build().fetch_all(connection).await?.iter().map(api_key).collect()
}

pub(super) async fn revoke(transaction: &mut PgConnection, tenant: TenantId, key: KeyId) -> Result<bool, Failure> {
    let revoked = sqlx::query("DELETE FROM api_keys WHERE id = $1 AND tenant_id = $2")
        .bind(key.uuid())
        .bind(tenant.uuid())
        .execute(transaction)
        .await?;
    Ok(revoked.rows_affected() > 0)
}

pub(super) async fn touch(transaction: &mut PgConnection, used: &[(KeyId, Timestamp)]) -> Result<(), Failure> {
    let mut latest = BTreeMap::<KeyId, Timestamp>::new();
    for (key, at) in used {
        let known = latest.entry(*key).or_insert(*at);
        *known = (*known).max(*at);
    }
    sqlx::query(
        "WITH held AS MATERIALIZED (SELECT id FROM api_keys WHERE id = ANY($1) ORDER BY id FOR UPDATE)
         UPDATE api_keys k SET last_used_at = i.at
         FROM held h, unnest($1::uuid[], $2::timestamptz[]) AS i(id, at)
         WHERE k.id = h.id AND i.id = h.id AND (k.last_used_at IS NULL OR k.last_used_at < i.at)",
    )
    .bind(uuids(latest.keys().copied()))
    .bind(latest.into_values().map(Time).collect::<Vec<_>>())
    .execute(transaction)
    .await?;
    Ok(())
}
