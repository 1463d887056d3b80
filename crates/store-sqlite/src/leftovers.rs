//! Brings in what others left: outbox records that the API did not see acknowledged, deliveries that the bus lost,
//! fan-outs too large for one transaction, and what waits for a deleted destination.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, params};
use signalpost_core::{
    DeliveryId, DeliveryState, DestinationId, EventId, OutboxId, TenantId, Timestamp, WaitReason,
    id::{DeliveryKind, TenantKind},
};

use crate::{
    columns::{first_at, id, key, unpack},
    failure::Outcome,
    outcomes, tenants,
    tx::{Stored, Tx},
};

/// Rows that one call of the reconciler looks at, for each that it may anchor.
const SCAN_FACTOR: usize = 20;

/// About so many bytes of delivery ids (20,000 of them) the relay takes at once; one record at least, however large.
const MOST_BYTES: usize = 20_000 * 16;

/// The most deliveries cancelled at once: what else is to be written waits for so long.
const MOST_CANCELLED: usize = 250;

/// Anchors what old outbox records hold. Gives how many it took, and whether more are left as they hold too many deliveries for
/// one transaction.
pub(crate) fn relay(tx: &Tx<'_>, older_than: Duration, most_records: usize) -> Outcome<(usize, bool)> {
    let records: Vec<(OutboxId, usize)> = tx.rows(
        "SELECT id, length(delivery_ids) FROM outbox WHERE created_at <= ?1 ORDER BY created_at, id LIMIT ?2",
        params![(tx.now - older_than).as_micros(), i64::try_from(most_records).unwrap_or(i64::MAX)],
        |row| Ok((id(row, 0)?, usize::try_from(row.get::<_, i64>(1)?).unwrap_or(0))),
    )?;
    let mut bytes = 0;
    for (place, (record, length)) in records.iter().enumerate() {
        bytes += length;
        if bytes > MOST_BYTES && place > 0 {
            return Ok((place, true));
        }
        let packed: Option<Vec<u8>> =
            tx.row("DELETE FROM outbox WHERE id = ?1 RETURNING delivery_ids", [key(*record)], |row| row.get(0))?;
        for delivery in unpack::<DeliveryKind>(&packed.unwrap_or_default()) {
            if let Some(stored) = tx.delivery(delivery)? {
                anchor_queued(tx, &stored)?;
            }
        }
    }
    Ok((records.len(), false))
}

/// Puts a delivery that is `Queued` into `waiting`, due now. True where it was.
fn anchor_queued(tx: &Tx<'_>, stored: &Stored) -> Outcome<bool> {
    if stored.state != DeliveryState::Queued {
        return Ok(false);
    }
    tx.execute(
        "UPDATE deliveries SET state = ?2 WHERE id = ?1",
        params![key(stored.target.delivery_id), DeliveryState::Waiting as u8],
    )?;
    tx.anchor(&stored.target, stored.state, tx.now, WaitReason::Turn)?;
    Ok(true)
}

/// The newest delivery.
pub(crate) fn newest(connection: &Connection) -> Outcome<Option<DeliveryId>> {
    let mut statement = connection.prepare("SELECT id FROM deliveries ORDER BY id DESC LIMIT 1")?;
    Ok(statement.query_row([], |row| id(row, 0)).optional()?)
}

/// The reconciler. Its mark moves up to the first delivery that is still `Queued` (it is in an outbox record). Whatever `until`
/// is, it goes up to what the process before this one left, `inherited`.
pub(crate) fn requeue(
    tx: &Tx<'_>,
    until: Timestamp,
    inherited: Option<DeliveryId>,
    most: usize,
) -> Outcome<(usize, bool)> {
    let scan = most.saturating_mul(SCAN_FACTOR).max(1000);
    let mark: DeliveryId = tx.mark("requeue")?;
    let until = inherited.map_or(until, |newest| until.max(newest.created_at() + Duration::from_millis(1)));
    let end = first_at::<DeliveryKind>(until);
    let rows: Vec<(DeliveryId, DeliveryState)> = tx.rows(
        "SELECT id, state FROM deliveries WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
        params![key(mark), key(end), i64::try_from(scan).unwrap_or(i64::MAX)],
        |row| Ok((id(row, 0)?, crate::columns::state(row, 1)?)),
    )?;
    let seen_all = rows.len() < scan;
    let handed_out =
        if rows.iter().any(|row| row.1 == DeliveryState::Queued) { in_outbox(tx)? } else { BTreeSet::new() };
    let mut anchored = 0;
    let mut still_queued = None;
    let mut last = None;
    let mut stopped = false;
    for (delivery, state) in rows {
        if state == DeliveryState::Queued {
            if handed_out.contains(&delivery) {
                still_queued = still_queued.or(Some(delivery));
            } else if anchored >= most {
                stopped = true;
                break;
            } else if let Some(stored) = tx.delivery(delivery)? {
                anchored += usize::from(anchor_queued(tx, &stored)?);
            }
        }
        last = Some(delivery);
    }
    let at_end = seen_all && !stopped;
    let next = match (still_queued, at_end, last) {
        (Some(queued), ..) => queued,
        (None, true, _) => end,
        (None, false, Some(last)) => last,
        (None, false, None) => mark,
    };
    if next > mark {
        tx.set_mark("requeue", next)?;
    }
    // Where an outbox record holds the mark, there is nothing to gain before the relay has taken that record.
    Ok((anchored, at_end || (anchored == 0 && next <= mark)))
}

/// The deliveries in outbox records.
fn in_outbox(tx: &Tx<'_>) -> Outcome<BTreeSet<DeliveryId>> {
    let packed: Vec<Vec<u8>> = tx.rows("SELECT delivery_ids FROM outbox", [], |row| row.get(0))?;
    Ok(packed.iter().flat_map(|packed| unpack::<DeliveryKind>(packed).collect::<Vec<_>>()).collect())
}

/// Expands large fan-outs, oldest event first. Destinations that were deleted since are left out.
pub(crate) fn expand_fan_outs(tx: &Tx<'_>, most: usize) -> Outcome<usize> {
    let mut created = 0;
    while created < most {
        let next: Option<(EventId, TenantId, usize, Vec<u8>)> = tx.row(
            "SELECT event_id, tenant_id, position, destination_ids FROM fan_outs ORDER BY event_id LIMIT 1",
            [],
            |row| Ok((id(row, 0)?, id(row, 1)?, usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0), row.get(3)?)),
        )?;
        let Some((event, tenant, position, packed)) = next else { break };
        let mut done = position;
        for destination in unpack(&packed).skip(position) {
            if created >= most {
                break;
            }
            done += 1;
            if tx.takes_replays(tenant, destination)? {
                tx.expand(tenant, event, destination)?;
                created += 1;
            }
        }
        if done * 16 >= packed.len() {
            tx.execute("DELETE FROM fan_outs WHERE event_id = ?1", [key(event)])?;
        } else {
            tx.execute(
                "UPDATE fan_outs SET position = ?2 WHERE event_id = ?1",
                params![key(event), i64::try_from(done).unwrap_or(i64::MAX)],
            )?;
        }
    }
    Ok(created)
}

/// Deleted destinations that nothing is left of: nothing waits, and nothing is on the bus.
pub(crate) fn empty_destinations(connection: &Connection) -> Outcome<Vec<DestinationId>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM destinations t WHERE state = 'deleted'
             AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.destination_id = t.id)
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.destination_id = t.id AND d.state = ?1
                             AND d.id >= (SELECT value FROM marks WHERE name = 'requeue'))
         ORDER BY id",
    )?;
    let rows = statement.query_map([DeliveryState::Queued as u8], |row| id(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// From the few destinations that are deleted (CROSS), along the index of each one's queue: left to itself, SQLite may walk through
/// all that waits for anybody. In the order of the two indexes, so that nothing is sorted.
pub(crate) const TO_CANCEL: &str = "SELECT w.delivery_id
    FROM destinations t INDEXED BY destinations_deleted CROSS JOIN waiting w INDEXED BY waiting_due ON w.destination_id = t.id
    WHERE t.state = 'deleted' AND NOT (w.reason = ?1 AND w.due_at > ?2) ORDER BY t.id LIMIT ?3";

/// What waits for deleted destinations, unless a request of it is out.
pub(crate) fn to_cancel(connection: &Connection, now: Timestamp, most: usize) -> Outcome<Vec<DeliveryId>> {
    let mut statement = connection.prepare_cached(TO_CANCEL)?;
    let rows = statement.query_map(
        params![WaitReason::InFlight as u8, now.as_micros(), i64::try_from(most).unwrap_or(i64::MAX)],
        |row| id(row, 0),
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes those, and cancels what waits for the others, unless a request of it is out.
pub(crate) fn sweep(tx: &Tx<'_>, empty: &[DestinationId], most: usize) -> Outcome<usize> {
    let mut swept = 0;
    for destination in empty.iter().take(most) {
        let sql = "DELETE FROM destinations WHERE id = ?1 AND state = 'deleted' RETURNING tenant_id";
        if let Some(tenant) = tx.row(sql, [key(*destination)], |row| id::<TenantKind>(row, 0))? {
            swept += 1;
            tenants::count_removed(tx, tenant, 1)?;
            // A queue on trial is kept while it is empty, and a late failure may have been counted.
            tx.execute("DELETE FROM queues WHERE destination_id = ?1 AND depth <= 0", [key(*destination)])?;
            tx.execute("DELETE FROM failing WHERE destination_id = ?1", [key(*destination)])?;
        }
    }
    let waiting = to_cancel(tx.connection, tx.now, (most - swept).min(MOST_CANCELLED))?;
    for delivery in waiting {
        if let Some(stored) = tx.delivery(delivery)? {
            outcomes::end(tx, &stored, DeliveryState::Cancelled, None, stored.attempts)?;
            swept += 1;
        }
    }
    Ok(swept)
}
