//! What comes of deliveries: attempts, parking, detaching, claims, ends. Each on its condition, one after the other.

use std::sync::LazyLock;

use rusqlite::params;
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryState, Guarantee, Timestamp, WaitReason};
use signalpost_store::{
    HANDOVER_LEASE, NEVER,
    dispatch::{Attempt, DeliveryWrite, Next, Target, WriteReport, Written},
};

use crate::{
    columns::key,
    deliveries::{Anchor, anchor},
    failure::Outcome,
    feed,
    rows::Insert,
    tx::{Stored, Tx},
};

/// Writes a batch, and lets the next of lanes go. With `hand_over` those are leased to the caller.
pub(crate) fn write(tx: &Tx<'_>, batch: &[DeliveryWrite], hand_over: bool) -> Outcome<WriteReport> {
    // Of deliveries that are final by now: nothing in the batch reads them any more.
    let mut arrived = Vec::new();
    let written = batch
        .iter()
        .map(|write| {
            if let DeliveryWrite::Attempt { target, attempt, next: Next::Delivered } = write
                && end_at_once(tx, target, attempt)?
            {
                arrived.push((target, attempt));
                tx.arrived(target.destination_id);
                return Ok(Written::Done);
            }
            let target = write.target();
            let stored = tx.delivery(target.delivery_id)?;
            let Some(stored) = stored.filter(|d| d.target.tenant_id == target.tenant_id && !d.state.is_final()) else {
                return Ok(Written::Superseded);
            };
            if let Some(mark) = target.lease
                && anchor(tx, target.delivery_id)?.is_some_and(|waiting| waiting.is_anothers(mark, tx.now))
            {
                return Ok(Written::Superseded);
            }
            one(tx, write, &stored)
        })
        .collect::<Outcome<_>>()?;
    arrived.sort_unstable_by_key(|(target, _)| target.delivery_id);
    record(tx, &NEXT_ATTEMPTS, &arrived)?;
    let handed = tx.settle_lanes(hand_over)?;
    Ok(WriteReport { written, followers: feed::load(tx, &handed, tx.now + HANDOVER_LEASE)? })
}

fn one(tx: &Tx<'_>, write: &DeliveryWrite, stored: &Stored) -> Outcome<Written> {
    let target = &stored.target;
    match write {
        DeliveryWrite::Attempt { attempt, next, .. } => {
            if !fits(tx, attempt, stored)? {
                return Ok(Written::Superseded);
            }
            record(tx, &ATTEMPTS, &[(target, attempt)])?;
            match attempt.outcome {
                AttemptOutcome::Delivered => tx.arrived(target.destination_id),
                AttemptOutcome::Retry | AttemptOutcome::Dead => tx.failed(target.destination_id),
                AttemptOutcome::Interrupted => {}
            }
            match *next {
                Next::Delivered => end(tx, stored, DeliveryState::Delivered, None, attempt.number)?,
                Next::Dead { reason } => bury(tx, stored, reason, attempt.number)?,
                Next::Retry { after } => {
                    // Only the first of a lane has a due time.
                    let first = tx.is_first(stored)?;
                    let (due_at, reason) =
                        if first { (tx.now + after, WaitReason::Retry) } else { (NEVER, WaitReason::Lane) };
                    tx.anchor(target, stored.state, due_at, reason)?;
                    wait(tx, target, attempt.number)?;
                }
            }
        }
        DeliveryWrite::Park { reason, after, hold_queue, claim, .. } => {
            let due_at = tx.now + *after;
            let waiting = anchor(tx, target.delivery_id)?;
            if waiting.is_some_and(|waiting| !may_be_parked(&waiting, *claim, due_at, tx.now)) {
                return Ok(Written::Superseded);
            }
            tx.anchor(target, stored.state, due_at, *reason)?;
            if claim.is_some() {
                tx.execute("UPDATE waiting SET claim = NULL WHERE delivery_id = ?1", [key(target.delivery_id)])?;
            }
            wait(tx, target, stored.attempts)?;
            if *hold_queue {
                tx.hold(target.tenant_id, target.destination_id, due_at);
            }
        }
        DeliveryWrite::Detach { attempt, deadline, .. } => {
            if stored.attempts + 1 != *attempt {
                return Ok(Written::Superseded);
            }
            tx.anchor(target, stored.state, tx.now + *deadline, WaitReason::InFlight)?;
            wait(tx, target, stored.attempts)?;
        }
        DeliveryWrite::Claim { claim, deadline, .. } => {
            if !may_claim(tx, stored, *claim)? {
                return Ok(Written::Superseded);
            }
            tx.anchor(target, stored.state, tx.now + *deadline, WaitReason::InFlight)?;
            tx.execute(
                "UPDATE waiting SET claim = ?2 WHERE delivery_id = ?1",
                params![key(target.delivery_id), claim.cast_signed()],
            )?;
            wait(tx, target, stored.attempts)?;
        }
        DeliveryWrite::End { dead: None, .. } => {
            end(tx, stored, DeliveryState::Cancelled, None, stored.attempts)?;
        }
        DeliveryWrite::End { dead: Some(reason), .. } => bury(tx, stored, *reason, stored.attempts)?,
    }
    Ok(Written::Done)
}

/// Ends what most are: a delivery that the bus brought, delivered by its next attempt. False: it is not one.
fn end_at_once(tx: &Tx<'_>, target: &Target, attempt: &Attempt) -> Outcome<bool> {
    let ended = tx.execute(
        "UPDATE deliveries SET state = ?3, attempts = ?4, ended_at = ?5
         WHERE id = ?1 AND tenant_id = ?2 AND state = ?6 AND attempts = ?4 - 1 AND lane IS NULL",
        params![
            key(target.delivery_id),
            key(target.tenant_id),
            DeliveryState::Delivered as u8,
            attempt.number,
            tx.now.as_micros(),
            DeliveryState::Queued as u8
        ],
    )?;
    Ok(ended > 0)
}

/// Whether the one who parks knows how it stands. Not one who decided it before a request went out that is detached or
/// claimed now, or before an attempt after which it pauses; nor is a follower in a lane anybody's to park. Who gives back its claim
/// knows; but for one that was fed past its deadline, to end as unknown.
fn may_be_parked(waiting: &Anchor, claim: Option<u64>, due_at: Timestamp, now: Timestamp) -> bool {
    if waiting.claim.is_some() {
        return waiting.claim == claim && !waiting.leased;
    }
    let pauses = waiting.reason == WaitReason::Retry && !waiting.leased && waiting.due_at > due_at;
    !waiting.request_is_out(now) && !pauses && waiting.due_at < NEVER
}

/// Whether its one request may go out: none went out before, as far as anybody can know, and no other one is about to.
fn may_claim(tx: &Tx<'_>, stored: &Stored, claim: u64) -> Outcome<bool> {
    if stored.attempts > 0 || stored.guarantee != Guarantee::AtMostOnce || !tx.is_first(stored)? {
        return Ok(false);
    }
    let Some(waiting) = anchor(tx, stored.target.delivery_id)? else { return Ok(true) };
    Ok(match waiting.claim {
        None => !waiting.request_is_out(tx.now),
        // Once its deadline has passed and it was fed, it is about to end as unknown.
        Some(holder) => holder == claim && !waiting.leased,
    })
}

/// Whether this attempt is the next one, or takes the place of the last one, of which nothing was known. The news that
/// nothing is known replaces nothing, so that repeating it is harmless.
fn fits(tx: &Tx<'_>, attempt: &Attempt, stored: &Stored) -> Outcome<bool> {
    if attempt.number == stored.attempts + 1 {
        return Ok(true);
    }
    if attempt.number != stored.attempts || attempt.outcome == AttemptOutcome::Interrupted {
        return Ok(false);
    }
    // In a lane its end lets the next one go: not while somebody has it for its next attempt.
    let in_hand = |waiting: Anchor| waiting.leased || waiting.request_is_out(tx.now);
    if stored.place.is_some() && anchor(tx, stored.target.delivery_id)?.is_some_and(in_hand) {
        return Ok(false);
    }
    let interrupted = tx.row(
        "SELECT 1 FROM attempts WHERE delivery_id = ?1 AND number = ?2 AND outcome = ?3",
        params![key(stored.target.delivery_id), attempt.number, AttemptOutcome::Interrupted as u8],
        |_| Ok(()),
    )?;
    Ok(interrupted.is_some())
}

fn attempts(insert: &str) -> Insert {
    let columns = "delivery_id, number, tenant_id, destination_id, event_id, started_at, duration_us, outcome, status_code, \
                   error, response_excerpt";
    Insert::new(&format!("{insert} INTO attempts ({columns})"), 11)
}

/// Attempts with numbers that nobody had.
static NEXT_ATTEMPTS: LazyLock<Insert> = LazyLock::new(|| attempts("INSERT OR FAIL"));

/// Those, too, of which nothing was known before.
static ATTEMPTS: LazyLock<Insert> = LazyLock::new(|| attempts("INSERT OR REPLACE"));

fn record(tx: &Tx<'_>, insert: &'static Insert, attempts: &[(&Target, &Attempt)]) -> Outcome<()> {
    tx.insert(insert, attempts, |(target, attempt), values| {
        values.bind(key(target.delivery_id))?;
        values.bind(attempt.number)?;
        values.bind(key(target.tenant_id))?;
        values.bind(key(target.destination_id))?;
        values.bind(key(target.event_id))?;
        values.bind(attempt.started_at.as_micros())?;
        values.bind(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX))?;
        values.bind(attempt.outcome as u8)?;
        values.bind(attempt.status_code)?;
        values.bind(&attempt.error)?;
        values.bind(&attempt.response_excerpt[..])
    })
}

fn wait(tx: &Tx<'_>, target: &Target, attempts: u32) -> Outcome<()> {
    tx.execute(
        "UPDATE deliveries SET state = ?2, attempts = ?3 WHERE id = ?1",
        params![key(target.delivery_id), DeliveryState::Waiting as u8, attempts],
    )?;
    Ok(())
}

/// Ends a delivery.
pub(crate) fn end(
    tx: &Tx<'_>,
    stored: &Stored,
    state: DeliveryState,
    reason: Option<DeadReason>,
    attempts: u32,
) -> Outcome<()> {
    if stored.state == DeliveryState::Waiting {
        tx.release(&stored.target)?;
        if let Some(place) = stored.place {
            tx.leave_lane(stored.target.destination_id, place.lane)?;
        }
    }
    tx.execute(
        "UPDATE deliveries SET state = ?2, attempts = ?3, reason = ?4, ended_at = ?5 WHERE id = ?1",
        params![
            key(stored.target.delivery_id),
            state as u8,
            attempts,
            reason.map(|reason| reason as u8),
            tx.now.as_micros()
        ],
    )?;
    Ok(())
}

/// Ends a delivery as dead, with a copy of its event; of one that was replayed already nobody needs a dead letter.
fn bury(tx: &Tx<'_>, stored: &Stored, reason: DeadReason, attempts: u32) -> Outcome<()> {
    end(tx, stored, DeliveryState::Dead, Some(reason), attempts)?;
    if stored.replayed_by.is_some() {
        return Ok(());
    }
    let target = &stored.target;
    let buried = tx.execute(
        "INSERT OR REPLACE INTO dead_letters (delivery_id, tenant_id, destination_id, event_id, reason, dead_at,
             attempts, event_type, event_uid, event_source, event_meta, event_data, lane, lane_seq, guarantee)
         SELECT ?1, ?2, ?3, id, ?5, ?6, ?7, type, uid, source, meta, data, ?8, ?9, ?10 FROM events WHERE id = ?4",
        params![
            key(target.delivery_id),
            key(target.tenant_id),
            key(target.destination_id),
            key(target.event_id),
            reason as u8,
            tx.now.as_micros(),
            attempts,
            stored.place.map(|place| *place.lane.as_bytes()),
            stored.place.map(|place| place.seq),
            stored.guarantee as u8
        ],
    )?;
    if buried > 0 {
        tx.block_lane(stored)?;
    }
    Ok(())
}
