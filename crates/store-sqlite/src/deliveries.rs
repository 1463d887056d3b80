//! What people do to single deliveries, events and dead letters: retry, cancel, replay, discard.

use rusqlite::params;
use signalpost_core::{
    DeadReason, DeliveryId, DeliveryState, DestinationId, EventId, Guarantee, TenantId, Timestamp, WaitReason,
    id::DeliveryKind,
};
use signalpost_store::{
    HANDOVER_LEASE, NEVER,
    manage::{Cancelled, Retried},
};

use crate::{
    columns::{self, ceiling, id, key},
    failure::Outcome,
    outcomes,
    tx::{Stored, Tx},
};

/// A row of `waiting`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anchor {
    pub(crate) due_at: Timestamp,
    pub(crate) reason: WaitReason,
    pub(crate) leased: bool,
    /// Of the one request that an at-most-once delivery gets.
    pub(crate) claim: Option<u64>,
}

impl Anchor {
    /// Whether one is out: until when it may be is when the row is due.
    pub(crate) fn request_is_out(&self, now: Timestamp) -> bool {
        self.reason == WaitReason::InFlight && self.due_at > now
    }

    /// Whether a dispatcher may have it, to send it, under another lease than this. One whose request was out is leased to be
    /// recorded.
    pub(crate) fn is_anothers(&self, mark: Timestamp, now: Timestamp) -> bool {
        self.may_be_taken(now) && self.due_at != mark && self.reason != WaitReason::InFlight
    }

    /// Whether its lease is so short that it may be a dispatcher's, and not only the bus's.
    fn may_be_taken(&self, now: Timestamp) -> bool {
        self.leased && self.due_at > now && self.due_at <= now + HANDOVER_LEASE
    }
}

/// The row of a delivery, where it waits.
pub(crate) fn anchor(tx: &Tx<'_>, delivery: DeliveryId) -> Outcome<Option<Anchor>> {
    tx.row("SELECT due_at, reason, leased, claim FROM waiting WHERE delivery_id = ?1", [key(delivery)], |row| {
        Ok(Anchor {
            due_at: columns::time(row, 0)?,
            reason: columns::wait_reason(row, 1)?,
            leased: row.get(2)?,
            claim: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        })
    })
}

fn of_tenant(tx: &Tx<'_>, tenant: TenantId, delivery: DeliveryId) -> Outcome<Option<Stored>> {
    Ok(tx.delivery(delivery)?.filter(|stored| stored.target.tenant_id == tenant))
}

/// Makes a waiting delivery due, or sends an ended one again.
pub(crate) fn retry(tx: &Tx<'_>, tenant: TenantId, delivery: DeliveryId) -> Outcome<Retried> {
    let Some(stored) = of_tenant(tx, tenant, delivery)? else { return Ok(Retried::NotFound) };
    if !tx.takes_replays(tenant, stored.target.destination_id)? {
        return Ok(Retried::Gone);
    }
    match stored.state {
        DeliveryState::Queued => Ok(Retried::DueNow),
        DeliveryState::Waiting => make_due(tx, &stored),
        _ if stored.guarantee == Guarantee::AtMostOnce => Ok(Retried::AtMostOnce),
        DeliveryState::Delivered | DeliveryState::Dead | DeliveryState::Cancelled => again(tx, &stored),
    }
}

fn make_due(tx: &Tx<'_>, stored: &Stored) -> Outcome<Retried> {
    if let Some(anchor) = anchor(tx, stored.target.delivery_id)? {
        if anchor.request_is_out(tx.now) {
            return Ok(Retried::InFlight);
        }
        // A leased one is on its way: a new due time would make a second message of it. A follower is due when its lane says so.
        if !anchor.leased && anchor.due_at > tx.now && anchor.due_at < NEVER {
            tx.make_due(&stored.target, tx.now)?;
        }
    }
    Ok(Retried::DueNow)
}

/// Sends an ended delivery again. Replays form a chain: what is replayed is its end, and where that has not ended, it is
/// the answer.
fn again(tx: &Tx<'_>, asked: &Stored) -> Outcome<Retried> {
    let mut newest = *asked;
    while let Some(next) = newest.replayed_by {
        match tx.delivery(next)? {
            Some(stored) if !stored.state.is_final() => return Ok(Retried::Again(next)),
            Some(stored) => newest = stored,
            None => break,
        }
    }
    let target = newest.target;
    if !tx.revive_event(target.event_id, target.delivery_id)? {
        return Ok(Retried::Gone);
    }
    let born = tx.give_birth(target.tenant_id, target.event_id, target.destination_id, Some(target.delivery_id))?;
    Ok(Retried::Again(born))
}

/// Cancels a delivery of which no request is known to be out.
pub(crate) fn cancel(tx: &Tx<'_>, tenant: TenantId, delivery: DeliveryId) -> Outcome<Cancelled> {
    let Some(stored) = of_tenant(tx, tenant, delivery)? else { return Ok(Cancelled::NotFound) };
    match stored.state {
        DeliveryState::Cancelled => return Ok(Cancelled::Yes),
        DeliveryState::Delivered | DeliveryState::Dead => {
            return Ok(Cancelled::Ended(stored.state.status(stored.attempts)));
        }
        DeliveryState::Queued | DeliveryState::Waiting => {}
    }
    // The end of one of a lane lets the next one go, so nobody may be about to send it.
    let is_in_hand =
        |anchor: Anchor| anchor.request_is_out(tx.now) || (stored.place.is_some() && anchor.may_be_taken(tx.now));
    if anchor(tx, delivery)?.is_some_and(is_in_hand) {
        return Ok(Cancelled::InFlight);
    }
    outcomes::end(tx, &stored, DeliveryState::Cancelled, None, stored.attempts)?;
    Ok(Cancelled::Yes)
}

/// Sends an event again.
pub(crate) fn replay_event(
    tx: &Tx<'_>,
    tenant: TenantId,
    event: EventId,
    only: Option<DestinationId>,
) -> Outcome<Option<Vec<DeliveryId>>> {
    let found =
        tx.row("SELECT 1 FROM events WHERE id = ?1 AND tenant_id = ?2", params![key(event), key(tenant)], |_| Ok(()))?;
    if found.is_none() {
        return Ok(None);
    }
    // The ends of the chains; of several to one destination the one that was created last, as far as ids tell.
    let at = event.created_at();
    let sent: Vec<(DestinationId, DeliveryId)> = tx.rows(
        "SELECT destination_id, max(id) FROM deliveries
         WHERE id >= ?1 AND id < ?2 AND event_id = ?3 AND tenant_id = ?4 AND replayed_by IS NULL
         GROUP BY destination_id ORDER BY destination_id",
        params![key(DeliveryId::floor(at)), key(ceiling::<DeliveryKind>(at)), key(event), key(tenant)],
        |row| Ok((id(row, 0)?, id(row, 1)?)),
    )?;
    let wanted: Vec<(DestinationId, Option<DeliveryId>)> = match only {
        None => sent.into_iter().map(|(destination, newest)| (destination, Some(newest))).collect(),
        Some(only) => vec![(only, sent.into_iter().find(|(destination, _)| *destination == only).map(|sent| sent.1))],
    };
    let mut born = Vec::with_capacity(wanted.len());
    for (destination, newest) in wanted {
        if tx.takes_replays(tenant, destination)? {
            born.push(tx.give_birth(tenant, event, destination, newest)?);
        }
    }
    Ok(Some(born))
}

/// Sends a dead letter again.
pub(crate) fn replay_dead_letter(tx: &Tx<'_>, tenant: TenantId, delivery: DeliveryId) -> Outcome<Retried> {
    let found = tx.row(
        "SELECT event_id, destination_id FROM dead_letters WHERE delivery_id = ?1 AND tenant_id = ?2",
        params![key(delivery), key(tenant)],
        |row| Ok((id(row, 0)?, id(row, 1)?)),
    )?;
    let Some((event, destination)) = found else { return Ok(Retried::NotFound) };
    if !tx.takes_replays(tenant, destination)? || !tx.revive_event(event, delivery)? {
        return Ok(Retried::Gone);
    }
    Ok(Retried::Again(tx.give_birth(tenant, event, destination, Some(delivery))?))
}

/// Takes a dead letter off the list.
pub(crate) fn discard(tx: &Tx<'_>, tenant: TenantId, delivery: DeliveryId) -> Outcome<bool> {
    let removed = tx.row(
        "DELETE FROM dead_letters WHERE delivery_id = ?1 AND tenant_id = ?2 RETURNING destination_id, lane",
        params![key(delivery), key(tenant)],
        |row| Ok((id(row, 0)?, columns::lane(row, 1)?)),
    )?;
    if let Some((destination, lane)) = removed {
        if let Some(lane) = lane {
            tx.unblock_lane(destination, lane, delivery)?;
        }
        tx.execute(
            "UPDATE deliveries SET reason = ?2 WHERE id = ?1",
            params![key(delivery), DeadReason::Discarded as u8],
        )?;
    }
    Ok(removed.is_some())
}
