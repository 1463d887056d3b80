//! Tenants, their keys, the audit log, and what is encrypted.

mod audit;
mod keys;
mod sealing;
mod sweep;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use signalpost_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Destination, Kept, KeyHash, KeyId, Sealed, Tenant, TenantId, TenantSpec,
    Timestamp, tenant::Deleting,
};
use signalpost_store::{
    StoreError, TenantStore,
    manage::Created,
    read::Page,
    tenants::{AuditFilter, Holder, NewTenant, SealedRow, TenantCreated},
};

pub(crate) use self::{audit::prune, sweep::sweep};
use crate::{
    SqliteStore,
    columns::{id, key, maybe_time, time},
    destinations,
    failure::{Failure, Outcome},
    read::filter::Filter,
    tx::Tx,
};

/// So many destinations are deleted in one transaction.
const CHUNK: usize = 1_000;

#[async_trait]
impl TenantStore for SqliteStore {
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<Holder>, StoreError> {
        let (hash, now) = (*hash, self.now());
        self.read(move |connection| keys::holder(connection, &hash, now)).await
    }

    async fn tenant(&self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        self.read(move |connection| load(connection, id)).await
    }

    async fn list_tenants(&self, page: Page<TenantId>) -> Result<Vec<Tenant>, StoreError> {
        self.list(move |connection| {
            let mut filter = Filter::default();
            filter.raw("TRUE");
            let (sql, values) = filter.page("t.id", &page, page.limit);
            let mut statement = connection.prepare_cached(&format!("SELECT {TENANT} FROM tenants t {sql}"))?;
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(tenant(row, 0)?);
            }
            Ok(found)
        })
        .await
    }

    async fn create_tenant(&self, new: NewTenant<'_>) -> Result<TenantCreated, StoreError> {
        let (tenant, key, destination) = (new.tenant.clone(), new.key.clone(), new.destination.cloned());
        self.write(move |tx| create(tx, &tenant, &key, destination.as_ref())).await
    }

    async fn update_tenant(
        &self,
        id: TenantId,
        expected_version: u32,
        spec: &TenantSpec,
        ingest_secret: Option<&Sealed>,
    ) -> Result<Option<Tenant>, StoreError> {
        let (spec, secret) = (spec.clone(), ingest_secret.cloned());
        self.write(move |tx| update(tx, id, expected_version, &spec, secret.as_ref())).await
    }

    async fn delete_tenant(&self, id: TenantId) -> Result<bool, StoreError> {
        if !self.write(move |tx| begin_delete(tx, id)).await? {
            return Ok(false);
        }
        // Where this ends early, the sweep does the rest.
        while self.write(move |tx| delete_destinations(tx, id, CHUNK)).await? == CHUNK {}
        Ok(true)
    }

    async fn create_key(&self, tenant: TenantId, key: &ApiKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.write(move |tx| keys::create(tx, tenant, &key)).await
    }

    async fn list_keys(&self, tenant: TenantId, page: Page<KeyId>) -> Result<Vec<ApiKey>, StoreError> {
        self.list(move |connection| keys::list(connection, tenant, page)).await
    }

    async fn revoke_key(&self, tenant: TenantId, id: KeyId) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let sql = "DELETE FROM api_keys WHERE id = ?1 AND tenant_id = ?2";
            Ok(tx.execute(sql, params![key(id), key(tenant)])? > 0)
        })
        .await
    }

    async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        let used = used.to_vec();
        self.write(move |tx| keys::touch(tx, &used)).await
    }

    async fn count_destinations(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT count(*) FROM destinations WHERE tenant_id = ?1 AND state <> 'deleted'";
            Ok(count(connection.prepare_cached(sql)?.query_row([key(tenant)], |row| row.get(0))?))
        })
        .await
    }

    async fn begin_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.write(move |tx| audit::begin(tx, &entry)).await
    }

    async fn end_audit(
        &self,
        tenant: TenantId,
        id: AuditId,
        target: Option<&str>,
        outcome: &AuditOutcome,
    ) -> Result<(), StoreError> {
        let (target, outcome) = (target.map(str::to_owned), outcome.clone());
        self.write(move |tx| audit::end(tx, tenant, id, target.as_deref(), &outcome)).await
    }

    async fn list_audit(
        &self,
        tenant: TenantId,
        filter: &AuditFilter,
        page: Page<AuditId>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let filter = filter.clone();
        self.list(move |connection| audit::list(connection, tenant, &filter, page)).await
    }

    /// Always: no other process reads this file, and an older one that comes later refuses its schema.
    async fn is_sealed(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn mark_sealed(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn unsealed(
        &self,
        newest: &str,
        after: Option<SealedRow>,
        most: usize,
    ) -> Result<Vec<(SealedRow, TenantId, Kept)>, StoreError> {
        let newest = newest.to_owned();
        self.list(move |connection| sealing::unsealed(connection, &newest, after, most)).await
    }

    async fn count_unsealed(&self, newest: &str) -> Result<u64, StoreError> {
        let newest = newest.to_owned();
        self.list(move |connection| sealing::count_unsealed(connection, &newest)).await
    }

    async fn reseal(&self, row: SealedRow, old: &Kept, new: &Sealed) -> Result<bool, StoreError> {
        let (old, new) = (old.clone(), new.clone());
        self.write(move |tx| sealing::reseal(tx, row, &old, &new)).await
    }

    async fn sealing_keys(&self) -> Result<Vec<String>, StoreError> {
        self.list(sealing::keys).await
    }
}

/// The columns that [`tenant`] reads.
const TENANT: &str = "t.id, t.slug, t.name, t.spec, t.ingest_sealed, t.version, t.created_at, t.updated_at, \
                      t.deleting_at, t.deleted_rows";

/// A tenant, from ten columns from `first` on.
fn tenant(row: &Row<'_>, first: usize) -> Outcome<Tenant> {
    let spec = match row.get_ref(first + 3)?.as_str_or_null().map_err(Failure::internal)? {
        Some(spec) => serde_json::from_str(spec)?,
        None => TenantSpec { name: row.get(first + 2)?, ..TenantSpec::default() },
    };
    let created_at = time(row, first + 6)?;
    Ok(Tenant {
        id: id(row, first)?,
        slug: row.get(first + 1)?,
        spec,
        ingest_secret: sealed(row, first + 4)?,
        version: row.get(first + 5)?,
        created_at,
        updated_at: maybe_time(row, first + 7)?.unwrap_or(created_at),
        deleting: match maybe_time(row, first + 8)? {
            Some(since) => Some(Deleting { since, rows: count(row.get(first + 9)?) }),
            None => None,
        },
    })
}

/// What is sealed in a column, where there is something.
fn sealed(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Sealed>> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.map(|bytes| Sealed::new(bytes.into())))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn load(connection: &Connection, id: TenantId) -> Outcome<Option<Tenant>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {TENANT} FROM tenants t WHERE t.id = ?1"))?;
    let mut rows = statement.query([key(id)])?;
    rows.next()?.map(|row| tenant(row, 0)).transpose()
}

/// Whether there is such a tenant, and it is not being deleted.
pub(crate) fn is_there(connection: &Connection, tenant: TenantId) -> Outcome<bool> {
    let sql = "SELECT 1 FROM tenants WHERE id = ?1 AND deleting_at IS NULL";
    Ok(connection.prepare_cached(sql)?.exists([key(tenant)])?)
}

/// Creating the same again changes nothing.
fn create(tx: &Tx<'_>, new: &Tenant, first: &ApiKey, destination: Option<&Destination>) -> Outcome<TenantCreated> {
    let holder =
        tx.prepare("SELECT id FROM tenants WHERE slug = ?1")?.query_row([&new.slug], |row| id(row, 0)).optional()?;
    if let Some(holder) = holder {
        return Ok(if holder == new.id { TenantCreated::Yes } else { TenantCreated::SlugTaken });
    }
    tx.execute(
        "INSERT INTO tenants (id, slug, name, created_at, spec, ingest_sealed, ingest_sealed_by, version, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            key(new.id),
            new.slug,
            new.spec.name,
            new.created_at.as_micros(),
            serde_json::to_string(&new.spec)?,
            new.ingest_secret.as_ref().map(Sealed::as_bytes),
            new.ingest_secret.as_ref().and_then(Sealed::key_id),
            new.version,
            tx.now.as_micros()
        ],
    )?;
    keys::create(tx, new.id, first)?;
    if let Some(destination) = destination {
        if destination.tenant_id != new.id {
            return Err(Failure::internal("a tenant's first destination is another's"));
        }
        // A new tenant has no other whose uid it could be.
        if destinations::create(tx, destination)? != Created::Yes {
            return Err(Failure::internal("a new tenant has a destination"));
        }
    }
    Ok(TenantCreated::Yes)
}

fn update(
    tx: &Tx<'_>,
    id: TenantId,
    expected_version: u32,
    spec: &TenantSpec,
    secret: Option<&Sealed>,
) -> Outcome<Option<Tenant>> {
    let updated = tx.execute(
        "UPDATE tenants SET spec = ?3, name = ?4, ingest_sealed = ?5, ingest_sealed_by = ?6, version = version + 1,
             updated_at = ?7
         WHERE id = ?1 AND version = ?2 AND deleting_at IS NULL",
        params![
            key(id),
            expected_version,
            serde_json::to_string(spec)?,
            spec.name,
            secret.map(Sealed::as_bytes),
            secret.and_then(Sealed::key_id),
            tx.now.as_micros()
        ],
    )?;
    if updated == 0 { Ok(None) } else { load(tx.connection, id) }
}

/// Marks it. Its routing is at an end with that, so that is told, too.
fn begin_delete(tx: &Tx<'_>, id: TenantId) -> Outcome<bool> {
    if id == TenantId::DEFAULT {
        return Ok(false);
    }
    let marked = tx.execute(
        "UPDATE tenants SET deleting_at = ?2, updated_at = ?2, version = version + 1,
             routing_version = routing_version + 1
         WHERE id = ?1 AND deleting_at IS NULL",
        params![key(id), tx.now.as_micros()],
    )?;
    if marked > 0 {
        tx.routing_moved();
    }
    Ok(tx.prepare("SELECT 1 FROM tenants WHERE id = ?1")?.exists([key(id)])?)
}

/// Counts rows of a tenant that were removed because it is being deleted.
pub(crate) fn count_removed(tx: &Tx<'_>, tenant: TenantId, rows: usize) -> Outcome<()> {
    tx.execute(
        "UPDATE tenants SET deleted_rows = deleted_rows + ?2 WHERE id = ?1 AND deleting_at IS NOT NULL",
        params![key(tenant), i64::try_from(rows).unwrap_or(i64::MAX)],
    )?;
    Ok(())
}

/// Deletes up to so many destinations of a tenant, each as a change of it: how many.
fn delete_destinations(tx: &Tx<'_>, tenant: TenantId, most: usize) -> Outcome<usize> {
    let live = tx.rows(
        "SELECT id FROM destinations WHERE tenant_id = ?1 AND state <> 'deleted' ORDER BY id LIMIT ?2",
        params![key(tenant), i64::try_from(most).unwrap_or(i64::MAX)],
        |row| id(row, 0),
    )?;
    for destination in &live {
        destinations::delete(tx, tenant, *destination)?;
    }
    Ok(live.len())
}
