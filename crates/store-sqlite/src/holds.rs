//! Queues that circuits hold.

use rusqlite::params;
use signalpost_core::{DestinationId, TenantId, WaitReason};
use signalpost_store::{NEVER, dispatch::QueueHold};

use crate::{
    columns::{id, key},
    failure::Outcome,
    tx::Tx,
};

/// Holds queues, or lets them go.
pub(crate) fn hold(tx: &Tx<'_>, holds: &[QueueHold]) -> Outcome<()> {
    for hold in holds {
        let destination = tx.row(
            "SELECT tenant_id, state <> 'active' FROM destinations WHERE id = ?1 AND state <> 'deleted'",
            [key(hold.destination_id)],
            |row| Ok((id(row, 0)?, row.get(1)?)),
        )?;
        let Some((tenant, blocked)) = destination else { continue };
        if hold.hold.is_zero() && hold.trial.is_none() {
            release(tx, hold.destination_id)?;
        } else {
            one(tx, hold, tenant, blocked)?;
        }
    }
    Ok(())
}

/// A queue on trial has a row even while nothing waits in it: what comes while its circuit is open goes there.
fn one(tx: &Tx<'_>, hold: &QueueHold, tenant: TenantId, blocked: bool) -> Outcome<()> {
    let until = (tx.now + hold.hold).as_micros();
    let trial = hold.trial.map(std::num::NonZeroU32::get);
    if trial.is_some() {
        tx.execute(
            "INSERT INTO queues (destination_id, tenant_id, depth, next_due, blocked) VALUES (?1, ?2, 0, ?3, ?4)
             ON CONFLICT (destination_id) DO NOTHING",
            params![key(hold.destination_id), key(tenant), until, blocked],
        )?;
    }
    tx.execute(
        "UPDATE queues SET spilled = 1, trial = ?3,
             hold_until = CASE WHEN ?4 THEN ?2 ELSE max(hold_until, ?2) END,
             next_due = CASE WHEN ?4 THEN ?2 ELSE max(next_due, hold_until, ?2) END
         WHERE destination_id = ?1",
        params![key(hold.destination_id), until, trial, hold.hold.is_zero()],
    )?;
    Ok(())
}

/// Lets a queue go: due now, as usual.
pub(crate) fn release(tx: &Tx<'_>, destination: DestinationId) -> Outcome<()> {
    tx.execute(
        "UPDATE queues SET hold_until = 0, paced_until = 0, trial = NULL, next_due = ?2 WHERE destination_id = ?1",
        params![key(destination), tx.now.as_micros()],
    )?;
    tx.execute("DELETE FROM queues WHERE destination_id = ?1 AND depth <= 0", [key(destination)])?;
    Ok(())
}

/// Lets a queue go that is held, on its owner's behalf: what waits for its circuit is due now, too.
pub(crate) fn release_held(tx: &Tx<'_>, destination: DestinationId) -> Outcome<()> {
    let held = tx.row(
        "SELECT 1 FROM queues WHERE destination_id = ?1 AND (hold_until > ?2 OR trial IS NOT NULL)",
        params![key(destination), tx.now.as_micros()],
        |_| Ok(()),
    )?;
    if held.is_none() {
        return Ok(());
    }
    tx.execute(
        "UPDATE waiting SET due_at = ?2
         WHERE destination_id = ?1 AND due_at > ?2 AND due_at < ?4 AND reason = ?3 AND leased = 0",
        params![key(destination), tx.now.as_micros(), WaitReason::Circuit as u8, NEVER.as_micros()],
    )?;
    release(tx, destination)
}
