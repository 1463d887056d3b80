//! Destinations.

use signalpost_core::{
    Destination, DestinationId, DestinationSpec, DestinationState, Kept, TenantId,
    id::Id,
    ordering::{OnDead, OrderingMode},
};
use signalpost_store::{
    manage::{Created, DestinationUpdate},
    secrets::{self, SecretColumns},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Bumped, bump};
use crate::{
    error::Failure,
    failing, holds, lanes,
    rows::{self, destination_columns},
    tenants,
    time::Time,
};

/// What the feed may take of it at once: two seconds of its rate.
fn feed_limit(spec: &DestinationSpec) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "a rate is at most 100,000 per second")]
    spec.rate_limit.map(|limit| (2.0 * limit.per_second).ceil().max(1.0) as i64)
}

fn secret_columns<'a>(spec: &DestinationSpec, kept: &'a Kept) -> Result<SecretColumns<'a>, Failure> {
    secrets::columns(spec, kept).map_err(|error| Failure::Sql(sqlx::Error::Encode(error.into())))
}

pub(crate) async fn create(transaction: &mut PgConnection, destination: &Destination) -> Result<Created, Failure> {
    let blocked = destination.state != DestinationState::Active;
    let columns = secret_columns(&destination.spec, &destination.secrets)?;
    let inserted: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO destinations (id, tenant_id, uid, spec, secret, state, disabled_reason, version, feed_limit,
                                   created_at, updated_at, sealed, sealed_by)
         VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, $8, $9, $10, clock_timestamp(), $11, $12)
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(destination.id.uuid())
    .bind(destination.tenant_id.uuid())
    .bind(&destination.uid)
    .bind(columns.spec)
    .bind(columns.secret)
    .bind(destination.state.as_str())
    .bind(&destination.disabled_reason)
    .bind(i64::from(destination.version))
    .bind(feed_limit(&destination.spec))
    .bind(Time(destination.created_at))
    .bind(columns.sealed)
    .bind(columns.sealed_by)
    .fetch_optional(&mut *transaction)
    .await?;
    if inserted.is_some() {
        // Born with it, so that blocking and opening a queue always find it.
        sqlx::query(
            "INSERT INTO queues (destination_id, tenant_id, depth, next_due, blocked, spilled)
             VALUES ($1, $2, 0, 'infinity', $3, false)
             ON CONFLICT (destination_id) DO UPDATE SET blocked = EXCLUDED.blocked",
        )
        .bind(destination.id.uuid())
        .bind(destination.tenant_id.uuid())
        .bind(blocked)
        .execute(&mut *transaction)
        .await?;
        bump(transaction, destination.tenant_id, Bumped::Changed).await?;
        // The tenant is locked now: nobody begins to delete it before this is committed.
        if !tenants::is_there(transaction, destination.tenant_id).await? {
            return Err(Failure::Refused(format!("there is no tenant {}", destination.tenant_id)));
        }
        return Ok(Created::Yes);
    }
    let owner: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM destinations
         WHERE tenant_id = $1 AND (id = $2 OR (uid = $3 AND state <> 'deleted')) ORDER BY id = $2 DESC LIMIT 1",
    )
    .bind(destination.tenant_id.uuid())
    .bind(destination.id.uuid())
    .bind(&destination.uid)
    .fetch_optional(transaction)
    .await?;
    match owner.map(Id::from_uuid) {
        // An earlier try, of which nobody knew whether it was committed.
        Some(owner) if owner == destination.id => Ok(Created::Yes),
        Some(owner) => Ok(Created::UidTaken(owner)),
        None => Err(Failure::Inconsistent(format!("{} is neither new nor there", destination.id))),
    }
}

pub(super) async fn update(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: DestinationId,
    expected_version: u32,
    update: DestinationUpdate<'_>,
) -> Result<Option<Destination>, Failure> {
    let columns = secret_columns(update.spec, update.secrets)?;
    let row = sqlx::query(concat!(
        "UPDATE destinations SET spec = $4::jsonb, secret = $5, feed_limit = $6, version = version + 1,
                updated_at = clock_timestamp(), sealed = $7, sealed_by = $8
         WHERE id = $1 AND tenant_id = $2 AND version = $3 AND state <> 'deleted' RETURNING ",
        destination_columns!()
    ))
    .bind(id.uuid())
    .bind(tenant.uuid())
    .bind(i64::from(expected_version))
    .bind(columns.spec)
    .bind(columns.secret)
    .bind(feed_limit(update.spec))
    .bind(columns.sealed)
    .bind(columns.sealed_by)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !blocks(update.spec) {
        lanes::release_all(transaction, &[id]).await?;
    }
    // It may be another receiver now: what was held for the one before is tried.
    holds::release_held(transaction, id).await?;
    bump(transaction, tenant, Bumped::Changed).await?;
    rows::destination(&row).map(Some)
}

/// Whether a dead letter blocks its lane.
fn blocks(spec: &DestinationSpec) -> bool {
    spec.ordering.mode == OrderingMode::Key && spec.ordering.on_dead == OnDead::Block
}

pub(super) async fn set_paused(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: DestinationId,
    paused: bool,
) -> Result<Option<Destination>, Failure> {
    let (from, to, bumped): (&[DestinationState], _, _) = if paused {
        (&[DestinationState::Active], DestinationState::Paused, Bumped::Blocked(id))
    } else {
        (&[DestinationState::Paused, DestinationState::Disabled], DestinationState::Active, Bumped::Open(id))
    };
    let changed = sqlx::query(concat!(
        "UPDATE destinations SET state = $3, disabled_reason = NULL, version = version + 1, updated_at = clock_timestamp()
         WHERE id = $1 AND tenant_id = $2
           AND (state = ANY($4) OR ($5 AND state = 'active' AND circuit ->> 'state' <> 'closed')) RETURNING ",
        destination_columns!()
    ))
    .bind(id.uuid())
    .bind(tenant.uuid())
    .bind(to.as_str())
    .bind(from.iter().map(|state| state.as_str()).collect::<Vec<_>>())
    .bind(!paused)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(row) = changed {
        bump(transaction, tenant, bumped).await?;
        if !paused {
            failing::forget(transaction, &[id]).await?;
        }
        return rows::destination(&row).map(Some);
    }
    let row = sqlx::query(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted'"
    ))
    .bind(id.uuid())
    .bind(tenant.uuid())
    .fetch_optional(transaction)
    .await?;
    row.as_ref().map(rows::destination).transpose()
}

pub(super) async fn delete(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: DestinationId,
) -> Result<bool, Failure> {
    let changed = sqlx::query(
        "UPDATE destinations SET state = 'deleted', version = version + 1, updated_at = clock_timestamp()
         WHERE id = $1 AND tenant_id = $2 AND state <> 'deleted'",
    )
    .bind(id.uuid())
    .bind(tenant.uuid())
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if changed > 0 {
        // Nobody waits for its dead letters any more.
        lanes::release_all(transaction, &[id]).await?;
        bump(transaction, tenant, Bumped::Blocked(id)).await?;
        failing::forget(transaction, &[id]).await?;
    }
    Ok(changed > 0)
}
