//! Replay jobs. What a job selects is walked through in the order of keys, in bounded pages, so that neither counting
//! nor creating holds the writer for long.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use signalpost_core::{ReplayId, TenantId, Timestamp};
use signalpost_store::{
    StoreError,
    manage::{ReplayJob, ReplayState},
    pace::Pace,
    schedule::OpenReplay,
};

use crate::{
    SqliteStore,
    columns::{self, id, key},
    failure::{Failure, Outcome},
    selection::{Cursor, Walk},
    tx::Tx,
};

/// How many rows one page looks at.
const PAGE: usize = 5_000;

const JOB: &str = "id, tenant_id, selection, rate_per_second, state, matched, replayed, created_at, finished_at";

fn state_name(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Running => "running",
        ReplayState::Completed => "completed",
        ReplayState::Cancelled => "cancelled",
    }
}

fn job(row: &Row<'_>) -> Outcome<ReplayJob> {
    let state: String = row.get(4)?;
    let state = [ReplayState::Running, ReplayState::Completed, ReplayState::Cancelled]
        .into_iter()
        .find(|known| state_name(*known) == state)
        .ok_or_else(|| Failure::internal(format!("replay state {state:?}")))?;
    let count = |column| Ok::<_, Failure>(row.get::<_, Option<i64>>(column)?.and_then(|n| u64::try_from(n).ok()));
    Ok(ReplayJob {
        id: id(row, 0)?,
        tenant_id: id(row, 1)?,
        selection: serde_json::from_str(row.get_ref(2)?.as_str().map_err(Failure::internal)?)?,
        rate_per_second: row.get(3)?,
        state,
        matched: count(5)?,
        replayed: count(6)?.unwrap_or(0),
        created_at: columns::time(row, 7)?,
        finished_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_micros),
    })
}

/// One job of a tenant.
pub(crate) fn load(connection: &Connection, tenant: TenantId, replay: ReplayId) -> Outcome<Option<ReplayJob>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {JOB} FROM replays WHERE id = ?1 AND tenant_id = ?2"))?;
    let mut rows = statement.query(params![key(replay), key(tenant)])?;
    rows.next()?.map(job).transpose()
}

/// Jobs of a tenant, with a condition on and an order of `id`.
pub(crate) fn list(connection: &Connection, sql: &str, params: &[rusqlite::types::Value]) -> Outcome<Vec<ReplayJob>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {JOB} FROM replays {sql}"))?;
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(job(row)?);
    }
    Ok(jobs)
}

/// Keeps a new job. Keeping the same again changes nothing.
pub(crate) fn create(tx: &Tx<'_>, job: &ReplayJob) -> Outcome<()> {
    tx.execute(
        "INSERT INTO replays (id, tenant_id, selection, rate_per_second, state, matched, replayed, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
        params![
            key(job.id),
            key(job.tenant_id),
            serde_json::to_string(&job.selection)?,
            job.rate_per_second,
            state_name(job.state),
            job.matched.map(|matched| i64::try_from(matched).unwrap_or(i64::MAX)),
            i64::try_from(job.replayed).unwrap_or(i64::MAX),
            job.created_at.as_micros()
        ],
    )?;
    Ok(())
}

/// The jobs that may go on, oldest first.
pub(crate) fn open(connection: &Connection, now: Timestamp) -> Outcome<Vec<OpenReplay>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, tenant_id, rate_per_second FROM replays
         WHERE state = 'running' AND coalesce(paced_until <= ?1, 1) ORDER BY id",
    )?;
    let rows = statement.query_map([now.as_micros()], |row| {
        Ok(OpenReplay { id: id(row, 0)?, tenant_id: id(row, 1)?, rate_per_second: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl SqliteStore {
    /// Counts what a selection matches, up to `most`: one read per page, so that a large one is no long read.
    pub(crate) async fn count_matches(&self, walk: Walk, most: u64) -> Result<u64, StoreError> {
        let mut cursor = Some(Cursor::default());
        let mut matched = 0;
        while let Some(from) = cursor.filter(|_| matched < most) {
            let walk = walk.clone();
            let page = self.list(move |connection| walk.page(connection, from, usize::MAX, PAGE)).await?;
            matched += page.matches.len() as u64;
            cursor = page.next;
        }
        Ok(matched.min(most))
    }

    /// The next piece of a job.
    pub(crate) async fn step(&self, replay: ReplayId, most: usize) -> Result<(usize, bool), StoreError> {
        let found = self
            .read(move |connection| {
                let tenant = connection
                    .prepare_cached("SELECT tenant_id FROM replays WHERE id = ?1 AND state = 'running'")?
                    .query_row([key(replay)], |row| id(row, 0))
                    .optional()?;
                tenant.map_or(Ok(None), |tenant| load(connection, tenant, replay))
            })
            .await?;
        let Some(job) = found else { return Ok((0, false)) };
        let walk = Walk::of_job(&job);
        if job.matched.is_none() {
            // Two that count at once do it twice, and write the same. One that was cancelled meanwhile stays as it is.
            let matched = self.count_matches(walk, u64::MAX).await?;
            return self
                .write(move |tx| {
                    tx.execute(
                        "UPDATE replays SET matched = ?2 WHERE id = ?1 AND matched IS NULL AND state = 'running'",
                        params![key(replay), i64::try_from(matched).unwrap_or(i64::MAX)],
                    )?;
                    Ok((0, is_running(tx, replay)?))
                })
                .await;
        }
        self.write(move |tx| create_next(tx, replay, &walk, most)).await
    }
}

fn is_running(tx: &Tx<'_>, replay: ReplayId) -> Outcome<bool> {
    let running = tx.row("SELECT 1 FROM replays WHERE id = ?1 AND state = 'running'", [key(replay)], |_| Ok(()))?;
    Ok(running.is_some())
}

fn create_next(tx: &Tx<'_>, replay: ReplayId, walk: &Walk, most: usize) -> Outcome<(usize, bool)> {
    // Read here, not before: another may have made a step since.
    let job = tx.row(
        "SELECT cursor, rate_per_second, paced_until FROM replays WHERE id = ?1 AND state = 'running'",
        [key(replay)],
        |row| {
            let paced_until = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
            let pace = row.get::<_, Option<f64>>(1)?.map(|rate| Pace::new(rate, paced_until, tx.now));
            Ok((row.get::<_, Option<Vec<u8>>>(0)?, pace))
        },
    )?;
    let Some((cursor, pace)) = job else { return Ok((0, false)) };
    let most = pace.map_or(most, |pace| pace.allowed().min(most));
    if most == 0 {
        return Ok((0, true));
    }
    let cursor = cursor.map_or_else(|| Ok(Cursor::default()), |bytes| Cursor::from_bytes(&bytes))?;
    let page = walk.page(tx.connection, cursor, most, PAGE)?;
    let mut created = 0;
    for found in &page.matches {
        if let Some(old) = found.replay_of
            && !tx.revive_event(found.event_id, old)?
        {
            continue;
        }
        tx.give_birth(walk.tenant, found.event_id, found.destination_id, found.replay_of)?;
        created += 1;
    }
    let state = if page.next.is_some() { ReplayState::Running } else { ReplayState::Completed };
    tx.execute(
        "UPDATE replays SET replayed = replayed + ?2, cursor = ?3, state = ?4, finished_at = ?5, paced_until = ?6
         WHERE id = ?1",
        params![
            key(replay),
            i64::try_from(created).unwrap_or(i64::MAX),
            page.next.map(Cursor::to_bytes),
            state_name(state),
            (state == ReplayState::Completed).then_some(tx.now.as_micros()),
            pace.map(|pace| pace.after(created).as_micros())
        ],
    )?;
    Ok((created, page.next.is_some()))
}
