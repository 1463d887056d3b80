//! Idempotency keys of requests other than events: taken under a lease, answered later.

use std::time::Duration;

use signalpost_core::TenantId;
use signalpost_store::{
    ingest::StoredAnswer,
    manage::{Begun, IdempotencyKey},
};
use sqlx::{PgConnection, Row};

use crate::{
    error::Failure,
    ingest::claims::{answer, hash},
    queues::micros,
};

pub(super) async fn begin(
    transaction: &mut PgConnection,
    tenant: TenantId,
    key: &IdempotencyKey,
    lease: Duration,
) -> Result<Begun, Failure> {
    // Taken over: what is expired, and what was begun with the same body by somebody who did not come back in time.
    let ours = sqlx::query(
        "INSERT INTO idempotency AS c (tenant_id, scope, key, body_hash, status, answer, state, expires_at, lease_until)
         VALUES ($1, $2, $3, $4, 0, '', 0, statement_timestamp() + $5 * interval '1 microsecond',
                 statement_timestamp() + $6 * interval '1 microsecond')
         ON CONFLICT (tenant_id, scope, key) DO UPDATE SET
             body_hash = EXCLUDED.body_hash, status = 0, answer = '', state = 0,
             expires_at = EXCLUDED.expires_at, lease_until = EXCLUDED.lease_until
         WHERE c.expires_at <= statement_timestamp()
            OR (c.state = 0 AND c.lease_until <= statement_timestamp() AND c.body_hash = EXCLUDED.body_hash)",
    )
    .bind(tenant.uuid())
    .bind(&key.scope)
    .bind(&key.key)
    .bind(key.body_hash.as_slice())
    .bind(micros(key.ttl))
    .bind(micros(lease))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if ours > 0 {
        return Ok(Begun::First);
    }
    // The statement above has locked it, so it is there.
    let row = sqlx::query(
        "SELECT body_hash, status, answer, state FROM idempotency WHERE tenant_id = $1 AND scope = $2 AND key = $3",
    )
    .bind(tenant.uuid())
    .bind(&key.scope)
    .bind(&key.key)
    .fetch_one(transaction)
    .await?;
    Ok(match row.try_get::<i16, _>("state")? {
        _ if hash(&row)? != key.body_hash => Begun::Mismatch,
        1 => Begun::Answered(answer(&row)?),
        _ => Begun::InFlight,
    })
}

pub(super) async fn finish(
    transaction: &mut PgConnection,
    tenant: TenantId,
    key: &IdempotencyKey,
    answer: Option<&StoredAnswer>,
) -> Result<(), Failure> {
    let statement = match answer {
        Some(_) => {
            "UPDATE idempotency SET state = 1, status = $5, answer = $6, lease_until = NULL
             WHERE tenant_id = $1 AND scope = $2 AND key = $3 AND body_hash = $4 AND state = 0"
        }
        None => {
            "DELETE FROM idempotency
             WHERE tenant_id = $1 AND scope = $2 AND key = $3 AND body_hash = $4 AND state = 0"
        }
    };
    let query =
        sqlx::query(statement).bind(tenant.uuid()).bind(&key.scope).bind(&key.key).bind(key.body_hash.as_slice());
    let query = match answer {
        Some(answer) => query.bind(i32::from(answer.status)).bind(answer.body.as_ref()),
        None => query,
    };
    query.execute(transaction).await?;
    Ok(())
}
