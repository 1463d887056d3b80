//! One batch of outcomes in one transaction.
//!
//! Deliveries that occur more than once are written in rounds, so that the batch has the effect of its items applied
//! in order. What of a round is not done yet ([`super::fast`]) is locked, decided on ([`super::decide`]) and written ([`super::apply`]).
//! What that means for lanes, queues and failing destinations is gathered, and written once after the last round.

use std::collections::{BTreeSet, HashMap, HashSet};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState, DestinationId, WaitReason};
use signalpost_store::dispatch::{DeliveryWrite, Next, WriteReport, Written};
use sqlx::{PgConnection, Row};

use super::{
    apply::Plan,
    decide::{Change, Found, To, Waits, decide},
};
use crate::{
    due::{self, Leased},
    error::Failure,
    failing::Tallies,
    ids::uuids,
    lanes::{LaneKey, Lanes, Turn},
    queues::QueueChanges,
    rows::{count, guarantee, id, named, optional_lane, optional_named, time},
};

/// Places in the batch, sorted by delivery, none twice.
type Round = Vec<usize>;

/// What a batch means for others than its deliveries.
#[derive(Default)]
struct Gathered {
    lanes: Lanes,
    queues: QueueChanges,
    /// Attempts that were written: their place in the batch, and whether their destination was failing.
    attempts: Vec<(usize, bool)>,
}

pub(super) async fn write(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    done: &HashSet<DeliveryId>,
    hand_over: bool,
    inline_bytes: usize,
) -> Result<WriteReport, Failure> {
    let is_done = |write: &DeliveryWrite| done.contains(&write.target().delivery_id);
    let mut written: Vec<Written> =
        batch.iter().map(|write| if is_done(write) { Written::Done } else { Written::Superseded }).collect();
    let done = (0..batch.len()).filter(|place| is_done(&batch[*place])).map(|place| (place, false));
    let mut gathered = Gathered { attempts: done.collect(), ..Gathered::default() };
    for round in rounds(batch, |write| !is_done(write)) {
        decide_and_apply(transaction, batch, &round, &mut written, &mut gathered).await?;
    }
    let Gathered { lanes, mut queues, attempts } = gathered;
    let turns = lanes.settle(transaction, hand_over, &mut queues).await?;
    queues.apply(transaction).await?;
    tallies(batch, attempts).apply(transaction).await?;
    let leased: Vec<Leased> = turns.iter().filter_map(leased).collect();
    Ok(WriteReport { written, followers: due::load(transaction, &leased, inline_bytes).await? })
}

fn tallies(batch: &[DeliveryWrite], mut attempts: Vec<(usize, bool)>) -> Tallies {
    attempts.sort_unstable();
    let mut tallies = Tallies::default();
    for (place, was_failing) in attempts {
        if let DeliveryWrite::Attempt { target, attempt, .. } = &batch[place] {
            tallies.add(target.destination_id, attempt.outcome, was_failing);
        }
    }
    tallies
}

fn leased(turn: &Turn) -> Option<Leased> {
    let (version, until) = turn.handed_over?;
    Some(Leased {
        delivery_id: turn.delivery_id,
        tenant_id: turn.tenant_id,
        destination_id: turn.destination_id,
        version,
        event_id: turn.event_id,
        reason: WaitReason::Turn,
        until,
    })
}

fn rounds(batch: &[DeliveryWrite], wanted: impl Fn(&DeliveryWrite) -> bool) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut seen = HashMap::<DeliveryId, usize>::with_capacity(batch.len());
    for (place, write) in batch.iter().enumerate().filter(|(_, write)| wanted(write)) {
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

async fn decide_and_apply(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    places: &[usize],
    written: &mut [Written],
    gathered: &mut Gathered,
) -> Result<(), Failure> {
    if places.is_empty() {
        return Ok(());
    }
    let mut found = lock(transaction, batch, places).await?;
    look_at_waiting(transaction, batch, places, &mut found).await?;
    let mut changes: Vec<(&Found, Change<'_>)> = Vec::with_capacity(places.len());
    for place in places {
        let write = &batch[*place];
        let Some(found) = found.get(&write.target().delivery_id) else { continue };
        if let Some(change) = decide(found, write) {
            written[*place] = Written::Done;
            if change.attempt.is_some() {
                gathered.attempts.push((*place, found.was_failing));
            }
            changes.push((found, change));
        }
    }
    leave_lanes(transaction, &changes, &mut gathered.lanes).await?;
    let mut plan = Plan::default();
    for (found, change) in &changes {
        plan.add(found, change, &mut gathered.queues);
    }
    plan.apply(transaction).await
}

/// Locks deliveries, in the order of their ids.
async fn lock(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    places: &[usize],
) -> Result<HashMap<DeliveryId, Found>, Failure> {
    let ids = uuids(places.iter().map(|place| batch[*place].target().delivery_id));
    let destinations: BTreeSet<DestinationId> =
        places.iter().map(|place| batch[*place].target().destination_id).collect();
    let rows = sqlx::query(
        "SELECT d.id, d.tenant_id, d.destination_id, d.event_id, d.event_type, d.state, d.attempts, d.lane, d.lane_seq,
                d.guarantee, d.replayed_by IS NOT NULL AS is_replayed, a.outcome AS last_outcome,
                d.destination_id = ANY(ARRAY(SELECT f.destination_id FROM failing f WHERE f.destination_id = ANY($2)))
                    AS was_failing
         FROM deliveries d
         LEFT JOIN attempts a ON a.delivery_id = d.id AND a.number = d.attempts AND a.delivery_id = ANY($1)
         WHERE d.id = ANY($1)
         ORDER BY d.id FOR UPDATE OF d",
    )
    .bind(ids)
    .bind(uuids(destinations))
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
                event_type: row.try_get("event_type")?,
                state: named(row, "state", DeliveryState::from_number)?,
                attempts: count(row, "attempts")?,
                is_replayed: row.try_get("is_replayed")?,
                last_outcome: optional_named(row, "last_outcome", AttemptOutcome::from_number)?,
                guarantee: guarantee(row, "guarantee")?,
                lane: optional_lane(row, "lane")?,
                place: row.try_get("lane_seq")?,
                was_failing: row.try_get("was_failing")?,
                waits: None,
            },
        );
    }
    Ok(found)
}

/// Finds out how those of these locked deliveries wait for which that decides. A statement of its own: it sees what was committed
/// before the locks were ours.
async fn look_at_waiting(
    transaction: &mut PgConnection,
    batch: &[DeliveryWrite],
    places: &[usize],
    found: &mut HashMap<DeliveryId, Found>,
) -> Result<(), Failure> {
    let matters = |write: &&DeliveryWrite| {
        let Some(found) = found.get(&write.target().delivery_id) else { return false };
        let is_leased = write.target().lease.is_some();
        found.state == DeliveryState::Waiting
            && match write {
                _ if is_leased => true,
                DeliveryWrite::Park { .. } | DeliveryWrite::Claim { .. } => true,
                DeliveryWrite::Attempt { next: Next::Retry { .. }, .. } | DeliveryWrite::Detach { .. } => {
                    found.lane.is_some()
                }
                DeliveryWrite::Attempt { attempt, .. } => found.lane.is_some() && attempt.number == found.attempts,
                DeliveryWrite::End { .. } => false,
            }
    };
    let writes = places.iter().map(|place| &batch[*place]);
    let ids = uuids(writes.filter(matters).map(|write| write.target().delivery_id));
    if ids.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT delivery_id, reason, leased, claim, due_at,
                CASE WHEN due_at < 'infinity'
                     THEN (EXTRACT(EPOCH FROM due_at - statement_timestamp()) * 1000000)::bigint END AS due_us
         FROM waiting WHERE delivery_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(transaction)
    .await?;
    for row in &rows {
        if let Some(found) = found.get_mut(&id(row, "delivery_id")?) {
            found.waits = Some(Waits {
                reason: named(row, "reason", WaitReason::from_number)?,
                due_us: row.try_get("due_us")?,
                due_at: time(row, "due_at")?,
                leased: row.try_get("leased")?,
                claim: row.try_get("claim")?,
            });
        }
    }
    Ok(())
}

/// Locks the lanes of what ends, and counts it out. One that becomes a dead letter blocks its lane where its destination asks
/// for that; such destinations are locked against changes, so that one that is changed to go on finds all that it has to let go.
async fn leave_lanes(
    transaction: &mut PgConnection,
    changes: &[(&Found, Change<'_>)],
    lanes: &mut Lanes,
) -> Result<(), Failure> {
    let ends: Vec<(LaneKey, &Found, To)> = changes
        .iter()
        .filter(|(_, change)| change.to.is_end())
        .filter_map(|(found, change)| Some((found.lane_key()?, *found, change.to)))
        .collect();
    if ends.is_empty() {
        return Ok(());
    }
    let is_letter = |found: &Found, to: To| matches!(to, To::Dead(_)) && !found.is_replayed;
    let letters = ends.iter().filter(|(_, found, to)| is_letter(found, *to));
    let blocking = blocking(transaction, letters.map(|(key, ..)| key.0).collect()).await?;
    lanes.lock(transaction, ends.iter().map(|(key, ..)| *key).collect()).await?;
    for (key, found, to) in ends {
        lanes.ended(key);
        if is_letter(found, to) && blocking.contains(&key.0) {
            lanes.block(key, found.delivery_id);
        }
    }
    Ok(())
}

/// Those of the destinations whose lanes wait for dead letters.
async fn blocking(
    transaction: &mut PgConnection,
    destinations: BTreeSet<DestinationId>,
) -> Result<BTreeSet<DestinationId>, Failure> {
    if destinations.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query(
        "SELECT id FROM destinations
         WHERE id = ANY($1) AND state <> 'deleted' AND spec ->> 'ordering' = 'key' AND spec ->> 'ordering_on_dead' = 'block'
         ORDER BY id FOR SHARE",
    )
    .bind(uuids(destinations))
    .fetch_all(transaction)
    .await?;
    rows.iter().map(|row| id(row, "id")).collect()
}
