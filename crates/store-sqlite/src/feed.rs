//! The feed: leases what is due to the bus, queues in turn.
//!
//! A queue's `next_due` is the time since when it could be served; serving it moves that to now, so that among
//! queues that are due all the time the one that was served longest ago comes first. Within one take, tenants come in
//! turn, and each tenant's destinations in turn, a few rows each time: neither a flooded destination nor a tenant with
//! thousands of them keeps the others waiting.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, params};
use signalpost_core::{DeliveryId, DestinationId, Event, EventId, Guarantee, LaneId, TenantId, Timestamp, WaitReason};
use signalpost_store::{
    HANDOVER_LEASE, NEVER,
    dispatch::Target,
    schedule::{Due, DueDelivery, FeedBudget},
};

use crate::{
    columns::{self, id, key},
    failure::{Failure, Outcome},
    tx::Tx,
};

/// The most queues that one take looks at.
const MOST_QUEUES: usize = 10_000;

/// How long a queue that is rate-limited or on trial rests after it was served whole. One that got less of what its rate
/// lets it have (a take has a budget) rests for as much less, or its rate would not be used up.
const REST: Duration = Duration::from_secs(1);

/// The largest `data` that comes along.
const MAX_DATA_BYTES: i64 = 64 * 1024;

/// A trial of which nothing was heard for so long after its hold is over: whoever made it is gone.
const TRIAL_LIFE: Duration = Duration::from_secs(600);

/// When the first queue is due; None where nothing waits that could be fed.
pub(crate) fn next_due(connection: &Connection) -> Outcome<Option<Timestamp>> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(next_due) FROM queues WHERE blocked = 0")?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_micros).filter(|next| *next < NEVER))
}

/// A queue that is due.
struct Queue {
    tenant_id: TenantId,
    destination_id: DestinationId,
    destination_version: u32,
    /// The most that it may have; it rests after that.
    limit: Option<usize>,
    /// It is on trial: it rests whole, whatever it got.
    on_trial: bool,
    /// What it got.
    got: usize,
    /// How many rows it may still yield in this take.
    left: usize,
    /// The rows that it yields, in their order; found when its turn comes.
    rows: Option<VecDeque<Row>>,
}

impl Queue {
    fn rest(&self) -> Duration {
        match self.limit {
            Some(limit) if self.got > 0 && !self.on_trial => REST * share(self.got) / share(limit),
            Some(_) if self.got > 0 => REST,
            _ => Duration::ZERO,
        }
    }
}

fn share(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A delivery that is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) target: Target,
    pub(crate) reason: WaitReason,
    pub(crate) attempts: u32,
    pub(crate) lane: Option<LaneId>,
    pub(crate) guarantee: Guarantee,
    pub(crate) born_at: Option<Timestamp>,
}

/// Takes what is due.
pub(crate) fn take(tx: &Tx<'_>, budget: FeedBudget) -> Outcome<Due> {
    let mut queues = due_queues(tx, budget)?;
    let leased_until = tx.now + budget.lease;
    let mut taken = Vec::new();
    // Each tenant's queues that still have something, in their order.
    let mut tenants: VecDeque<VecDeque<usize>> = in_turn(&queues);
    let quantum = (budget.most / queues.len().max(1)).max(1);
    while taken.len() < budget.most
        && let Some(mut tenant) = tenants.pop_front()
    {
        if let Some(place) = tenant.pop_front() {
            let queue = &mut queues[place];
            let wanted = quantum.min(budget.most - taken.len());
            let got = serve(tx, queue, wanted, leased_until, &mut taken)?;
            if got == wanted && queue.left > 0 {
                tenant.push_back(place);
            }
        }
        if !tenant.is_empty() {
            tenants.push_back(tenant);
        }
    }
    for queue in &queues {
        settle(tx, queue)?;
    }
    let next = next_due(tx.connection)?;
    let more = next.is_some_and(|next| next <= tx.now) && !taken.is_empty();
    let next_in = next.filter(|_| !more).map(|next| next.since(tx.now));
    Ok(Due { deliveries: load(tx, &taken, leased_until)?, more, next_in })
}

fn due_queues(tx: &Tx<'_>, budget: FeedBudget) -> Outcome<Vec<Queue>> {
    tx.rows(
        "SELECT q.destination_id, q.tenant_id, d.version, d.feed_limit, q.trial
         FROM queues q JOIN destinations d ON d.id = q.destination_id
         WHERE q.blocked = 0 AND q.next_due <= ?1 ORDER BY q.next_due, q.destination_id LIMIT ?2",
        params![tx.now.as_micros(), i64::try_from(MOST_QUEUES).unwrap_or(i64::MAX)],
        |row| {
            let limits: [Option<i64>; 2] = [row.get(3)?, row.get(4)?];
            let limit = limits.into_iter().flatten().min();
            let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(1).max(1));
            Ok(Queue {
                destination_id: id(row, 0)?,
                tenant_id: id(row, 1)?,
                destination_version: row.get(2)?,
                limit,
                on_trial: limits[1].is_some(),
                got: 0,
                left: budget.per_destination.min(limit.unwrap_or(usize::MAX)),
                rows: None,
            })
        },
    )
}

/// Queues by tenant; tenants in the order of their first queue.
fn in_turn(queues: &[Queue]) -> VecDeque<VecDeque<usize>> {
    let mut places: BTreeMap<TenantId, usize> = BTreeMap::new();
    let mut tenants: VecDeque<VecDeque<usize>> = VecDeque::new();
    for (place, queue) in queues.iter().enumerate() {
        let tenant = *places.entry(queue.tenant_id).or_insert_with(|| {
            tenants.push_back(VecDeque::new());
            tenants.len() - 1
        });
        tenants[tenant].push_back(place);
    }
    tenants
}

/// With the version of its destination.
pub(crate) type Taken = (Row, u32);

/// Leases up to `wanted` rows of a queue.
fn serve(
    tx: &Tx<'_>,
    queue: &mut Queue,
    wanted: usize,
    leased_until: Timestamp,
    taken: &mut Vec<Taken>,
) -> Outcome<usize> {
    if queue.rows.is_none() {
        queue.rows = Some(due_rows(tx, queue)?);
    }
    let rows = queue.rows.get_or_insert_default();
    let mut got = 0;
    while got < wanted.min(queue.left)
        && let Some(row) = rows.pop_front()
    {
        tx.execute(
            "UPDATE waiting SET due_at = ?2, leased = 1 WHERE delivery_id = ?1",
            params![key(row.target.delivery_id), leased_until.as_micros()],
        )?;
        taken.push((row, queue.destination_version));
        got += 1;
    }
    queue.left -= got;
    queue.got += got;
    Ok(got)
}

fn due_rows(tx: &Tx<'_>, queue: &Queue) -> Outcome<VecDeque<Row>> {
    let rows = tx.rows(
        "SELECT w.delivery_id, w.event_id, w.reason, d.attempts, d.lane, d.guarantee, d.born_at
         FROM waiting w JOIN deliveries d ON d.id = w.delivery_id
         WHERE w.destination_id = ?1 AND w.due_at <= ?2 ORDER BY w.due_at, w.delivery_id LIMIT ?3",
        params![key(queue.destination_id), tx.now.as_micros(), i64::try_from(queue.left).unwrap_or(i64::MAX)],
        |row| {
            Ok(Row {
                target: Target {
                    delivery_id: id(row, 0)?,
                    tenant_id: queue.tenant_id,
                    destination_id: queue.destination_id,
                    event_id: id(row, 1)?,
                    lease: None,
                },
                reason: columns::wait_reason(row, 2)?,
                attempts: row.get(3)?,
                lane: columns::lane(row, 4)?,
                guarantee: columns::guarantee(row, 5)?,
                born_at: columns::maybe_time(row, 6)?,
            })
        },
    )?;
    Ok(rows.into())
}

/// Writes when a queue that was due is due next. One of which nothing due is left is drained: what is leased from it or
/// due later is no reason to spill new deliveries.
fn settle(tx: &Tx<'_>, queue: &Queue) -> Outcome<()> {
    if queue.rows.is_none() {
        // Its turn did not come: it keeps its place.
        return Ok(());
    }
    let earliest: Option<i64> = tx
        .row("SELECT min(due_at) FROM waiting WHERE destination_id = ?1", [key(queue.destination_id)], |row| {
            row.get(0)
        })?
        .flatten();
    let earliest = Timestamp::from_micros(earliest.unwrap_or(i64::MAX));
    let rest = queue.rest();
    let rests_until = if rest.is_zero() { Timestamp::default() } else { tx.now + rest };
    let served_at = if queue.got > 0 { tx.now } else { Timestamp::default() };
    let drained = earliest > tx.now;
    tx.execute(
        "UPDATE queues
         SET next_due = max(?2, hold_until, ?3), paced_until = max(paced_until, ?3),
             trial = CASE WHEN hold_until > ?5 THEN trial END,
             spilled = spilled AND (NOT ?4 OR (trial IS NOT NULL AND hold_until > ?5))
         WHERE destination_id = ?1",
        params![
            key(queue.destination_id),
            earliest.max(served_at).as_micros(),
            rests_until.as_micros(),
            drained,
            (tx.now - TRIAL_LIFE).as_micros()
        ],
    )?;
    tx.execute(
        "DELETE FROM queues WHERE destination_id = ?1 AND depth <= 0 AND trial IS NULL",
        [key(queue.destination_id)],
    )?;
    Ok(())
}

/// What was taken, with its events.
pub(crate) fn load(tx: &Tx<'_>, taken: &[Taken], leased_until: Timestamp) -> Outcome<Vec<DueDelivery>> {
    let mut events: BTreeMap<EventId, (Arc<Event>, bool)> = BTreeMap::new();
    let mut deliveries = Vec::with_capacity(taken.len());
    for (row, destination_version) in taken {
        let target = row.target;
        let (event, whole) = match events.entry(target.event_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let Some(loaded) = light_event(tx, target.event_id)? else {
                    tracing::error!(delivery.id = %target.delivery_id, event.id = %target.event_id, "feed.event_missing");
                    continue;
                };
                unknown.insert(loaded)
            }
        };
        deliveries.push(DueDelivery {
            delivery_id: target.delivery_id,
            tenant_id: target.tenant_id,
            destination_id: target.destination_id,
            destination_version: *destination_version,
            attempts: row.attempts,
            reason: row.reason,
            lane: row.lane,
            guarantee: row.guarantee,
            born_at: row.born_at,
            leased_until,
            event: Arc::clone(event),
            whole: *whole,
        });
    }
    Ok(deliveries)
}

pub(crate) fn light_event(tx: &Tx<'_>, event: EventId) -> Outcome<Option<(Arc<Event>, bool)>> {
    let mut statement = tx.prepare(
        "SELECT id, tenant_id, type, uid, source, meta, CASE WHEN length(data) <= ?2 THEN data ELSE x'' END,
                length(data) <= ?2
         FROM events WHERE id = ?1",
    )?;
    let mut rows = statement.query(params![key(event), MAX_DATA_BYTES])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    match columns::event(row, 0) {
        Ok(read) => Ok(Some((Arc::new(read), row.get(7)?))),
        // One row must not stop all others.
        Err(Failure(error)) => {
            tracing::error!(event.id = %event, %error, "feed.event_unreadable");
            Ok(None)
        }
    }
}

/// Moves the marks of leases that are still as they are named, and tells the new ones.
pub(crate) fn take_over(tx: &Tx<'_>, leases: &[(DeliveryId, Timestamp)]) -> Outcome<Vec<Option<Timestamp>>> {
    let until = tx.now + HANDOVER_LEASE;
    let take = |(delivery, mark): &(DeliveryId, Timestamp)| {
        let taken = tx.row(
            "UPDATE waiting SET due_at = ?3 WHERE delivery_id = ?1 AND due_at = ?2 AND leased = 1
             RETURNING tenant_id, destination_id, event_id",
            params![key(*delivery), mark.as_micros(), until.as_micros()],
            |row| columns::target(row, *delivery),
        )?;
        if let Some(target) = &taken {
            tx.due(target, until);
        }
        Ok(taken.map(|_| until))
    };
    leases.iter().map(take).collect()
}

/// Ends leases that are still theirs: due now.
pub(crate) fn give_back(tx: &Tx<'_>, deliveries: &[(DeliveryId, Timestamp)]) -> Outcome<()> {
    for (delivery, leased_until) in deliveries {
        let found = tx.row(
            "SELECT tenant_id, destination_id, event_id FROM waiting
             WHERE delivery_id = ?1 AND due_at = ?2 AND leased = 1",
            params![key(*delivery), leased_until.as_micros()],
            |row| columns::target(row, *delivery),
        )?;
        if let Some(target) = found {
            tx.make_due(&target, tx.now)?;
        }
    }
    Ok(())
}
