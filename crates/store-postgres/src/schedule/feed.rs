//! The feed: leases what is due to the bus.
//!
//! One feeder works at a time (an advisory lock for the length of the transaction), so that a queue's pace holds whoever
//! feeds it. Writers are never waited for while rows of `waiting` are taken (SKIP LOCKED); queues are locked last, sorted, and
//! their next due time is found out under that lock, so that what a writer added meanwhile is not forgotten.

use std::{collections::HashMap, sync::Arc};

use signalpost_core::{DeliveryId, DestinationId, Event, EventId, TenantId, Timestamp, WaitReason};
use signalpost_store::schedule::{Due, DueDelivery, FeedBudget};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::shares::shares;
use crate::{
    error::Failure,
    ids::uuids,
    queues::QueueChanges,
    rows::{self, big_count, count, event_columns, id, named, time, version},
    time::Time,
};

/// One feeder at a time.
const LOCK: i64 = 0x5349_474e_414c_0002;

/// A queue with a rate limit is not due again for that long after it was taken from.
const PACE_US: i64 = 1_000_000;

/// What to answer when nothing is due, by one cheap read; None: something is.
pub(super) async fn idle(connection: &mut PgConnection) -> Result<Option<Due>, Failure> {
    let (now, next) = next_due(connection).await?;
    match next {
        Some(next) if next <= now => Ok(None),
        next => Ok(Some(Due { next_in: next.map(|next| next.since(now)), ..Due::default() })),
    }
}

async fn next_due(connection: &mut PgConnection) -> Result<(Timestamp, Option<Timestamp>), Failure> {
    let row = sqlx::query(
        "SELECT clock_timestamp() AS now,
                (SELECT next_due FROM queues WHERE NOT blocked ORDER BY next_due LIMIT 1) AS next",
    )
    .fetch_one(connection)
    .await?;
    let next: Option<Time> = row.try_get("next")?;
    Ok((time(&row, "now")?, next.filter(|next| next.is_finite()).map(|next| next.0)))
}

/// A due queue.
struct Queue {
    destination_id: DestinationId,
    tenant_id: TenantId,
    version: u32,
    limited: bool,
    /// No more than that can come of it.
    cap: usize,
    /// How much it may yield this time.
    share: usize,
    /// Whether its turn came in this take.
    had_turn: bool,
}

/// A row that was leased.
struct Leased {
    delivery_id: DeliveryId,
    destination_id: DestinationId,
    event_id: EventId,
    reason: WaitReason,
}

pub(super) async fn take_due(
    transaction: &mut PgConnection,
    budget: FeedBudget,
    inline_bytes: usize,
) -> Result<Due, Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let (now, mut queues, left_out) = due_queues(transaction, budget).await?;
    let until = now + budget.lease;
    let leased = take(transaction, budget.most, &mut queues, now, until).await?;
    let deliveries = load(transaction, &queues, &leased, until, inline_bytes).await?;
    let more = advance(transaction, &queues, &leased, now).await? || left_out;
    let next_in = match more {
        true => None,
        false => next_due(transaction).await?.1.map(|next| next.since(now)),
    };
    Ok(Due { deliveries, more, next_in })
}

/// The due queues: of every tenant its longest due first, then of every tenant its second, and so on. Whether some were
/// left out.
async fn due_queues(
    transaction: &mut PgConnection,
    budget: FeedBudget,
) -> Result<(Timestamp, Vec<Queue>, bool), Failure> {
    let rows = sqlx::query(
        "SELECT statement_timestamp() AS now, q.destination_id, q.tenant_id, q.depth, d.version, d.feed_limit
         FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY next_due, destination_id) AS turn
               FROM queues WHERE NOT blocked AND next_due <= statement_timestamp()) q
         JOIN destinations d ON d.id = q.destination_id AND d.state = 'active'
         ORDER BY q.turn, q.next_due, q.destination_id LIMIT $1",
    )
    .bind(i64::try_from(budget.most).unwrap_or(i64::MAX).saturating_add(1))
    .fetch_all(&mut *transaction)
    .await?;
    let now = match rows.first() {
        Some(row) => time(row, "now")?,
        None => crate::partitions::now(transaction).await?,
    };
    let mut queues = rows.iter().map(|row| queue(row, budget)).collect::<Result<Vec<_>, _>>()?;
    let left_out = queues.len() > budget.most;
    queues.truncate(budget.most);
    Ok((now, queues, left_out))
}

fn queue(row: &PgRow, budget: FeedBudget) -> Result<Queue, Failure> {
    let limit: Option<i64> = row.try_get("feed_limit")?;
    let limited = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(1));
    // Depth is at least one where something is due; a count that is wrong for once must not stop a queue.
    let depth = usize::try_from(big_count(row, "depth")?).unwrap_or(usize::MAX).max(1);
    Ok(Queue {
        destination_id: id(row, "destination_id")?,
        tenant_id: id(row, "tenant_id")?,
        version: version(row, "version")?,
        limited: limit.is_some(),
        cap: budget.per_destination.min(limited).min(depth),
        share: 0,
        had_turn: false,
    })
}

/// Leases in turns: what some queues leave of the budget is shared among the others.
async fn take(
    transaction: &mut PgConnection,
    most: usize,
    queues: &mut [Queue],
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Leased>, Failure> {
    let mut leased: Vec<Leased> = Vec::new();
    while leased.len() < most && queues.iter().any(|queue| queue.cap > 0) {
        share_out(most - leased.len(), queues);
        let turn = lease(transaction, queues, now, until).await?;
        let mut taken = HashMap::<DestinationId, usize>::new();
        for row in &turn {
            *taken.entry(row.destination_id).or_default() += 1;
        }
        for queue in &mut *queues {
            queue.had_turn |= queue.share > 0;
            let taken = taken.get(&queue.destination_id).copied().unwrap_or_default();
            // Less than its share: nothing more of it is due, or somebody is at the rest.
            let is_empty = taken < queue.share;
            queue.cap = if is_empty { 0 } else { queue.cap - taken };
        }
        leased.extend(turn);
    }
    Ok(leased)
}

/// Shares the budget between the tenants, and each tenant's part between its destinations.
fn share_out(most: usize, queues: &mut [Queue]) {
    let mut tenants: Vec<(TenantId, Vec<usize>)> = Vec::new();
    let mut places = HashMap::<TenantId, usize>::new();
    for (place, queue) in queues.iter().enumerate() {
        let tenant = *places.entry(queue.tenant_id).or_insert_with(|| {
            tenants.push((queue.tenant_id, Vec::new()));
            tenants.len() - 1
        });
        tenants[tenant].1.push(place);
    }
    let caps: Vec<usize> = tenants
        .iter()
        .map(|(_, members)| members.iter().fold(0_usize, |sum, place| sum.saturating_add(queues[*place].cap)))
        .collect();
    for ((_, members), part) in tenants.iter().zip(shares(most, &caps)) {
        let caps: Vec<usize> = members.iter().map(|place| queues[*place].cap).collect();
        for (place, share) in members.iter().zip(shares(part, &caps)) {
            queues[*place].share = share;
        }
    }
}

/// Reads as many rows as it takes, and one more per queue.
async fn lease(
    transaction: &mut PgConnection,
    queues: &[Queue],
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Leased>, Failure> {
    let (ids, shares): (Vec<Uuid>, Vec<i64>) = queues
        .iter()
        .filter(|queue| queue.share > 0)
        .map(|queue| (queue.destination_id.uuid(), i64::try_from(queue.share).unwrap_or(i64::MAX)))
        .unzip();
    let rows = sqlx::query(
        "WITH picked AS MATERIALIZED (
             SELECT w.delivery_id
             FROM unnest($1::uuid[], $2::bigint[]) AS q(destination_id, share)
             CROSS JOIN LATERAL (
                 SELECT delivery_id FROM waiting
                 WHERE destination_id = q.destination_id AND due_at <= $3
                 ORDER BY due_at, delivery_id LIMIT q.share FOR UPDATE SKIP LOCKED
             ) w
         )
         UPDATE waiting w SET due_at = $4, leased = true FROM picked p WHERE w.delivery_id = p.delivery_id
         RETURNING w.delivery_id, w.destination_id, w.event_id, w.reason",
    )
    .bind(ids)
    .bind(shares)
    .bind(Time(now))
    .bind(Time(until))
    .fetch_all(transaction)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Leased {
                delivery_id: id(row, "delivery_id")?,
                destination_id: id(row, "destination_id")?,
                event_id: id(row, "event_id")?,
                reason: named(row, "reason", WaitReason::from_number)?,
            })
        })
        .collect()
}

/// Completes leased rows with their attempts and events; each event is read once.
async fn load(
    transaction: &mut PgConnection,
    queues: &[Queue],
    leased: &[Leased],
    until: Timestamp,
    inline_bytes: usize,
) -> Result<Vec<DueDelivery>, Failure> {
    if leased.is_empty() {
        return Ok(Vec::new());
    }
    let attempts = attempts(transaction, leased).await?;
    let events = events(transaction, leased, inline_bytes).await?;
    let queues: HashMap<DestinationId, &Queue> = queues.iter().map(|queue| (queue.destination_id, queue)).collect();
    let mut due = Vec::with_capacity(leased.len());
    for row in leased {
        let (Some(queue), Some(attempts), Some((event, whole))) =
            (queues.get(&row.destination_id), attempts.get(&row.delivery_id), events.get(&row.event_id))
        else {
            tracing::error!(delivery.id = %row.delivery_id, event.id = %row.event_id, "waiting delivery without its event");
            continue;
        };
        due.push(DueDelivery {
            delivery_id: row.delivery_id,
            tenant_id: queue.tenant_id,
            destination_id: row.destination_id,
            destination_version: queue.version,
            attempts: *attempts,
            reason: row.reason,
            leased_until: until,
            event: Arc::clone(event),
            whole: *whole,
        });
    }
    Ok(due)
}

async fn attempts(transaction: &mut PgConnection, leased: &[Leased]) -> Result<HashMap<DeliveryId, u32>, Failure> {
    let ids = uuids(leased.iter().map(|row| row.delivery_id));
    let rows =
        sqlx::query("SELECT id, attempts FROM deliveries WHERE id = ANY($1)").bind(ids).fetch_all(transaction).await?;
    rows.iter().map(|row| Ok((id(row, "id")?, count(row, "attempts")?))).collect()
}

async fn events(
    transaction: &mut PgConnection,
    leased: &[Leased],
    inline_bytes: usize,
) -> Result<HashMap<EventId, (Arc<Event>, bool)>, Failure> {
    let mut ids = uuids(leased.iter().map(|row| row.event_id));
    ids.sort_unstable();
    ids.dedup();
    let rows = sqlx::query(concat!(
        "SELECT ",
        event_columns!("CASE WHEN octet_length(e.data) <= $2 THEN e.data END"),
        ", octet_length(e.data) <= $2 AS whole FROM events e WHERE e.id = ANY($1)"
    ))
    .bind(ids)
    .bind(i64::try_from(inline_bytes).unwrap_or(i64::MAX))
    .fetch_all(transaction)
    .await?;
    rows.iter().map(|row| Ok((id(row, "id")?, (rows::event(row)?, row.try_get("whole")?)))).collect()
}

/// Tells the queues when they are due next. A queue of which more is due goes to the end of the line. Gives whether there
/// is one; one whose turn did not come keeps its place, and is among them. One of which nothing due is left is drained: what is leased from it or due later is no reason to spill new
/// deliveries; unless somebody has held it meanwhile.
async fn advance(
    transaction: &mut PgConnection,
    all: &[Queue],
    leased: &[Leased],
    now: Timestamp,
) -> Result<bool, Failure> {
    let mut queues: Vec<&Queue> = all.iter().filter(|queue| queue.had_turn).collect();
    let left_out = queues.len() < all.len();
    queues.sort_unstable_by_key(|queue| queue.destination_id);
    let ids = uuids(queues.iter().map(|queue| queue.destination_id));
    let taken: std::collections::HashSet<DestinationId> = leased.iter().map(|row| row.destination_id).collect();
    let paces: Vec<i64> = queues
        .iter()
        .map(|queue| if queue.limited && taken.contains(&queue.destination_id) { PACE_US } else { 0 })
        .collect();
    sqlx::query("SELECT FROM queues WHERE destination_id = ANY($1) ORDER BY destination_id FOR UPDATE")
        .bind(&ids)
        .execute(&mut *transaction)
        .await?;
    // A statement of its own: it sees everything that was committed before the lock was ours.
    let next: Vec<Time> = sqlx::query_scalar(
        "UPDATE queues q SET
             next_due = GREATEST(COALESCE(i.first_due, 'infinity'), $3, $3 + i.pace_us * interval '1 microsecond', q.hold_until),
             hold_until = CASE WHEN i.pace_us > 0
                 THEN GREATEST(q.hold_until, $3 + i.pace_us * interval '1 microsecond') ELSE q.hold_until END,
             spilled = q.spilled AND (COALESCE(i.first_due, 'infinity') <= $3 OR COALESCE(q.hold_until > $3, false))
         FROM (SELECT u.destination_id, u.pace_us,
                      (SELECT w.due_at FROM waiting w WHERE w.destination_id = u.destination_id
                       ORDER BY w.due_at LIMIT 1) AS first_due
               FROM unnest($1::uuid[], $2::bigint[]) AS u(destination_id, pace_us)) i
         WHERE q.destination_id = i.destination_id
         RETURNING q.next_due",
    )
    .bind(ids)
    .bind(paces)
    .bind(Time(now))
    .fetch_all(transaction)
    .await?;
    Ok(left_out || next.into_iter().any(|next| next.0 <= now))
}

/// Gives leases back whose marks are still theirs. Rows that somebody writes just now are left to them.
pub(super) async fn give_back(
    transaction: &mut PgConnection,
    deliveries: &[(DeliveryId, Timestamp)],
) -> Result<(), Failure> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT w.delivery_id FROM waiting w
             JOIN unnest($1::uuid[], $2::timestamptz[]) AS i(delivery_id, due_at)
                  ON w.delivery_id = i.delivery_id AND w.due_at = i.due_at
             WHERE w.leased FOR UPDATE OF w SKIP LOCKED
         )
         UPDATE waiting w SET due_at = statement_timestamp(), leased = false FROM held h
         WHERE w.delivery_id = h.delivery_id
         RETURNING w.tenant_id, w.destination_id",
    )
    .bind(uuids(deliveries.iter().map(|(id, _)| *id)))
    .bind(deliveries.iter().map(|(_, mark)| Time(*mark)).collect::<Vec<_>>())
    .fetch_all(&mut *transaction)
    .await?;
    let mut changes = QueueChanges::default();
    for row in &rows {
        changes.due(id(row, "tenant_id")?, id(row, "destination_id")?, 0);
    }
    changes.apply(transaction).await
}
