//! The common case: a delivery that the API queued arrives at its first attempt. One insert and one HOT update, no look at
//! `waiting`, `queues` or the event.

use std::collections::{BTreeSet, HashMap};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState};
use signalpost_store::dispatch::DeliveryWrite;
use sqlx::{PgConnection, Row};

use super::apply::AttemptColumns;
use crate::{error::Failure, ids::uuids, rows::id};

/// Writes those that are still `Queued`, and gives them, each with whether its destination was failing. `places` are sorted by
/// delivery.
pub(super) async fn write(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    places: &[usize],
) -> Result<HashMap<DeliveryId, bool>, Failure> {
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
    if columns.ids.is_empty() {
        return Ok(HashMap::new());
    }
    // COALESCE hides the condition from the planner, which would think that hardly a row fulfils it, and join by comparing
    // each with each.
    let done = sqlx::query(
        "WITH done AS (
             UPDATE deliveries d SET state = $7, attempts = 1, ended_at = statement_timestamp()
             FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::int[], $5::bytea[], $6::text[],
                         $10::uuid[])
                  AS i(id, started_at, duration_us, status_code, response_excerpt, error, tenant_id)
             WHERE d.id = i.id AND d.id = ANY($1)
               AND COALESCE(d.state = $8 AND d.attempts = 0, false)
               AND d.tenant_id = i.tenant_id
             RETURNING d.id, d.tenant_id, d.destination_id, d.event_id,
                       i.started_at, i.duration_us, i.status_code, i.response_excerpt, i.error
         )
         INSERT INTO attempts (delivery_id, number, tenant_id, destination_id, event_id, outcome,
                               started_at, duration_us, status_code, response_excerpt, error)
         SELECT id, 1, tenant_id, destination_id, event_id, $9,
                started_at, duration_us, status_code, response_excerpt, error FROM done
         RETURNING delivery_id,
                   destination_id = ANY(ARRAY(SELECT f.destination_id FROM failing f WHERE f.destination_id = ANY($11))) AS was_failing",
    )
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
    .fetch_all(transaction)
    .await?;
    done.iter().map(|row| Ok((id(row, "delivery_id")?, row.try_get("was_failing")?))).collect()
}
