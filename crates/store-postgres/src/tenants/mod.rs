//! Tenants, their keys, the audit log, and what is encrypted.

mod audit;
mod deleting;
mod keys;
mod sealing;

use async_trait::async_trait;
use signalpost_core::{
    ApiKey, AuditEntry, AuditId, AuditOutcome, Kept, KeyHash, KeyId, Sealed, Tenant, TenantId, TenantSpec, Timestamp,
    id::Id, tenant::Deleting,
};
use signalpost_store::{
    StoreError, TenantStore,
    manage::Created,
    read::Page,
    tenants::{AuditFilter, Holder, NewTenant, SealedRow, TenantCreated},
};
use sqlx::{PgConnection, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

pub(crate) use self::{
    audit::prune,
    deleting::{count_removed, delete_destinations},
};
use crate::{
    PostgresStore,
    error::Failure,
    manage,
    read::push_page,
    rows::{big_count, count, id, optional_json, optional_time, time, to_json},
    time::Time,
    transaction::{read, transact},
};

#[async_trait]
impl TenantStore for PostgresStore {
    /// On the connections of ingest: it waits for no list.
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<Holder>, StoreError> {
        Ok(read!(self, hot, |connection| keys::holder(connection, hash))?)
    }

    async fn tenant(&self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        Ok(read!(self, reads, |connection| load(connection, id))?)
    }

    async fn list_tenants(&self, page: Page<TenantId>) -> Result<Vec<Tenant>, StoreError> {
        Ok(read!(self, reads, |connection| list(connection, page))?)
    }

    async fn create_tenant(&self, new: NewTenant<'_>) -> Result<TenantCreated, StoreError> {
        Ok(transact!(self, |transaction| create(transaction, new))?)
    }

    async fn update_tenant(
        &self,
        id: TenantId,
        expected_version: u32,
        spec: &TenantSpec,
        ingest_secret: Option<&Sealed>,
    ) -> Result<Option<Tenant>, StoreError> {
        Ok(transact!(self, |transaction| update(transaction, id, expected_version, spec, ingest_secret))?)
    }

    async fn delete_tenant(&self, id: TenantId) -> Result<bool, StoreError> {
        if id == TenantId::DEFAULT || !transact!(self, |transaction| deleting::begin(transaction, id))? {
            return Ok(false);
        }
        // Where this ends early, the sweep does the rest.
        let chunk = deleting::CHUNK;
        while transact!(self, |transaction| delete_destinations(transaction, id, chunk))? == chunk {}
        Ok(true)
    }

    async fn create_key(&self, tenant: TenantId, key: &ApiKey) -> Result<bool, StoreError> {
        Ok(transact!(self, |transaction| keys::create(transaction, tenant, key))?)
    }

    async fn list_keys(&self, tenant: TenantId, page: Page<KeyId>) -> Result<Vec<ApiKey>, StoreError> {
        Ok(read!(self, reads, |connection| keys::list(connection, tenant, page))?)
    }

    async fn revoke_key(&self, tenant: TenantId, id: KeyId) -> Result<bool, StoreError> {
        Ok(transact!(self, |transaction| keys::revoke(transaction, tenant, id))?)
    }

    async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| keys::touch(transaction, used))?)
    }

    async fn count_destinations(&self, tenant: TenantId) -> Result<u64, StoreError> {
        let count: i64 = read!(self, reads, |connection| sqlx::query_scalar(
            "SELECT count(*) FROM destinations WHERE tenant_id = $1 AND state <> 'deleted'"
        )
        .bind(tenant.uuid())
        .fetch_one(connection))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn begin_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| audit::begin(transaction, entry))?)
    }

    async fn end_audit(
        &self,
        tenant: TenantId,
        id: AuditId,
        target: Option<&str>,
        outcome: &AuditOutcome,
    ) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| audit::end(transaction, tenant, id, target, outcome))?)
    }

    async fn list_audit(
        &self,
        tenant: TenantId,
        filter: &AuditFilter,
        page: Page<AuditId>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(read!(self, reads, |connection| audit::list(connection, tenant, filter, page))?)
    }

    async fn is_sealed(&self) -> Result<bool, StoreError> {
        Ok(read!(self, reads, |connection| sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM marks WHERE name = 'secrets_sealed')"
        )
        .fetch_one(connection))?)
    }

    async fn mark_sealed(&self) -> Result<(), StoreError> {
        transact!(self, |transaction| sqlx::query(
            "INSERT INTO marks (name, value) VALUES ('secrets_sealed', '1') ON CONFLICT DO NOTHING"
        )
        .execute(transaction))?;
        Ok(())
    }

    async fn unsealed(
        &self,
        newest: &str,
        after: Option<SealedRow>,
        most: usize,
    ) -> Result<Vec<(SealedRow, TenantId, Kept)>, StoreError> {
        Ok(read!(self, reads, |connection| sealing::unsealed(connection, newest, after, most))?)
    }

    async fn count_unsealed(&self, newest: &str) -> Result<u64, StoreError> {
        Ok(read!(self, reads, |connection| sealing::count_unsealed(connection, newest))?)
    }

    async fn reseal(&self, row: SealedRow, old: &Kept, new: &Sealed) -> Result<bool, StoreError> {
        Ok(transact!(self, |transaction| sealing::reseal(transaction, row, old, new))?)
    }

    async fn sealing_keys(&self) -> Result<Vec<String>, StoreError> {
        Ok(read!(self, reads, |connection| sqlx::query_scalar(
            "SELECT sealed_by FROM destinations WHERE sealed_by IS NOT NULL
             UNION SELECT ingest_sealed_by FROM tenants WHERE ingest_sealed_by IS NOT NULL ORDER BY 1"
        )
        .fetch_all(connection))?)
    }
}

/// The columns of [`tenant`], of a table `t`.
macro_rules! tenant_columns {
    () => {
        "t.id AS tenant_id, t.slug, t.name AS tenant_name, t.spec::text AS spec, t.ingest_sealed, t.version, \
         t.created_at AS tenant_created_at, t.updated_at, t.deleting_at, t.deleted_rows"
    };
}
use tenant_columns;

/// Of [`tenant_columns`].
fn tenant(row: &PgRow) -> Result<Tenant, Failure> {
    let created_at = time(row, "tenant_created_at")?;
    let spec = match optional_json(row, "spec")? {
        Some(spec) => spec,
        None => TenantSpec { name: row.try_get("tenant_name")?, ..TenantSpec::default() },
    };
    let deleting = match optional_time(row, "deleting_at")? {
        Some(since) => Some(Deleting { since, rows: big_count(row, "deleted_rows")? }),
        None => None,
    };
    Ok(Tenant {
        id: id(row, "tenant_id")?,
        slug: row.try_get("slug")?,
        spec,
        ingest_secret: sealed(row, "ingest_sealed")?,
        version: count(row, "version")?,
        created_at,
        updated_at: optional_time(row, "updated_at")?.unwrap_or(created_at),
        deleting,
    })
}

/// Whether there is such a tenant, and it is not being deleted.
pub(crate) async fn is_there(connection: &mut PgConnection, tenant: TenantId) -> Result<bool, Failure> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM tenants WHERE id = $1 AND deleting_at IS NULL)")
        .bind(tenant.uuid())
        .fetch_one(connection)
        .await?)
}

/// What is sealed in a column, where there is something.
fn sealed(row: &PgRow, column: &str) -> Result<Option<Sealed>, Failure> {
    Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| Sealed::new(bytes.into())))
}

async fn load(connection: &mut PgConnection, id: TenantId) -> Result<Option<Tenant>, Failure> {
    let row = sqlx::query(concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE t.id = $1"))
        .bind(id.uuid())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(tenant).transpose()
}

async fn list(connection: &mut PgConnection, page: Page<TenantId>) -> Result<Vec<Tenant>, Failure> {
    let mut query = QueryBuilder::new(concat!("SELECT ", tenant_columns!(), " FROM tenants t WHERE true"));
    push_page(&mut query, "t.id", page);
    query.build().fetch_all(connection).await?.iter().map(tenant).collect()
}

async fn create(transaction: &mut PgConnection, new: NewTenant<'_>) -> Result<TenantCreated, Failure> {
    let NewTenant { tenant, key, destination } = new;
    let inserted = sqlx::query(
        "INSERT INTO tenants (id, slug, name, created_at, spec, ingest_sealed, ingest_sealed_by, version, updated_at)
         VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, clock_timestamp()) ON CONFLICT (slug) DO NOTHING",
    )
    .bind(tenant.id.uuid())
    .bind(&tenant.slug)
    .bind(&tenant.spec.name)
    .bind(Time(tenant.created_at))
    .bind(to_json(&tenant.spec)?)
    .bind(tenant.ingest_secret.as_ref().map(Sealed::as_bytes))
    .bind(tenant.ingest_secret.as_ref().and_then(Sealed::key_id))
    .bind(i32::try_from(tenant.version).unwrap_or(i32::MAX))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if inserted == 0 {
        let holder: Option<Uuid> = sqlx::query_scalar("SELECT id FROM tenants WHERE slug = $1")
            .bind(&tenant.slug)
            .fetch_optional(transaction)
            .await?;
        // An earlier try, of which nobody knew whether it was committed, was.
        let is_this = holder.map(Id::from_uuid) == Some(tenant.id);
        return Ok(if is_this { TenantCreated::Yes } else { TenantCreated::SlugTaken });
    }
    if let Some(destination) = destination {
        if destination.tenant_id != tenant.id {
            return Err(Failure::Inconsistent("a tenant's first destination is another's".to_owned()));
        }
        // A new tenant has no other whose uid it could be.
        if manage::destinations::create(transaction, destination).await? != Created::Yes {
            return Err(Failure::Inconsistent("a new tenant has a destination".to_owned()));
        }
    }
    keys::create(transaction, tenant.id, key).await?;
    Ok(TenantCreated::Yes)
}

async fn update(
    transaction: &mut PgConnection,
    id: TenantId,
    expected_version: u32,
    spec: &TenantSpec,
    secret: Option<&Sealed>,
) -> Result<Option<Tenant>, Failure> {
    let row = sqlx::query(concat!(
        "UPDATE tenants t SET spec = $3::jsonb, name = $4, ingest_sealed = $5, ingest_sealed_by = $6,
                version = version + 1, updated_at = clock_timestamp()
         WHERE id = $1 AND version = $2 AND deleting_at IS NULL RETURNING ",
        tenant_columns!()
    ))
    .bind(id.uuid())
    .bind(i64::from(expected_version))
    .bind(to_json(spec)?)
    .bind(&spec.name)
    .bind(secret.map(Sealed::as_bytes))
    .bind(secret.and_then(Sealed::key_id))
    .fetch_optional(transaction)
    .await?;
    row.as_ref().map(tenant).transpose()
}
