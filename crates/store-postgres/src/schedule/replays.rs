//! The steps of replay jobs.

use signalpost_core::{DeliveryId, Entropy, ReplayId, Timestamp};
use signalpost_store::{manage::ReplaySelection, schedule::OpenReplay};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::Failure,
    rows::{id, json, time},
    selection::Matching,
    waiting::{self, Newborn},
};

/// How many rows one step looks at before it lets others go on.
const MOST_LOOKED_AT: usize = 20_000;

/// How many rows are looked at in one statement, at least.
const CHUNK: usize = 1_000;

pub(super) async fn open(connection: &mut PgConnection) -> Result<Vec<OpenReplay>, Failure> {
    let rows = sqlx::query("SELECT id, tenant_id, rate_per_second FROM replays WHERE state = 'running' ORDER BY id")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(OpenReplay {
                id: id(row, "id")?,
                tenant_id: id(row, "tenant_id")?,
                rate_per_second: row.try_get("rate_per_second")?,
            })
        })
        .collect()
}

/// How far a job is.
struct Job {
    id: ReplayId,
    tenant: signalpost_core::TenantId,
    selection: ReplaySelection,
    asked_at: Timestamp,
    is_counted: bool,
    /// The last delivery looked at; the highest id of all when there are no more.
    deliveries: Uuid,
    events: Uuid,
}

impl Job {
    fn of(row: &PgRow) -> Result<Self, Failure> {
        Ok(Self {
            id: id(row, "id")?,
            tenant: id(row, "tenant_id")?,
            selection: json(row, "selection")?,
            asked_at: time(row, "asked_at")?,
            is_counted: row.try_get::<Option<i64>, _>("matched")?.is_some(),
            deliveries: row.try_get::<Option<Uuid>, _>("delivery_cursor")?.unwrap_or_default(),
            events: row.try_get::<Option<Uuid>, _>("event_cursor")?.unwrap_or_default(),
        })
    }
}

pub(super) async fn step(
    transaction: &mut PgConnection,
    replay: ReplayId,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<(usize, bool), Failure> {
    let row = sqlx::query(
        "SELECT id, tenant_id, selection::text AS selection, asked_at, matched, delivery_cursor, event_cursor,
                set_config('statement_timeout', '60s', true)
         FROM replays WHERE id = $1 AND state = 'running' FOR UPDATE SKIP LOCKED",
    )
    .bind(replay.uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok((0, false)) };
    let mut job = Job::of(&row)?;
    let selection = std::mem::take(&mut job.selection);
    let matching = Matching { tenant: job.tenant, selection: &selection, asked_at: job.asked_at };
    if !job.is_counted {
        let matched = matching.count(transaction, u64::MAX).await?;
        sqlx::query("UPDATE replays SET matched = $2 WHERE id = $1")
            .bind(job.id.uuid())
            .bind(i64::try_from(matched).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        return Ok((0, true));
    }
    let (newborn, is_last) = piece(transaction, &mut job, &matching, most, entropy).await?;
    let created = newborn.len();
    if matching.is_of_dead_letters() {
        let letters: Vec<DeliveryId> = newborn.iter().filter_map(|new| new.replay_of).collect();
        waiting::restore_events(transaction, &letters).await?;
    }
    waiting::replay(transaction, newborn).await?;
    sqlx::query(
        "UPDATE replays SET replayed = replayed + $2, delivery_cursor = $3, event_cursor = $4,
                state = CASE WHEN $5 THEN 'completed' ELSE state END,
                finished_at = CASE WHEN $5 THEN statement_timestamp() END
         WHERE id = $1",
    )
    .bind(job.id.uuid())
    .bind(i64::try_from(created).unwrap_or(i64::MAX))
    .bind(job.deliveries)
    .bind(job.events)
    .bind(is_last)
    .execute(&mut *transaction)
    .await?;
    Ok((created, !is_last))
}

/// Up to `most` new deliveries, and whether nothing is left after them.
async fn piece(
    transaction: &mut PgConnection,
    job: &mut Job,
    matching: &Matching<'_>,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<(Vec<Newborn>, bool), Failure> {
    let mut newborn = Vec::new();
    let mut looked_at = 0;
    while job.deliveries != Uuid::max() {
        if newborn.len() >= most || looked_at >= MOST_LOOKED_AT {
            return Ok((newborn, false));
        }
        let room = room(matching, most - newborn.len());
        looked_at += room;
        match matching.next_deliveries(transaction, job.deliveries, room).await? {
            None => job.deliveries = Uuid::max(),
            Some((ended, last)) => {
                job.deliveries = last;
                for old in ended {
                    if newborn.len() >= most {
                        // The rest of this chunk is looked at again.
                        break;
                    }
                    job.deliveries = if newborn.len() + 1 >= most { old.id.uuid() } else { last };
                    let mut new = Newborn::new(job.tenant, old.destination_id, old.event_id, old.event_type, entropy);
                    new.replay_of = Some(old.id);
                    newborn.push(new);
                }
            }
        }
    }
    let Some(destination) = matching.missing_for(transaction).await? else { return Ok((newborn, true)) };
    loop {
        if newborn.len() >= most || looked_at >= MOST_LOOKED_AT {
            return Ok((newborn, false));
        }
        let room = room(matching, most - newborn.len());
        looked_at += room;
        let Some((missing, last)) = matching.next_events(transaction, &destination, job.events, room).await? else {
            return Ok((newborn, true));
        };
        job.events = last;
        for (event_id, event_type) in missing {
            if newborn.len() >= most {
                break;
            }
            job.events = if newborn.len() + 1 >= most { event_id.uuid() } else { last };
            newborn.push(Newborn::new(job.tenant, destination.id, event_id, event_type, entropy));
        }
    }
}

/// How many rows to look at for so many that match: more where types are filtered afterwards.
fn room(matching: &Matching<'_>, wanted: usize) -> usize {
    if matching.selection.event_types.is_empty() && !matching.selection.missing { wanted } else { wanted.max(CHUNK) }
}
