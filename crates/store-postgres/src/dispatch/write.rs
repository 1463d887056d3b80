//! One batch of outcomes in one transaction.
//!
//! Deliveries that occur more than once are written in rounds, so that the batch has the effect of its items applied
//! in order. Each round first tries the common case, a first attempt that arrived ([`super::fast`]), in one statement; what is
//! left is locked, decided on here ([`super::decide`]) and written ([`super::apply`]).

use std::collections::HashMap;

use signalpost_core::{DeliveryId, DeliveryState, WaitReason, id::Id};
use signalpost_store::dispatch::{DeliveryWrite, Next, Written};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    apply::Plan,
    decide::{Found, decide},
    fast,
};
use crate::{
    error::Failure,
    ids::uuids,
    rows::{count, id, named, optional_named},
};

/// Places in the batch, sorted by delivery, none twice.
type Round = Vec<usize>;

pub(super) async fn write(transaction: &mut PgConnection, batch: &[DeliveryWrite]) -> Result<Vec<Written>, Failure> {
    let mut written = vec![Written::Superseded; batch.len()];
    for round in rounds(batch) {
        let (first_successes, mut rest): (Round, Round) =
            round.into_iter().partition(|place| is_first_success(&batch[*place]));
        let done = fast::write(transaction, batch, &first_successes).await?;
        for place in first_successes {
            if done.contains(&batch[place].target().delivery_id) {
                written[place] = Written::Done;
            } else {
                rest.push(place);
            }
        }
        rest.sort_unstable_by_key(|place| batch[*place].target().delivery_id);
        decide_and_apply(transaction, batch, &rest, &mut written).await?;
    }
    Ok(written)
}

fn rounds(batch: &[DeliveryWrite]) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut seen = HashMap::<DeliveryId, usize>::with_capacity(batch.len());
    for (place, write) in batch.iter().enumerate() {
        let turn = seen.entry(write.target().delivery_id).or_default();
        if rounds.len() == *turn {
            rounds.push(Round::new());
        }
        rounds[*turn].push(place);
        *turn += 1;
    }
    for round in &mut rounds {
        round.sort_unstable_by_key(|place| batch[*place].target().delivery_id);
    }
    rounds
}

fn is_first_success(write: &DeliveryWrite) -> bool {
    matches!(write, DeliveryWrite::Attempt { attempt, next: Next::Delivered, .. } if attempt.number == 1)
}

async fn decide_and_apply(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    places: &[usize],
    written: &mut [Written],
) -> Result<(), Failure> {
    if places.is_empty() {
        return Ok(());
    }
    let mut found = lock(transaction, places.iter().map(|place| batch[*place].target().delivery_id)).await?;
    let parked = places.iter().filter(|place| matches!(batch[**place], DeliveryWrite::Park { .. }));
    mark_in_flight(transaction, &mut found, parked.map(|place| batch[*place].target().delivery_id)).await?;
    let mut plan = Plan::default();
    for place in places {
        let write = &batch[*place];
        let Some(found) = found.get(&write.target().delivery_id) else { continue };
        if let Some(change) = decide(found, write) {
            plan.add(found, change);
            written[*place] = Written::Done;
        }
    }
    plan.apply(transaction).await
}

/// Locks deliveries, in the order of their ids.
async fn lock(
    transaction: &mut PgConnection,
    ids: impl Iterator<Item = DeliveryId>,
) -> Result<HashMap<DeliveryId, Found>, Failure> {
    let ids = uuids(ids);
    let rows = sqlx::query(
        "SELECT d.id, d.tenant_id, d.destination_id, d.event_id, d.event_type, d.state, d.attempts,
                d.replayed_by IS NOT NULL AS is_replayed, a.outcome AS last_outcome
         FROM deliveries d
         LEFT JOIN attempts a ON a.delivery_id = d.id AND a.number = d.attempts AND a.delivery_id = ANY($1)
         WHERE d.id = ANY($1)
         ORDER BY d.id FOR UPDATE OF d",
    )
    .bind(ids)
    .fetch_all(transaction)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let delivery_id = id(row, "id")?;
        found.insert(
            delivery_id,
            Found {
                delivery_id,
                tenant_id: id(row, "tenant_id")?,
                destination_id: id(row, "destination_id")?,
                event_id: id(row, "event_id")?,
                event_type: sqlx::Row::try_get(row, "event_type")?,
                state: named(row, "state", DeliveryState::from_number)?,
                attempts: count(row, "attempts")?,
                is_replayed: sqlx::Row::try_get(row, "is_replayed")?,
                last_outcome: optional_named(row, "last_outcome", signalpost_core::AttemptOutcome::from_number)?,
                in_flight: false,
            },
        );
    }
    Ok(found)
}

/// Finds out which of these locked deliveries have a request out. A statement of its own: it sees what was committed before the
/// locks were ours.
async fn mark_in_flight(
    transaction: &mut PgConnection,
    found: &mut HashMap<DeliveryId, Found>,
    ids: impl Iterator<Item = DeliveryId>,
) -> Result<(), Failure> {
    let waiting = |id: &DeliveryId| found.get(id).is_some_and(|found| found.state == DeliveryState::Waiting);
    let ids = uuids(ids.filter(waiting));
    if ids.is_empty() {
        return Ok(());
    }
    let out: Vec<Uuid> = sqlx::query_scalar(
        "SELECT delivery_id FROM waiting
         WHERE delivery_id = ANY($1) AND reason = $2 AND due_at > statement_timestamp()",
    )
    .bind(ids)
    .bind(WaitReason::InFlight as i16)
    .fetch_all(transaction)
    .await?;
    for id in out {
        if let Some(found) = found.get_mut(&Id::from_uuid(id)) {
            found.in_flight = true;
        }
    }
    Ok(())
}
