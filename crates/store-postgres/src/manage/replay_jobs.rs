//! Replay jobs: made, counted and cancelled here; carried out by `schedule`.

use signalpost_core::{ReplayId, TenantId};
use signalpost_store::manage::{ReplayJob, ReplaySelection, ReplayState};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::{
    error::Failure,
    partitions,
    rows::{big_count, id, json, optional_time, time, to_json},
    selection::Matching,
    time::Time,
};

/// The columns of [`job`].
macro_rules! job_columns {
    () => {
        "id, tenant_id, selection::text AS selection, rate_per_second, state, matched, replayed, created_at, finished_at"
    };
}

pub(crate) use job_columns;

/// Of [`job_columns`].
pub(crate) fn job(row: &PgRow) -> Result<ReplayJob, Failure> {
    let state: &str = row.try_get("state")?;
    let state = [ReplayState::Running, ReplayState::Completed, ReplayState::Cancelled]
        .into_iter()
        .find(|known| name(*known) == state)
        .ok_or_else(|| Failure::Inconsistent(format!("{state} is no state of a replay job")))?;
    Ok(ReplayJob {
        id: id(row, "id")?,
        tenant_id: id(row, "tenant_id")?,
        selection: json(row, "selection")?,
        rate_per_second: row.try_get("rate_per_second")?,
        state,
        matched: row.try_get::<Option<i64>, _>("matched")?.map(|count| u64::try_from(count).unwrap_or_default()),
        replayed: big_count(row, "replayed")?,
        created_at: time(row, "created_at")?,
        finished_at: optional_time(row, "finished_at")?,
    })
}

const fn name(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Completed => "completed",
        ReplayState::Cancelled => "cancelled",
    }
}

pub(super) async fn create(transaction: &mut PgConnection, job: &ReplayJob) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO replays (id, tenant_id, selection, rate_per_second, state, matched, replayed, created_at, asked_at,
                              finished_at)
         VALUES ($1, $2, $3::jsonb, $4, $5, $6, $7, $8, clock_timestamp(), $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(job.id.uuid())
    .bind(job.tenant_id.uuid())
    .bind(to_json(&job.selection)?)
    .bind(job.rate_per_second)
    .bind(name(job.state))
    .bind(job.matched.map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
    .bind(i64::try_from(job.replayed).unwrap_or(i64::MAX))
    .bind(Time(job.created_at))
    .bind(job.finished_at.map(Time))
    .execute(transaction)
    .await?;
    Ok(())
}

pub(super) async fn count(
    connection: &mut PgConnection,
    tenant: TenantId,
    selection: &ReplaySelection,
    most: u64,
) -> Result<u64, Failure> {
    let asked_at = partitions::now(&mut *connection).await?;
    Matching { tenant, selection, asked_at }.count(connection, most).await
}

pub(super) async fn cancel(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: ReplayId,
) -> Result<Option<ReplayJob>, Failure> {
    let row = sqlx::query(concat!(
        "UPDATE replays SET finished_at = CASE WHEN state = 'running' THEN clock_timestamp() ELSE finished_at END,
                state = CASE WHEN state = 'running' THEN 'cancelled' ELSE state END
         WHERE id = $1 AND tenant_id = $2 RETURNING ",
        job_columns!()
    ))
    .bind(id.uuid())
    .bind(tenant.uuid())
    .fetch_optional(transaction)
    .await?;
    row.as_ref().map(job).transpose()
}
