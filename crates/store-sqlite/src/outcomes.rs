//! What comes of deliveries: attempts, parking, detaching, ends. Each on its condition, one after the other.

use rusqlite::params;
use signalpost_core::{AttemptOutcome, DeadReason, DeliveryState, WaitReason};
use signalpost_store::dispatch::{Attempt, DeliveryWrite, Next, Target, Written};

use crate::{
    columns::{self, key},
    destinations,
    failure::Outcome,
    tx::{Stored, Tx},
};

/// Writes a batch.
pub(crate) fn write(tx: &Tx<'_>, batch: &[DeliveryWrite]) -> Outcome<Vec<Written>> {
    batch
        .iter()
        .map(|write| {
            let target = write.target();
            let stored = tx.delivery(target.delivery_id)?;
            let Some(stored) = stored.filter(|d| d.target.tenant_id == target.tenant_id && !d.state.is_final()) else {
                return Ok(Written::Superseded);
            };
            one(tx, write, &stored)
        })
        .collect()
}

fn one(tx: &Tx<'_>, write: &DeliveryWrite, stored: &Stored) -> Outcome<Written> {
    let target = &stored.target;
    match write {
        DeliveryWrite::Attempt { attempt, next, .. } => {
            if !fits(tx, attempt, stored)? {
                return Ok(Written::Superseded);
            }
            record(tx, target, attempt)?;
            match *next {
                Next::Delivered => end(tx, stored, DeliveryState::Delivered, None, attempt.number)?,
                Next::Dead { reason } => bury(tx, stored, reason, attempt.number)?,
                Next::Retry { after } => {
                    tx.anchor(target, stored.state, tx.now + after, WaitReason::Retry)?;
                    wait(tx, target, attempt.number)?;
                }
            }
        }
        DeliveryWrite::Park { reason, after, hold_queue, .. } => {
            // It was decided before a request went out that is detached now.
            if request_is_out(tx, target)? {
                return Ok(Written::Superseded);
            }
            let due_at = tx.now + *after;
            tx.anchor(target, stored.state, due_at, *reason)?;
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
        DeliveryWrite::End { dead: None, .. } => {
            end(tx, stored, DeliveryState::Cancelled, None, stored.attempts)?;
        }
        DeliveryWrite::End { dead: Some(reason), .. } => bury(tx, stored, *reason, stored.attempts)?,
    }
    Ok(Written::Done)
}

fn request_is_out(tx: &Tx<'_>, target: &Target) -> Outcome<bool> {
    let waiting =
        tx.row("SELECT due_at, reason FROM waiting WHERE delivery_id = ?1", [key(target.delivery_id)], |row| {
            columns::waiting(row, 0)
        })?;
    Ok(destinations::request_is_out(waiting.flatten(), tx.now))
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
    let interrupted = tx.row(
        "SELECT 1 FROM attempts WHERE delivery_id = ?1 AND number = ?2 AND outcome = ?3",
        params![key(stored.target.delivery_id), attempt.number, AttemptOutcome::Interrupted as u8],
        |_| Ok(()),
    )?;
    Ok(interrupted.is_some())
}

fn record(tx: &Tx<'_>, target: &Target, attempt: &Attempt) -> Outcome<()> {
    tx.execute(
        "INSERT OR REPLACE INTO attempts (delivery_id, number, tenant_id, destination_id, event_id, started_at,
             duration_us, outcome, status_code, error, response_excerpt)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            key(target.delivery_id),
            attempt.number,
            key(target.tenant_id),
            key(target.destination_id),
            key(target.event_id),
            attempt.started_at.as_micros(),
            i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX),
            attempt.outcome as u8,
            attempt.status_code,
            attempt.error,
            &attempt.response_excerpt[..]
        ],
    )?;
    Ok(())
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
    tx.execute(
        "INSERT OR REPLACE INTO dead_letters (delivery_id, tenant_id, destination_id, event_id, reason, dead_at,
             attempts, event_type, event_uid, event_source, event_meta, event_data)
         SELECT ?1, ?2, ?3, id, ?5, ?6, ?7, type, uid, source, meta, data FROM events WHERE id = ?4",
        params![
            key(target.delivery_id),
            key(target.tenant_id),
            key(target.destination_id),
            key(target.event_id),
            reason as u8,
            tx.now.as_micros(),
            attempts
        ],
    )?;
    Ok(())
}
