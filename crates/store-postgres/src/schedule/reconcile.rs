//! The reconciler: finds what is `Queued` although the bus has moved past it.
//!
//! It reads deliveries in the order of their ids, each about once: a durable mark says below which id nothing is `Queued`.
//! The mark stays behind the present by [`LATENESS`], because ids are made before their transaction commits; and behind
//! what an outbox record still holds, which is the relay's.

use std::{collections::HashSet, time::Duration};

use signalpost_core::{DeliveryId, DeliveryState, Timestamp, id::Id};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{error::Failure, ids::unpack, partitions::now, rows::optional_id, waiting};

/// The longest time between the making of an id and the commit of its delivery.
const LATENESS: Duration = Duration::from_secs(30);

/// How many deliveries one call reads, at least.
const SCAN: usize = 10_000;

/// What one scan found.
struct Scan {
    read: usize,
    last: Option<DeliveryId>,
    /// In the order of their ids.
    queued: Vec<DeliveryId>,
    in_outbox: HashSet<DeliveryId>,
}

pub(super) async fn requeue_lost(
    transaction: &mut PgConnection,
    until: Timestamp,
    most: usize,
) -> Result<(usize, bool), Failure> {
    let mark: Option<String> =
        sqlx::query_scalar("SELECT value FROM marks WHERE name = 'requeue_lost' FOR UPDATE SKIP LOCKED")
            .fetch_optional(&mut *transaction)
            .await?;
    // Another process is at it.
    let Some(mark) = mark else { return Ok((0, true)) };
    let mark = Uuid::parse_str(&mark).map_err(|error| Failure::Inconsistent(format!("the mark: {error}")))?;
    let room = SCAN.max(most);
    let scan = scan(transaction, mark, DeliveryId::floor(until).uuid(), room).await?;

    let mut lost: Vec<DeliveryId> = scan.queued.iter().filter(|id| !scan.in_outbox.contains(id)).copied().collect();
    let cut = lost.len() > most;
    lost.truncate(most);
    // Everything before this one has ended or waits, once the lost ones are anchored.
    let reached = if cut { lost.last().copied() } else { scan.last };
    let held = scan.queued.iter().find(|id| scan.in_outbox.contains(id)).copied();
    let settled = DeliveryId::floor(now(&mut *transaction).await? - LATENESS);

    let anchored = if lost.is_empty() { 0 } else { waiting::anchor(transaction, &mut lost).await? };
    let mut next = reached.map_or(mark, Id::uuid).min(settled.uuid());
    if let Some(held) = held {
        next = next.min(before(held));
    }
    // Behind what is too young, or held, nothing is read again before that has changed.
    let halted = reached.is_some_and(|reached| next < reached.uuid());
    if next > mark {
        sqlx::query("UPDATE marks SET value = $1 WHERE name = 'requeue_lost'")
            .bind(next.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    let came_to_the_end = !cut && (scan.read < room || halted);
    // Nothing anchored and no way forward: asking again at once would find the same.
    let stuck = anchored == 0 && next <= mark;
    Ok((anchored, came_to_the_end || stuck))
}

/// One statement, so that deliveries and outbox are seen at the same moment.
async fn scan(transaction: &mut PgConnection, mark: Uuid, end: Uuid, room: usize) -> Result<Scan, Failure> {
    let rows = sqlx::query(
        "WITH scanned AS MATERIALIZED (
             SELECT id, state FROM deliveries WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3
         )
         (SELECT id, NULL::bigint AS read, NULL::bytea AS held FROM scanned WHERE state = $4 ORDER BY id)
         UNION ALL (SELECT id, (SELECT count(*) FROM scanned), NULL FROM scanned ORDER BY id DESC LIMIT 1)
         UNION ALL (SELECT NULL, NULL, delivery_ids FROM outbox WHERE EXISTS (SELECT FROM scanned WHERE state = $4))",
    )
    .bind(mark)
    .bind(end)
    .bind(i64::try_from(room).unwrap_or(i64::MAX))
    .bind(DeliveryState::Queued as i16)
    .fetch_all(transaction)
    .await?;
    let mut scan = Scan { read: 0, last: None, queued: Vec::new(), in_outbox: HashSet::new() };
    for row in &rows {
        if let Some(held) = row.try_get::<Option<&[u8]>, _>("held")? {
            scan.in_outbox.extend(unpack::<signalpost_core::id::DeliveryKind>(held));
        } else if let Some(read) = row.try_get::<Option<i64>, _>("read")? {
            scan.read = usize::try_from(read).unwrap_or_default();
            scan.last = optional_id(row, "id")?;
        } else {
            scan.queued.extend(optional_id(row, "id")?);
        }
    }
    Ok(scan)
}

/// The id right before that one.
fn before(id: DeliveryId) -> Uuid {
    Uuid::from_u128(id.uuid().as_u128().saturating_sub(1))
}
