//! The common case: a delivery that the API queued arrives at its first attempt. One insert and one HOT update, no look at
//! `waiting`, `queues` or the event, in a statement that is a transaction of its own.
//!
//! It names the partition itself, so that it is planned once; what spans midnight is one statement for each day.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState};
use signalpost_store::dispatch::{DeliveryWrite, Next};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::apply::AttemptColumns;
use crate::{
    error::Failure,
    ids::uuids,
    partitions::{self, Day},
};

/// Places in the batch by the day of their delivery, each day in the order of ids. Only of what this is about, and nothing of a
/// delivery that the batch tells more of.
pub(super) fn places(batch: &[DeliveryWrite]) -> BTreeMap<Day, Vec<usize>> {
    let mut seen = HashMap::<DeliveryId, u32>::with_capacity(batch.len());
    for write in batch {
        *seen.entry(write.target().delivery_id).or_default() += 1;
    }
    let mut days = BTreeMap::<Day, Vec<usize>>::new();
    for (place, write) in batch.iter().enumerate() {
        let id = write.target().delivery_id;
        if is_first_success(write) && seen[&id] == 1 {
            days.entry(Day::of(id.created_at())).or_default().push(place);
        }
    }
    for places in days.values_mut() {
        places.sort_unstable_by_key(|place| batch[*place].target().delivery_id);
    }
    days
}

fn is_first_success(write: &DeliveryWrite) -> bool {
    // What is leased in a lane is not queued.
    matches!(write, DeliveryWrite::Attempt { target, attempt, next: Next::Delivered } if attempt.number == 1 && target.lease.is_none())
}

/// Writes those that are still `Queued`, and whose destination has not been failing; gives them. `places` are of that day, in the order
/// of their deliveries.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &[DeliveryWrite],
    day: Day,
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
    let (deliveries, attempts) = (partitions::name("deliveries", day), partitions::name("attempts", day));
    // COALESCE hides the condition from the planner, which would think that hardly a row fulfils it, and join by comparing
    // each with each.
    let statement = format!(
        "WITH done AS (
             UPDATE {deliveries} d SET state = $7, attempts = 1, ended_at = statement_timestamp()
             FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::int[], $5::bytea[], $6::text[], $10::uuid[])
                  AS i(id, started_at, duration_us, status_code, response_excerpt, error, tenant_id)
             WHERE d.id = i.id
               AND COALESCE(d.state = $8 AND d.attempts = 0, false)
               AND d.tenant_id = i.tenant_id
               AND d.destination_id <> ALL(
                       ARRAY(SELECT f.destination_id FROM failing f WHERE f.destination_id = ANY($11)))
             RETURNING d.id, d.tenant_id, d.destination_id, d.event_id,
                       i.started_at, i.duration_us, i.status_code, i.response_excerpt, i.error
         )
         INSERT INTO {attempts} (delivery_id, number, tenant_id, destination_id, event_id, outcome,
                                 started_at, duration_us, status_code, response_excerpt, error)
         SELECT id, 1, tenant_id, destination_id, event_id, $9,
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
        .bind(DeliveryState::Queued as i16)
        .bind(AttemptOutcome::Delivered as i16)
        .bind(tenants)
        .bind(uuids(destinations))
        .fetch_all(connection)
        .await?;
    Ok(done.into_iter().map(DeliveryId::from_uuid).collect())
}
