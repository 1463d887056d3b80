//! The feed: leases what is due to the bus.
//!
//! One feeder works at a time (an advisory lock for the length of the transaction), so that a queue's pace holds whoever
//! feeds it. Writers are never waited for while rows of `waiting` are taken (SKIP LOCKED); queues are locked last, sorted, and
//! their next due time is found out under that lock, so that what a writer added meanwhile is not forgotten.

use std::{collections::HashMap, time::Duration};

use signalpost_core::{DeliveryId, DestinationId, TenantId, Timestamp, WaitReason};
use signalpost_store::schedule::{Due, FeedBudget};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{feed_statements as statements, shares::shares};
use crate::{
    due::{self, Leased},
    error::Failure,
    ids::uuids,
    queues::{QueueChanges, micros},
    rows::{big_count, id, named, time, version},
    time::Time,
};

/// One feeder at a time.
const LOCK: i64 = 0x5349_474e_414c_0002;

/// A queue with a rate limit, or on trial, is not due again for that long after all that it may yield was taken. Where less of
/// what its rate lets it yield was taken (a take has a budget), it is for as much less, or its rate would not be used up.
const PACE_US: i64 = 1_000_000;

/// A trial of which nothing was heard for so long after its hold is over: whoever made it is gone.
const TRIAL_LIFE: Duration = Duration::from_secs(600);

/// What to answer when nothing is due, by one cheap read; None: something is.
pub(super) async fn idle(connection: &mut PgConnection) -> Result<Option<Due>, Failure> {
    let (now, next) = next_due(connection).await?;
    match next {
        Some(next) if next <= now => Ok(None),
        next => Ok(Some(Due { next_in: next.map(|next| next.since(now)), ..Due::default() })),
    }
}

async fn next_due(connection: &mut PgConnection) -> Result<(Timestamp, Option<Timestamp>), Failure> {
    let row = sqlx::query(statements::NEXT_DUE).fetch_one(connection).await?;
    let next: Option<Time> = row.try_get("next")?;
    Ok((time(&row, "now")?, next.filter(|next| next.is_finite()).map(|next| next.0)))
}

/// A due queue.
struct Queue {
    destination_id: DestinationId,
    tenant_id: TenantId,
    version: u32,
    /// The most that it may yield; it rests after that.
    limit: Option<usize>,
    /// It is on trial: it rests whole, whatever it yielded.
    on_trial: bool,
    /// No more than that can come of it.
    cap: usize,
    /// How much it may yield this time.
    share: usize,
    /// Whether its turn came in this take.
    had_turn: bool,
}

impl Queue {
    fn pace_us(&self, taken: usize) -> i64 {
        let share = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        match self.limit {
            Some(limit) if taken > 0 && !self.on_trial => PACE_US.saturating_mul(share(taken)) / share(limit),
            Some(_) if taken > 0 => PACE_US,
            _ => 0,
        }
    }
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
    let deliveries = due::load(transaction, &leased, inline_bytes).await?;
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
    let rows = sqlx::query(statements::DUE_QUEUES)
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
    let trial: Option<i32> = row.try_get("trial")?;
    let limit = [row.try_get("feed_limit")?, trial.map(i64::from)].into_iter().flatten().min();
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(1).max(1));
    // Depth is at least one where something is due; a count that is wrong for once must not stop a queue.
    let depth = usize::try_from(big_count(row, "depth")?).unwrap_or(usize::MAX).max(1);
    Ok(Queue {
        destination_id: id(row, "destination_id")?,
        tenant_id: id(row, "tenant_id")?,
        version: version(row, "version")?,
        limit,
        on_trial: trial.is_some(),
        cap: budget.per_destination.min(limit.unwrap_or(usize::MAX)).min(depth),
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
    let versions: HashMap<DestinationId, u32> =
        queues.iter().map(|queue| (queue.destination_id, queue.version)).collect();
    let (ids, shares): (Vec<Uuid>, Vec<i64>) = queues
        .iter()
        .filter(|queue| queue.share > 0)
        .map(|queue| (queue.destination_id.uuid(), i64::try_from(queue.share).unwrap_or(i64::MAX)))
        .unzip();
    let rows = sqlx::query(statements::LEASE)
        .bind(ids)
        .bind(shares)
        .bind(Time(now))
        .bind(Time(until))
        .fetch_all(transaction)
        .await?;
    rows.iter()
        .map(|row| {
            let destination_id = id(row, "destination_id")?;
            Ok(Leased {
                delivery_id: id(row, "delivery_id")?,
                tenant_id: id(row, "tenant_id")?,
                destination_id,
                version: versions.get(&destination_id).copied().unwrap_or_default(),
                event_id: id(row, "event_id")?,
                reason: named(row, "reason", WaitReason::from_number)?,
                until,
            })
        })
        .collect()
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
    let mut taken = HashMap::<DestinationId, usize>::new();
    for row in leased {
        *taken.entry(row.destination_id).or_default() += 1;
    }
    let paces: Vec<i64> = queues
        .iter()
        .map(|queue| queue.pace_us(taken.get(&queue.destination_id).copied().unwrap_or_default()))
        .collect();
    sqlx::query("SELECT FROM queues WHERE destination_id = ANY($1) ORDER BY destination_id FOR UPDATE")
        .bind(&ids)
        .execute(&mut *transaction)
        .await?;
    // A statement of its own: it sees everything that was committed before the lock was ours.
    let next: Vec<Time> = sqlx::query_scalar(statements::ADVANCE)
        .bind(ids)
        .bind(paces)
        .bind(Time(now))
        .bind(micros(TRIAL_LIFE))
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
             WHERE w.leased AND w.delivery_id = ANY($1) FOR UPDATE OF w SKIP LOCKED
         )
         UPDATE waiting w SET due_at = statement_timestamp(), leased = false FROM held h
         WHERE w.delivery_id = h.delivery_id AND w.delivery_id = ANY($1)
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
