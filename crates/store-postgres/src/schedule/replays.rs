//! The steps of replay jobs.

use signalpost_core::{
    DeliveryId, Destination, Entropy, EventId, ReplayId, TenantId, Timestamp, ordering::OrderingMode,
};
use signalpost_store::{manage::ReplaySelection, schedule::OpenReplay};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    due,
    error::Failure,
    rows::{id, json, time},
    selection::{Ended, Matching},
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
    tenant: TenantId,
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
        let letters: Vec<DeliveryId> = newborn.iter().filter_map(|new| Some(new.replay_of?.0)).collect();
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
