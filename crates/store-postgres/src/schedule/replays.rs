//! The steps of replay jobs.
//!
//! Who takes a step has not locked the job's row: finding what it matches may take long, and who cancels the job does not wait for
//! that. The row is written last, on the condition that the job still runs and is where the step found it; else all of
//! the step is rolled back. An advisory lock keeps a second process from doing the same work in vain: economy alone.

use signalpost_core::{
    DeliveryId, Destination, Entropy, EventId, ReplayId, TenantId, Timestamp, ordering::OrderingMode,
};
use signalpost_store::{manage::ReplaySelection, pace::Pace, schedule::OpenReplay};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    due,
    error::Failure,
    rows::{id, json, optional_time, time},
    selection::{Ended, Matching},
    time::Time,
    waiting::{self, Newborn},
};

/// Those who work on jobs, each under the hash of the job's id.
const LOCKS: i32 = 0x5349_4752;

/// How many rows one step looks at before it lets others go on.
const MOST_LOOKED_AT: usize = 20_000;

/// How many rows are looked at in one statement, at least.
const CHUNK: usize = 1_000;

/// How many matches one statement counts, before types are looked at.
const COUNTED_AT_ONCE: usize = 20_000;

/// How many such statements a step makes: of a small job all that there are.
const COUNTS_AT_ONCE: usize = 4;

pub(super) async fn open(connection: &mut PgConnection) -> Result<Vec<OpenReplay>, Failure> {
    let rows = sqlx::query(
        "SELECT id, tenant_id, rate_per_second FROM replays
         WHERE state = 'running' AND COALESCE(paced_until <= statement_timestamp(), true) ORDER BY id",
    )
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
    tenant: TenantId,
    asked_at: Timestamp,
    is_counted: bool,
    pace: Option<Pace>,
    /// The last delivery looked at, by the count or by the pieces; the highest id of all when there are no more.
    deliveries: Uuid,
    events: Uuid,
}

impl Job {
    fn of(row: &PgRow) -> Result<Self, Failure> {
        let (paced_until, now) = (optional_time(row, "paced_until")?, time(row, "now")?);
        let rate: Option<f64> = row.try_get("rate_per_second")?;
        Ok(Self {
            id: id(row, "id")?,
            tenant: id(row, "tenant_id")?,
            asked_at: time(row, "asked_at")?,
            is_counted: row.try_get("is_counted")?,
            pace: rate.map(|rate| Pace::new(rate, paced_until, now)),
            deliveries: row.try_get("delivery_cursor")?,
            events: row.try_get("event_cursor")?,
        })
    }
}

pub(super) async fn step(
    transaction: &mut PgConnection,
    replay: ReplayId,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<(usize, bool), Failure> {
    let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, hashtext($2))")
        .bind(LOCKS)
        .bind(replay.uuid().to_string())
        .fetch_one(&mut *transaction)
        .await?;
    if !mine {
        return Ok((0, false));
    }
    let row = sqlx::query(
        "SELECT id, tenant_id, selection::text AS selection, asked_at, rate_per_second, paced_until,
                statement_timestamp() AS now, matched IS NOT NULL AS is_counted,
                COALESCE(CASE WHEN matched IS NULL THEN counted_delivery ELSE delivery_cursor END, $2) AS delivery_cursor,
                COALESCE(CASE WHEN matched IS NULL THEN counted_event ELSE event_cursor END, $2) AS event_cursor,
                set_config('statement_timeout', '60s', true)
         FROM replays WHERE id = $1 AND state = 'running'",
    )
    .bind(replay.uuid())
    .bind(Uuid::nil())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok((0, false)) };
    let job = Job::of(&row)?;
    let selection: ReplaySelection = json(&row, "selection")?;
    let matching = Matching { tenant: job.tenant, selection: &selection, asked_at: job.asked_at };
    if !job.is_counted {
        return count(transaction, &job, &matching).await;
    }
    let most = job.pace.map_or(most, |pace| pace.allowed().min(most));
    if most == 0 {
        return Ok((0, true));
    }
    create(transaction, job, &matching, most, entropy).await
}

/// Counts the next ones.
async fn count(transaction: &mut PgConnection, job: &Job, matching: &Matching<'_>) -> Result<(usize, bool), Failure> {
    let (mut deliveries, mut events, mut found, mut is_last) = (job.deliveries, job.events, 0, false);
    for _ in 0..COUNTS_AT_ONCE {
        let counted;
        if deliveries != Uuid::max() {
            (counted, deliveries) = matching.count_deliveries(transaction, deliveries, COUNTED_AT_ONCE).await?;
        } else if let Some(destination) = matching.missing_for(transaction).await?
            && let Some(next) = matching.next_events(transaction, &destination, events, COUNTED_AT_ONCE).await?
        {
            (counted, events) = (next.0.len(), next.1);
        } else {
            is_last = true;
            break;
        }
        found += counted;
    }
    let counted = sqlx::query(
        "UPDATE replays SET counted = COALESCE(counted, 0) + $2, counted_delivery = $3, counted_event = $4,
                matched = CASE WHEN $5 THEN COALESCE(counted, 0) + $2 END
         WHERE id = $1 AND state = 'running' AND matched IS NULL",
    )
    .bind(job.id.uuid())
    .bind(i64::try_from(found).unwrap_or(i64::MAX))
    .bind(deliveries)
    .bind(events)
    .bind(is_last)
    .execute(transaction)
    .await?;
    Ok((0, counted.rows_affected() > 0))
}

/// Creates the next ones.
async fn create(
    transaction: &mut PgConnection,
    mut job: Job,
    matching: &Matching<'_>,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<(usize, bool), Failure> {
    let found_at = (job.deliveries, job.events);
    let (newborn, is_last) = piece(transaction, &mut job, matching, most, entropy).await?;
    let created = newborn.len();
    if matching.is_of_dead_letters() {
        let letters: Vec<DeliveryId> = newborn.iter().filter_map(|new| Some(new.replay_of?.0)).collect();
        waiting::restore_events(transaction, &letters).await?;
    }
    waiting::replay(transaction, newborn).await?;
    let moved = sqlx::query(
        "UPDATE replays SET replayed = replayed + $2, delivery_cursor = $3, event_cursor = $4,
                state = CASE WHEN $5 THEN 'completed' ELSE state END,
                finished_at = CASE WHEN $5 THEN statement_timestamp() END, paced_until = $6
         WHERE id = $1 AND state = 'running'
           AND (COALESCE(delivery_cursor, $9), COALESCE(event_cursor, $9)) = ($7, $8)",
    )
    .bind(job.id.uuid())
    .bind(i64::try_from(created).unwrap_or(i64::MAX))
    .bind(job.deliveries)
    .bind(job.events)
    .bind(is_last)
    .bind(job.pace.map(|pace| Time(pace.after(created))))
    .bind(found_at.0)
    .bind(found_at.1)
    .bind(Uuid::nil())
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() == 0 {
        return Err(Failure::Overtaken);
    }
    Ok((created, !is_last))
}

/// Up to `most` new deliveries in the order in which they join their lanes, and whether nothing is left after them.
async fn piece(
    transaction: &mut PgConnection,
    job: &mut Job,
    matching: &Matching<'_>,
    most: usize,
    entropy: &dyn Entropy,
) -> Result<(Vec<Newborn>, bool), Failure> {
    let mut looked_at = 0;
    let (mut newborn, cut) = again(transaction, job, matching, most, &mut looked_at, entropy).await?;
    if cut {
        return Ok((newborn, false));
    }
    let Some(destination) = matching.missing_for(transaction).await? else { return Ok((newborn, true)) };
    let mut missing: Vec<(EventId, String)> = Vec::new();
    let cut = loop {
        let found = newborn.len() + missing.len();
        if found >= most || looked_at >= MOST_LOOKED_AT {
            break true;
        }
        let room = room(matching, most - found);
        looked_at += room;
        let Some((events, last)) = matching.next_events(transaction, &destination, job.events, room).await? else {
            break false;
        };
        let left = most - found;
        job.events = events.get(left.saturating_sub(1)).map_or(last, |(id, _)| id.uuid());
        missing.extend(events.into_iter().take(left));
    };
    newborn.extend(for_the_first_time(transaction, &destination, missing, entropy).await?);
    Ok((newborn, !cut))
}

/// Of deliveries that are to be sent again, and whether there may be more of them.
async fn again(
    transaction: &mut PgConnection,
    job: &mut Job,
    matching: &Matching<'_>,
    most: usize,
    looked_at: &mut usize,
    entropy: &dyn Entropy,
) -> Result<(Vec<Newborn>, bool), Failure> {
    let mut found: Vec<Ended> = Vec::new();
    let mut cut = false;
    while job.deliveries != Uuid::max() && !cut {
        if found.len() >= most || *looked_at >= MOST_LOOKED_AT {
            cut = true;
            break;
        }
        let room = room(matching, most - found.len());
        *looked_at += room;
        match matching.next_deliveries(transaction, job.deliveries, Uuid::max(), room).await? {
            None => job.deliveries = Uuid::max(),
            Some((ended, last)) => {
                // The rest of a chunk that is too large is looked at again.
                let left = most - found.len();
                job.deliveries = ended.get(left.saturating_sub(1)).map_or(last, |ended| ended.id.uuid());
                found.extend(ended.into_iter().take(left));
            }
        }
    }
    finish_millisecond(transaction, job, matching, &mut found).await?;
    // Ids of one millisecond are in no order, places in a lane are.
    found.sort_by_key(|ended| (ended.id.created_at(), ended.place, ended.id));
    Ok((found.into_iter().map(|ended| ended.again(job.tenant, entropy)).collect(), cut))
}

/// Adds the rest of the last millisecond, where something of it belongs to a lane.
async fn finish_millisecond(
    transaction: &mut PgConnection,
    job: &mut Job,
    matching: &Matching<'_>,
    found: &mut Vec<Ended>,
) -> Result<(), Failure> {
    let Some(at) = found.last().map(|last| last.id.created_at()) else { return Ok(()) };
    let has_lane = found.iter().rev().take_while(|ended| ended.id.created_at() == at).any(|ended| ended.lane.is_some());
    if !has_lane || job.deliveries == Uuid::max() {
        return Ok(());
    }
    let end = Uuid::from_u128(DeliveryId::floor(at).uuid().as_u128() | (u128::MAX >> 48));
    while job.deliveries < end {
        match matching.next_deliveries(transaction, job.deliveries, end, CHUNK).await? {
            None => break,
            Some((ended, last)) => {
                job.deliveries = last;
                found.extend(ended);
            }
        }
    }
    Ok(())
}

impl Ended {
    /// As a new delivery.
    fn again(self, tenant: TenantId, entropy: &dyn Entropy) -> Newborn {
        let new = Newborn::new(tenant, self.destination_id, self.event_id, self.event_type, entropy);
        let replay_of = Some((self.id, self.place));
        Newborn { replay_of, guarantee: self.guarantee, lane: self.lane, is_born_now: true, ..new }
    }
}

/// First deliveries of these events. Only where lanes are asked for, the events themselves are read.
async fn for_the_first_time(
    transaction: &mut PgConnection,
    destination: &Destination,
    missing: Vec<(EventId, String)>,
    entropy: &dyn Entropy,
) -> Result<Vec<Newborn>, Failure> {
    if missing.is_empty() || destination.spec.ordering.mode == OrderingMode::None {
        let first = |(event_id, event_type)| {
            let new = Newborn::new(destination.tenant_id, destination.id, event_id, event_type, entropy);
            Newborn { guarantee: destination.spec.guarantee, is_born_now: true, ..new }
        };
        return Ok(missing.into_iter().map(first).collect());
    }
    let ids: Vec<EventId> = missing.into_iter().map(|(id, _)| id).collect();
    let mut events = due::whole_events(transaction, &ids).await?;
    events.sort_by_key(|event| event.id);
    Ok(events.iter().map(|event| Newborn::late(destination, event, entropy)).collect())
}

/// How many rows to look at for so many that match: more where types are filtered afterwards.
fn room(matching: &Matching<'_>, wanted: usize) -> usize {
    if matching.selection.event_types.is_empty() && !matching.selection.missing { wanted } else { wanted.max(CHUNK) }
}
