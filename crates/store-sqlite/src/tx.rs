//! What a write job works with: the open transaction, the time, and the changes of queues that it collects.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, Row, params};
use signalpost_core::{
    DeliveryId, DestinationId, Entropy, Guarantee, LaneId, TenantId, Timestamp, WaitReason,
    delivery::DeliveryState,
    id::{Id, Kind},
};
use signalpost_store::dispatch::Target;

use crate::{
    columns::{self, id, key},
    failure::Outcome,
    statements::Statements,
};

/// One job's view of the transaction.
pub(crate) struct Tx<'c> {
    /// The connection that writes.
    pub(crate) connection: &'c Connection,
    pub(crate) statements: Rc<Statements<'c>>,
    /// The store's time at the start of the job.
    pub(crate) now: Timestamp,
    /// For ids of what is born here.
    pub(crate) entropy: &'c dyn Entropy,
    queues: RefCell<BTreeMap<DestinationId, QueueChange>>,
    /// Those that lost a delivery, or their block.
    lanes: RefCell<BTreeSet<(DestinationId, LaneId)>>,
    pub(crate) arrivals: RefCell<BTreeMap<DestinationId, Arrivals>>,
    routing_moved: Cell<bool>,
}

/// What came of the attempts of a job, by destination.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrivals {
    /// One arrived.
    pub(crate) any: bool,
    /// How many failed after that.
    pub(crate) failed: u32,
}

/// What a job changes about one queue.
#[derive(Debug, Clone, Copy)]
struct QueueChange {
    tenant_id: TenantId,
    /// Rows that came into `waiting`, less those that left it.
    depth: i64,
    /// The earliest due time of those that came or moved.
    due_at: Option<Timestamp>,
    hold_until: Timestamp,
    spill: bool,
}

impl<'c> Tx<'c> {
    pub(crate) fn new(
        connection: &'c Connection,
        statements: Rc<Statements<'c>>,
        now: Timestamp,
        entropy: &'c dyn Entropy,
    ) -> Self {
        Self {
            connection,
            statements,
            now,
            entropy,
            queues: RefCell::default(),
            lanes: RefCell::default(),
            arrivals: RefCell::default(),
            routing_moved: Cell::new(false),
        }
    }

    /// A statement whose text is made here and now, or that is run many times in a row.
    pub(crate) fn prepare(&self, sql: &str) -> Outcome<CachedStatement<'c>> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    pub(crate) fn execute(&self, sql: &'static str, params: impl Params) -> Outcome<usize> {
        self.statements.with(sql, |statement| Ok(statement.execute(params)?))
    }

    /// The first row, where there is one.
    pub(crate) fn row<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Option<T>> {
        self.statements.with(sql, |statement| Ok(statement.query_row(params, read).optional()?))
    }

    /// All rows.
    pub(crate) fn rows<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Vec<T>> {
        self.statements
            .with(sql, |statement| Ok(statement.query_map(params, read)?.collect::<rusqlite::Result<_>>()?))
    }

    /// Tells that destinations changed: after the commit, `changes` moves.
    pub(crate) fn routing_moved(&self) {
        self.routing_moved.set(true);
    }

    /// Puts a delivery into `waiting`, or moves it there. `state` is the one before; the caller writes the new one.
    pub(crate) fn anchor(
        &self,
        target: &Target,
        state: DeliveryState,
        due_at: Timestamp,
        reason: WaitReason,
    ) -> Outcome<()> {
        self.execute(
            "INSERT INTO waiting (delivery_id, tenant_id, destination_id, event_id, due_at, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (delivery_id) DO UPDATE SET due_at = excluded.due_at, reason = excluded.reason, leased = 0",
            params![
                key(target.delivery_id),
                key(target.tenant_id),
                key(target.destination_id),
                key(target.event_id),
                due_at.as_micros(),
                reason as u8
            ],
        )?;
        self.change(target.tenant_id, target.destination_id, |queue| {
            queue.depth += i64::from(state != DeliveryState::Waiting);
            queue.due_at = Some(queue.due_at.map_or(due_at, |earlier| earlier.min(due_at)));
        });
        Ok(())
    }

    /// Puts a new delivery of a lane into `waiting`.
    pub(crate) fn anchor_in_lane(
        &self,
        target: &Target,
        place: Place,
        due_at: Timestamp,
        reason: WaitReason,
    ) -> Outcome<()> {
        self.anchor(target, DeliveryState::Queued, due_at, reason)?;
        self.execute(
            "UPDATE waiting SET lane = ?2, lane_seq = ?3 WHERE delivery_id = ?1",
            params![key(target.delivery_id), place.lane.as_bytes(), place.seq],
        )?;
        Ok(())
    }

    /// Takes a delivery out of `waiting`, where it is there.
    pub(crate) fn release(&self, target: &Target) -> Outcome<()> {
        let removed = self.execute("DELETE FROM waiting WHERE delivery_id = ?1", [key(target.delivery_id)])?;
        if removed > 0 {
            self.change(target.tenant_id, target.destination_id, |queue| queue.depth -= 1);
        }
        Ok(())
    }

    /// Makes a waiting delivery due at that time; it is leased to nobody then.
    pub(crate) fn make_due(&self, target: &Target, due_at: Timestamp) -> Outcome<()> {
        self.execute(
            "UPDATE waiting SET due_at = ?2, leased = 0 WHERE delivery_id = ?1",
            params![key(target.delivery_id), due_at.as_micros()],
        )?;
        self.due(target, due_at);
        Ok(())
    }

    /// The queue of that delivery is looked at by then.
    pub(crate) fn due(&self, target: &Target, due_at: Timestamp) {
        self.change(target.tenant_id, target.destination_id, |queue| {
            queue.due_at = Some(queue.due_at.map_or(due_at, |earlier| earlier.min(due_at)));
        });
    }

    /// Holds a queue until then, and spills it.
    pub(crate) fn hold(&self, tenant: TenantId, destination: DestinationId, until: Timestamp) {
        self.change(tenant, destination, |queue| {
            queue.hold_until = queue.hold_until.max(until);
            queue.spill = true;
        });
    }

    /// Whether this job holds it.
    pub(crate) fn is_held_here(&self, destination: DestinationId) -> bool {
        self.queues.borrow().get(&destination).is_some_and(|queue| queue.hold_until > self.now)
    }

    /// Marks a lane for [`Self::settle_lanes`].
    pub(crate) fn touch_lane(&self, destination: DestinationId, lane: LaneId) {
        self.lanes.borrow_mut().insert((destination, lane));
    }

    /// Those that were marked; none is any more.
    pub(crate) fn touched_lanes(&self) -> BTreeSet<(DestinationId, LaneId)> {
        std::mem::take(&mut *self.lanes.borrow_mut())
    }

    /// What every job ends with: changes that were collected.
    pub(crate) fn settle(&self) -> Outcome<()> {
        self.settle_lanes(false)?;
        self.settle_failing()?;
        self.settle_queues()
    }

    fn change(&self, tenant_id: TenantId, destination: DestinationId, change: impl FnOnce(&mut QueueChange)) {
        let mut queues = self.queues.borrow_mut();
        change(queues.entry(destination).or_insert(QueueChange {
            tenant_id,
            depth: 0,
            due_at: None,
            hold_until: Timestamp::default(),
            spill: false,
        }));
    }

    /// Writes the changes of queues, one row per destination, in the order of their ids.
    fn settle_queues(&self) -> Outcome<()> {
        for (destination, change) in std::mem::take(&mut *self.queues.borrow_mut()) {
            if change.depth > 0 || change.due_at.is_some() || change.spill {
                // `next_due` is the later of what is due and of the hold. Where the row has the hold already, taking the
                // earlier of it and the new due time, and then the later of that and the hold, gives the same.
                self.execute(
                    "INSERT INTO queues (destination_id, tenant_id, depth, next_due, hold_until, blocked, spilled)
                     VALUES (?1, ?2, ?3, max(?4, ?5), ?5,
                             coalesce((SELECT state <> 'active' FROM destinations WHERE id = ?1), 1), ?6)
                     ON CONFLICT (destination_id) DO UPDATE SET
                         depth = depth + excluded.depth,
                         next_due = max(min(next_due, ?4), hold_until, paced_until, ?5),
                         hold_until = max(hold_until, ?5),
                         spilled = max(spilled, ?6)",
                    params![
                        key(destination),
                        key(change.tenant_id),
                        change.depth,
                        change.due_at.map_or(i64::MAX, Timestamp::as_micros),
                        change.hold_until.as_micros(),
                        change.spill
                    ],
                )?;
            } else if change.depth < 0 {
                self.execute(
                    "UPDATE queues SET depth = depth + ?2 WHERE destination_id = ?1",
                    params![key(destination), change.depth],
                )?;
            }
            if change.depth <= 0 {
                // A queue on trial is remembered even while nothing waits in it.
                self.execute(
                    "DELETE FROM queues WHERE destination_id = ?1 AND depth <= 0 AND trial IS NULL",
                    [key(destination)],
                )?;
            }
        }
        Ok(())
    }

    /// Whether [`Self::routing_moved`] was called.
    pub(crate) fn has_routing_moved(&self) -> bool {
        self.routing_moved.get()
    }

    /// A durable mark of a background job.
    pub(crate) fn mark<K: Kind>(&self, name: &str) -> Outcome<Id<K>> {
        let mark = self.row("SELECT value FROM marks WHERE name = ?1", [name], |row| id(row, 0))?;
        mark.ok_or_else(|| crate::failure::Failure::internal(format!("there is no mark {name:?}")))
    }

    /// Moves it.
    pub(crate) fn set_mark<K: Kind>(&self, name: &str, value: Id<K>) -> Outcome<()> {
        self.execute("UPDATE marks SET value = ?2 WHERE name = ?1", params![name, key(value)])?;
        Ok(())
    }
}

/// A place in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lane: LaneId,
    /// Grows along the lane.
    pub(crate) seq: i64,
}

/// A delivery and how it stands, as its row tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) target: Target,
    pub(crate) state: DeliveryState,
    pub(crate) attempts: u32,
    pub(crate) replayed_by: Option<DeliveryId>,
    pub(crate) place: Option<Place>,
    pub(crate) guarantee: Guarantee,
}

impl Tx<'_> {
    /// One delivery.
    pub(crate) fn delivery(&self, delivery: DeliveryId) -> Outcome<Option<Stored>> {
        self.row(
            "SELECT tenant_id, destination_id, event_id, state, attempts, replayed_by, lane, lane_seq, guarantee
             FROM deliveries WHERE id = ?1",
            [key(delivery)],
            |row| {
                Ok(Stored {
                    target: columns::target(row, delivery)?,
                    state: columns::state(row, 3)?,
                    attempts: row.get(4)?,
                    replayed_by: columns::maybe_id(row, 5)?,
                    place: columns::place(row, 6)?,
                    guarantee: columns::guarantee(row, 8)?,
                })
            },
        )
    }
}
