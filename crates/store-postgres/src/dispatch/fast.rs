//! The common case: a delivery arrives. Where the API queued it and this is its first attempt, one insert and one HOT update, no look at
//! `waiting`, `queues` or the event, in a statement that is a transaction of its own. Where the feed brought it, the same, and it
//! leaves `waiting`, in one transaction.
//!
//! The statement names the partition itself, so that it is planned once; what spans midnight is one statement for each day.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState};
use signalpost_store::dispatch::{DeliveryWrite, Next, Target};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::apply::AttemptColumns;
use crate::{
    error::Failure,
    ids::uuids,
    partitions::{self, Day},
    queues::QueueChanges,
    waiting,
};

/// How a delivery came to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From the API: it is still `Queued`.
    Straight,
    /// From `waiting`, most likely; else it is `Queued`.
    Fed,
}

/// An attempt that begins so long after its delivery was made is taken to come from the feed.
const STRAIGHT: Duration = Duration::from_secs(1);

/// Places in the batch by the day of their delivery and how it came, each in the order of ids. Only of what this is about, and nothing of a
/// delivery that the batch tells more of.
pub(super) fn places(batch: &[DeliveryWrite]) -> BTreeMap<(Day, Way), Vec<usize>> {
    let mut seen = HashMap::<DeliveryId, u32>::with_capacity(batch.len());
    for write in batch {
        *seen.entry(write.target().delivery_id).or_default() += 1;
    }
    let mut places = BTreeMap::<(Day, Way), Vec<usize>>::new();
    for (place, write) in batch.iter().enumerate() {
        let id = write.target().delivery_id;
        if let Some(way) = success(write)
            && seen[&id] == 1
        {
            places.entry((Day::of(id.created_at()), way)).or_default().push(place);
        }
    }
    for places in places.values_mut() {
        places.sort_unstable_by_key(|place| batch[*place].target().delivery_id);
    }
    places
}

/// How it came, if it arrived and is of no lane.
fn success(write: &DeliveryWrite) -> Option<Way> {
    // What is sent in a lane has a lease.
    let DeliveryWrite::Attempt { target: Target { delivery_id, lease: None, .. }, attempt, next: Next::Delivered } =
        write
    else {
        return None;
    };
    let is_straight = attempt.number == 1 && attempt.started_at.since(delivery_id.created_at()) < STRAIGHT;
    Some(if is_straight { Way::Straight } else { Way::Fed })
}

/// As [`write`], of those that were fed: what waited of them leaves `waiting`.
pub(super) async fn write_fed(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    day: Day,
    places: &[usize],
) -> Result<HashSet<DeliveryId>, Failure> {
    let done = write(transaction, batch, day, Way::Fed, places).await?;
    if done.is_empty() {
        return Ok(done);
    }
    // A statement of its own: it sees how they wait now that their deliveries are locked.
    let mut queues = QueueChanges::default();
    waiting::leave(transaction, uuids(done.iter().copied()), &mut queues).await?;
    queues.apply(transaction).await?;
    Ok(done)
}

/// Writes those that are as their way tells, and whose destination has not been failing; gives them. `places` are of that day, in the
/// order of their deliveries.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &[DeliveryWrite],
    day: Day,
    way: Way,
    places: &[usize],
) -> Result<HashSet<DeliveryId>, Failure> {
    let mut columns = AttemptColumns::default();
    let mut tenants = Vec::with_capacity(places.len());
    let mut destinations = BTreeSet::new();
    for place in places {
        if let DeliveryWrite::Attempt { target, attempt, .. } = &batch[*place] {
            columns.push(target.delivery_id, attempt);
            tenants.push(target.tenant_id.uuid());
            destinations.insert(target.destination_id);
        }
    }
    let states = match way {
        Way::Straight => vec![DeliveryState::Queued as i16],
        Way::Fed => vec![DeliveryState::Queued as i16, DeliveryState::Waiting as i16],
    };
    let (deliveries, attempts) = (partitions::name("deliveries", day), partitions::name("attempts", day));
    // COALESCE hides the condition from the planner, which would think that hardly a row fulfils it, and join by comparing
    // each with each.
    let statement = format!(
        "WITH done AS (
             UPDATE {deliveries} d SET state = $7, attempts = i.number, ended_at = statement_timestamp()
             FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::int[], $5::bytea[], $6::text[], $10::uuid[], $12::int[])
                  AS i(id, started_at, duration_us, status_code, response_excerpt, error, tenant_id, number)
             WHERE d.id = i.id
               AND COALESCE(d.state = ANY($8) AND d.attempts = i.number - 1 AND d.lane IS NULL, false)
               AND d.tenant_id = i.tenant_id
               AND d.destination_id <> ALL(
                       ARRAY(SELECT f.destination_id FROM failing f WHERE f.destination_id = ANY($11)))
             RETURNING d.id, d.tenant_id, d.destination_id, d.event_id,
                       i.number, i.started_at, i.duration_us, i.status_code, i.response_excerpt, i.error
         )
         INSERT INTO {attempts} (delivery_id, number, tenant_id, destination_id, event_id, outcome,
                                 started_at, duration_us, status_code, response_excerpt, error)
         SELECT id, number, tenant_id, destination_id, event_id, $9,
                started_at, duration_us, status_code, response_excerpt, error FROM done
         RETURNING delivery_id"
    );
    let done: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(columns.ids)
        .bind(columns.started_at)
        .bind(columns.durations_us)
        .bind(columns.status_codes)
        .bind(columns.excerpts)
        .bind(columns.errors)
        .bind(DeliveryState::Delivered as i16)
        .bind(states)
        .bind(AttemptOutcome::Delivered as i16)
        .bind(tenants)
        .bind(uuids(destinations))
        .bind(columns.numbers)
        .fetch_all(connection)
        .await?;
    Ok(done.into_iter().map(DeliveryId::from_uuid).collect())
}
