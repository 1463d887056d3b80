//! Drops what is older than its retention, a bounded number of rows at a time.
//!
//! Events go with all of their deliveries and attempts, a millisecond at a time, as ids of one event share that. An event
//! with a delivery that has not ended stays, with all that belongs to it.

use std::collections::BTreeSet;

use rusqlite::{Params, params};
use signalpost_core::{
    DeliveryId, DeliveryState, EventId, Timestamp,
    id::{DeliveryKind, EventKind},
};
use signalpost_store::schedule::Retention;

use crate::{
    columns::{self, ceiling, first_at, id, key},
    failure::Outcome,
    tenants,
    tx::Tx,
};

/// Milliseconds of events that one call looks at, whether or not it drops anything of them.
const MOST_STEPS: usize = 1_000;

/// Drops up to a chunk. True where there is more.
pub(crate) fn retain(tx: &Tx<'_>, retention: Retention) -> Outcome<bool> {
    let now = tx.now;
    let mut left = retention.chunk.max(1);
    let mut drop = |sql: &'static str, before: Timestamp| -> Outcome<bool> {
        let limit = left;
        let dropped = tx.execute(sql, params![before.as_micros(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
        left -= dropped.min(limit);
        Ok(dropped >= limit)
    };
    let more = drop(
        "DELETE FROM idempotency WHERE (tenant_id, scope, key) IN
             (SELECT tenant_id, scope, key FROM idempotency WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        now,
    )? || drop(
        "DELETE FROM replays WHERE id IN (SELECT id FROM replays WHERE finished_at < ?1 ORDER BY id LIMIT ?2)",
        now - retention.events,
    )?;
    if more {
        return Ok(true);
    }
    let limit = i64::try_from(left).unwrap_or(i64::MAX);
    let before = (now - retention.dead_letters).as_micros();
    let dropped = drop_letters(tx, "dead_at < ?1 ORDER BY dead_at", params![before, limit])?;
    if dropped >= left {
        return Ok(true);
    }
    left -= dropped;
    let dropped = tenants::prune(tx, now - retention.audit, left)?;
    if dropped >= left {
        return Ok(true);
    }
    left -= dropped;
    events(tx, now - retention.events, left)
}

/// Drops the dead letters of which this is true (its first value), up to so many (its second); lanes that wait for them go on.
pub(crate) fn drop_letters(tx: &Tx<'_>, condition: &str, values: impl Params) -> Outcome<usize> {
    let mut statement = tx.prepare(&format!(
        "DELETE FROM dead_letters WHERE delivery_id IN
             (SELECT delivery_id FROM dead_letters WHERE {condition} LIMIT ?2)
         RETURNING delivery_id, destination_id, lane"
    ))?;
    let dropped = statement.query_map(values, |row| Ok((id(row, 0)?, id(row, 1)?, columns::lane(row, 2)?)))?;
    let dropped = dropped.collect::<rusqlite::Result<Vec<_>>>()?;
    for (delivery, destination, lane) in &dropped {
        if let Some(lane) = lane {
            tx.unblock_lane(*destination, *lane, *delivery)?;
        }
    }
    Ok(dropped.len())
}

/// Goes on where the last call stopped, and starts again when it came to the end: an event that had to stay then may go
/// now.
fn events(tx: &Tx<'_>, before: Timestamp, most: usize) -> Outcome<bool> {
    let end: EventId = first_at(before);
    let mut from: EventId = tx.mark("retain")?;
    let mut left = most;
    for _ in 0..MOST_STEPS {
        let next = tx.row(
            "SELECT id FROM events WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
            params![key(from), key(end)],
            |row| id::<EventKind>(row, 0),
        )?;
        let Some(next) = next else {
            tx.set_mark("retain", EventId::floor(Timestamp::default()))?;
            return Ok(false);
        };
        if !millisecond(tx, next.created_at(), &mut left)? {
            from = EventId::floor(next.created_at());
            break;
        }
        from = ceiling::<EventKind>(next.created_at());
    }
    tx.set_mark("retain", from)?;
    Ok(true)
}

/// Drops what ended of that millisecond: attempts, then deliveries, then events, so that a chunk that ends in between
/// leaves nothing that refers to what is gone. False where it was too much.
fn millisecond(tx: &Tx<'_>, at: Timestamp, left: &mut usize) -> Outcome<bool> {
    let range = [key(DeliveryId::floor(at)), key(ceiling::<DeliveryKind>(at))];
    let deliveries: Vec<(DeliveryId, EventId, DeliveryState)> =
        tx.rows("SELECT id, event_id, state FROM deliveries WHERE id >= ?1 AND id < ?2 ORDER BY id", range, |row| {
            Ok((id(row, 0)?, id(row, 1)?, crate::columns::state(row, 2)?))
        })?;
    let mut live: BTreeSet<EventId> =
        deliveries.iter().filter(|delivery| !delivery.2.is_final()).map(|delivery| delivery.1).collect();
    live.extend(tx.rows("SELECT event_id FROM fan_outs WHERE event_id >= ?1 AND event_id < ?2", range, |row| {
        id::<EventKind>(row, 0)
    })?);
    for (delivery, event, _) in deliveries {
        if live.contains(&event) {
            continue;
        }
        let limit = i64::try_from(*left).unwrap_or(i64::MAX);
        *left -= tx.execute(
            "DELETE FROM attempts WHERE delivery_id = ?1
                 AND number IN (SELECT number FROM attempts WHERE delivery_id = ?1 LIMIT ?2)",
            params![key(delivery), limit],
        )?;
        if *left == 0 {
            return Ok(false);
        }
        *left -= tx.execute("DELETE FROM deliveries WHERE id = ?1", [key(delivery)])?;
        if *left == 0 {
            return Ok(false);
        }
    }
    let events: Vec<EventId> =
        tx.rows("SELECT id FROM events WHERE id >= ?1 AND id < ?2 ORDER BY id", range, |row| id(row, 0))?;
    for event in events.into_iter().filter(|event| !live.contains(event)) {
        if *left == 0 {
            return Ok(false);
        }
        *left -= tx.execute("DELETE FROM events WHERE id = ?1", [key(event)])?;
    }
    Ok(true)
}
