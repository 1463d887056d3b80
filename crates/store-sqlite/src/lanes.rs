//! Lanes: who is first, who comes next, and what blocks them.
//!
//! A lane's row counts its open deliveries, all of which wait. Only the first of them has a due time. Whoever takes a
//! delivery out of a lane, or a block off it, marks the lane; [`Tx::settle_lanes`] then lets its first one go, once for
//! all changes of a job.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};
use signalpost_core::{
    DeliveryId, DestinationId, LaneId, WaitReason,
    ordering::{OnDead, OrderingMode},
};
use signalpost_store::{HANDOVER_LEASE, NEVER, dispatch::Target};

use crate::{
    columns::{self, id, key},
    destinations,
    failure::{Failure, Outcome},
    feed::{Row, Taken},
    tx::{Place, Stored, Tx},
};

impl Tx<'_> {
    /// Puts a new delivery at the tail of a lane, due now where it is the first. The caller writes its row.
    pub(crate) fn join_lane(&self, target: &Target, lane: LaneId, reason: WaitReason) -> Outcome<Place> {
        let place = Place { lane, seq: self.next_seq()? };
        let joined = self.row(
            "INSERT INTO lanes (destination_id, lane, depth) VALUES (?1, ?2, 1)
             ON CONFLICT (destination_id, lane) DO UPDATE SET depth = depth + 1
             RETURNING depth = 1 AND blocked_by IS NULL",
            params![key(target.destination_id), lane.as_bytes()],
            |row| row.get::<_, bool>(0),
        )?;
        let (due_at, reason) = if joined.unwrap_or(false) { (self.now, reason) } else { (NEVER, WaitReason::Lane) };
        self.anchor_in_lane(target, place, due_at, reason)?;
        Ok(place)
    }

    /// Puts the replay of a delivery that blocks its lane in the place of that, due now. False where it does not block it.
    pub(crate) fn take_place(&self, target: &Target, place: Place, old: DeliveryId) -> Outcome<bool> {
        let unblocked = self.execute(
            "UPDATE lanes SET blocked_by = NULL, depth = depth + 1
             WHERE destination_id = ?1 AND lane = ?2 AND blocked_by = ?3",
            params![key(target.destination_id), place.lane.as_bytes(), key(old)],
        )?;
        if unblocked > 0 {
            self.anchor_in_lane(target, place, self.now, WaitReason::Turn)?;
        }
        Ok(unblocked > 0)
    }

    /// Counts a delivery out that was taken off `waiting`.
    pub(crate) fn leave_lane(&self, destination: DestinationId, lane: LaneId) -> Outcome<()> {
        self.execute(
            "UPDATE lanes SET depth = depth - 1 WHERE destination_id = ?1 AND lane = ?2",
            params![key(destination), lane.as_bytes()],
        )?;
        self.touch_lane(destination, lane);
        Ok(())
    }

    /// What a dead letter means for its lane: where its destination asks for that, the lane waits for it.
    pub(crate) fn block_lane(&self, dead: &Stored) -> Outcome<()> {
        let Some(place) = dead.place else { return Ok(()) };
        if !self.blocks_on_dead(dead.target.destination_id)? {
            return Ok(());
        }
        self.execute(
            "INSERT INTO lanes (destination_id, lane, depth, blocked_by) VALUES (?1, ?2, 0, ?3)
             ON CONFLICT (destination_id, lane) DO UPDATE SET blocked_by = coalesce(blocked_by, excluded.blocked_by)",
            params![key(dead.target.destination_id), place.lane.as_bytes(), key(dead.target.delivery_id)],
        )?;
        Ok(())
    }

    fn blocks_on_dead(&self, destination: DestinationId) -> Outcome<bool> {
        let spec = destinations::present_spec(self.connection, destination)?;
        Ok(spec.is_some_and(|spec| spec.ordering.mode == OrderingMode::Key && spec.ordering.on_dead == OnDead::Block))
    }

    /// A dead letter is off the list: the lane that waited for it goes on.
    pub(crate) fn unblock_lane(&self, destination: DestinationId, lane: LaneId, by: DeliveryId) -> Outcome<()> {
        let unblocked = self.execute(
            "UPDATE lanes SET blocked_by = NULL WHERE destination_id = ?1 AND lane = ?2 AND blocked_by = ?3",
            params![key(destination), lane.as_bytes(), key(by)],
        )?;
        if unblocked > 0 {
            self.touch_lane(destination, lane);
        }
        Ok(())
    }

    /// Lets all lanes of a destination go on.
    pub(crate) fn unblock_lanes(&self, destination: DestinationId) -> Outcome<()> {
        let lanes = self.rows(
            "UPDATE lanes INDEXED BY lanes_blocked SET blocked_by = NULL
             WHERE destination_id = ?1 AND blocked_by IS NOT NULL RETURNING lane",
            [key(destination)],
            |row| columns::lane(row, 0),
        )?;
        for lane in lanes.into_iter().flatten() {
            self.touch_lane(destination, lane);
        }
        Ok(())
    }

    /// Whether it is the first of its lane, or has none.
    pub(crate) fn is_first(&self, stored: &Stored) -> Outcome<bool> {
        let Some(place) = stored.place else { return Ok(true) };
        let first = self.row(
            "SELECT delivery_id = ?3 AND due_at < ?4 FROM waiting WHERE destination_id = ?1 AND lane = ?2
             ORDER BY lane_seq LIMIT 1",
            params![
                key(stored.target.destination_id),
                place.lane.as_bytes(),
                key(stored.target.delivery_id),
                NEVER.as_micros()
            ],
            |row| row.get(0),
        )?;
        Ok(first.unwrap_or(false))
    }

    /// Lets the first of each lane go that lost one, or its block: due now or, with `hand_over`, leased to the caller where
    /// nothing holds its queue. Removes lanes of which nothing is left. Gives those that were handed over.
    pub(crate) fn settle_lanes(&self, hand_over: bool) -> Outcome<Vec<Taken>> {
        let mut queues: BTreeMap<DestinationId, Option<u32>> = BTreeMap::new();
        let mut handed = Vec::new();
        for (destination, lane) in self.touched_lanes() {
            let lane_key = params![key(destination), lane.as_bytes()];
            let found = self.row(
                "SELECT depth, blocked_by IS NOT NULL FROM lanes WHERE destination_id = ?1 AND lane = ?2",
                lane_key,
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
            )?;
            match found {
                Some((depth, false)) if depth <= 0 => {
                    self.execute("DELETE FROM lanes WHERE destination_id = ?1 AND lane = ?2", lane_key)?;
                }
                Some((_, false)) => {
                    let version = match queues.get(&destination) {
                        _ if !hand_over => None,
                        Some(known) => *known,
                        None => {
                            let found = self.free_queue(destination)?;
                            queues.insert(destination, found);
                            found
                        }
                    };
                    handed.extend(self.promote(destination, lane, version)?);
                }
                Some((_, true)) | None => {}
            }
        }
        Ok(handed)
    }

    /// The version of the destination, where its queue yields freely.
    fn free_queue(&self, destination: DestinationId) -> Outcome<Option<u32>> {
        if self.is_held_here(destination) {
            return Ok(None);
        }
        self.row(
            "SELECT d.version FROM queues q JOIN destinations d ON d.id = q.destination_id
             WHERE q.destination_id = ?1 AND q.blocked = 0 AND q.hold_until <= ?2 AND q.trial IS NULL",
            params![key(destination), self.now.as_micros()],
            |row| row.get(0),
        )
    }

    /// Lets the first of a lane go, where it has not gone already. With a version: leased, and given back.
    fn promote(&self, destination: DestinationId, lane: LaneId, version: Option<u32>) -> Outcome<Option<Taken>> {
        let first = self
            .prepare(
                "SELECT w.delivery_id, w.tenant_id, w.event_id, d.attempts, d.guarantee, d.born_at
                 FROM waiting w JOIN deliveries d ON d.id = w.delivery_id
                 WHERE w.delivery_id = (SELECT delivery_id FROM waiting WHERE destination_id = ?1 AND lane = ?2
                                        ORDER BY lane_seq LIMIT 1)
                     AND w.due_at = ?3",
            )?
            .query_row(params![key(destination), lane.as_bytes(), NEVER.as_micros()], |row| {
                Ok(Row {
                    target: Target {
                        delivery_id: id(row, 0)?,
                        tenant_id: id(row, 1)?,
                        destination_id: destination,
                        event_id: id(row, 2)?,
                        lease: None,
                    },
                    reason: WaitReason::Turn,
                    attempts: row.get(3)?,
                    lane: Some(lane),
                    guarantee: columns::guarantee(row, 4)?,
                    born_at: columns::maybe_time(row, 5)?,
                })
            })
            .optional()?;
        let Some(first) = first else { return Ok(None) };
        let due_at = if version.is_some() { self.now + HANDOVER_LEASE } else { self.now };
        self.execute(
            "UPDATE waiting SET due_at = ?2, reason = ?3, leased = ?4 WHERE delivery_id = ?1",
            params![key(first.target.delivery_id), due_at.as_micros(), WaitReason::Turn as u8, version.is_some()],
        )?;
        self.due(&first.target, due_at);
        Ok(version.map(|version| (first, version)))
    }

    /// The next place in a lane: one sequence for all of them.
    fn next_seq(&self) -> Outcome<i64> {
        self.row("SELECT value FROM marks WHERE name = 'lane_seq'", [], |row| row.get::<_, [u8; 8]>(0))?
            .map(|bytes| i64::from_be_bytes(bytes) + 1)
            .ok_or_else(|| Failure::internal("there is no mark \"lane_seq\""))
            .and_then(|seq| {
                self.execute("UPDATE marks SET value = ?1 WHERE name = 'lane_seq'", [seq.to_be_bytes()])?;
                Ok(seq)
            })
    }
}
