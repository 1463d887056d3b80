//! The table `lanes`: deliveries of one destination that must not overtake each other.
//!
//! A lane's row is locked by every transaction that adds a member or ends one, blocks the lane or lets it go. Whoever has
//! the lock, and nobody else, may give the first member its turn: a follower has an infinite due time, and only the
//! first member of a lane that is not blocked ever gets a finite one. The row is there while the lane has members or is
//! blocked.
//!
//! Lanes are locked in order, after deliveries and before rows of `waiting` (see the crate's documentation): a follower that is
//! about to be ended by somebody else has its lane locked by them, so that nobody who gives turns waits for its row.

use std::collections::{BTreeMap, BTreeSet};

use signalpost_core::{DeliveryId, DestinationId, EventId, LaneId, TenantId, Timestamp, WaitReason, id::Id};
use signalpost_store::HANDOVER_LEASE;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::Failure,
    ids::uuids,
    queues::{QueueChanges, micros},
    rows::{id, lane_uuid, optional_id, optional_lane, time},
};

/// Which lane.
pub(crate) type LaneKey = (DestinationId, LaneId);

/// The lanes that a transaction has locked, and what becomes of them.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    held: BTreeMap<LaneKey, Held>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    depth: i64,
    blocked_by: Option<DeliveryId>,
}

/// What new members of a lane find.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Their places, as many as were asked for, growing, after all that were given out before.
    pub(crate) places: Vec<i64>,
    /// Nobody was there before them, and the lane is not blocked: the first of them is at its head.
    pub(crate) is_free: bool,
    /// The dead letter in the way.
    pub(crate) blocked_by: Option<DeliveryId>,
}

/// A member that got its turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) delivery_id: DeliveryId,
    pub(crate) tenant_id: TenantId,
    pub(crate) destination_id: DestinationId,
    pub(crate) event_id: EventId,
    /// The version of its destination, and until when it is leased, where it was handed over.
    pub(crate) handed_over: Option<(u32, Timestamp)>,
}

impl Lanes {
    /// Locks lanes of which members are about to end, or that are about to be let go.
    pub(crate) async fn lock(
        &mut self,
        transaction: &mut PgConnection,
        keys: BTreeSet<LaneKey>,
    ) -> Result<(), Failure> {
        let missing = self.lock_present(transaction, &keys).await?;
        self.held.extend(missing.into_iter().map(|key| (key, Held::default())));
        Ok(())
    }

    /// The same for those that are there; the others.
    async fn lock_present(
        &mut self,
        transaction: &mut PgConnection,
        keys: &BTreeSet<LaneKey>,
    ) -> Result<Vec<LaneKey>, Failure> {
        let mut keys: Vec<LaneKey> = keys.iter().copied().filter(|key| !self.held.contains_key(key)).collect();
        if keys.is_empty() {
            return Ok(keys);
        }
        let (destinations, lanes) = columns(&keys);
        // One after the other, in the order of the keys.
        let rows = sqlx::query(
            "SELECT l.destination_id, l.lane, l.depth, l.blocked_by
             FROM unnest($1::uuid[], $2::uuid[]) AS i(destination_id, lane)
             CROSS JOIN LATERAL (
                 SELECT * FROM lanes WHERE destination_id = i.destination_id AND lane = i.lane LIMIT 1 FOR UPDATE
             ) l",
        )
        .bind(destinations)
        .bind(lanes)
        .fetch_all(transaction)
        .await?;
        for row in &rows {
            self.held.insert(key(row)?, held(row)?);
        }
        keys.retain(|key| !self.held.contains_key(key));
        Ok(keys)
    }

    /// Adds so many members to lanes, and locks them.
    pub(crate) async fn join(
        &mut self,
        transaction: &mut PgConnection,
        added: &BTreeMap<LaneKey, i64>,
    ) -> Result<BTreeMap<LaneKey, Joined>, Failure> {
        if added.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (destinations, lanes) = columns(added.keys());
        // A lane's places are drawn when its row is locked: each row is joined after it was written.
        let rows = sqlx::query(
            "WITH joined AS (
                 INSERT INTO lanes AS l (destination_id, lane, depth)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[])
                 ON CONFLICT (destination_id, lane) DO UPDATE SET depth = l.depth + EXCLUDED.depth
                 RETURNING destination_id, lane, depth, blocked_by
             )
             SELECT j.destination_id, j.lane, j.depth, j.blocked_by,
                    ARRAY(SELECT nextval('lane_seq') FROM generate_series(1, i.added)) AS places
             FROM joined j JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS i(destination_id, lane, added)
                  ON i.destination_id = j.destination_id AND i.lane = j.lane",
        )
        .bind(destinations)
        .bind(lanes)
        .bind(added.values().copied().collect::<Vec<_>>())
        .fetch_all(transaction)
        .await?;
        let mut joined = BTreeMap::new();
        for row in &rows {
            let (key, held) = (key(row)?, held(row)?);
            let new = added.get(&key).copied().unwrap_or_default();
            let is_free = held.depth <= new && held.blocked_by.is_none();
            joined.insert(key, Joined { places: row.try_get("places")?, is_free, blocked_by: held.blocked_by });
            self.held.insert(key, held);
        }
        Ok(joined)
    }

    /// Locks those lanes of destinations that one of these dead letters blocks, and lets them go.
    async fn release(
        &mut self,
        transaction: &mut PgConnection,
        letters: &[(DestinationId, DeliveryId)],
    ) -> Result<(), Failure> {
        let rows = sqlx::query(
            "SELECT l.destination_id, l.lane FROM unnest($1::uuid[], $2::uuid[]) AS i(destination_id, blocked_by)
             CROSS JOIN LATERAL (
                 SELECT destination_id, lane FROM lanes
                 WHERE destination_id = i.destination_id AND blocked_by = i.blocked_by LIMIT 1
             ) l",
        )
        .bind(letters.iter().map(|(destination, _)| destination.uuid()).collect::<Vec<_>>())
        .bind(letters.iter().map(|(_, letter)| letter.uuid()).collect::<Vec<_>>())
        .fetch_all(&mut *transaction)
        .await?;
        let keys = rows.iter().map(key).collect::<Result<BTreeSet<_>, _>>()?;
        // What has gone since was settled by whoever removed it, and may be made anew by now.
        self.lock_present(transaction, &keys).await?;
        for key in keys {
            // Somebody else may have let it go, and a later one may block it now.
            let blocked_by = self.held.get(&key).and_then(|held| held.blocked_by);
            if blocked_by.is_some_and(|blocking| letters.contains(&(key.0, blocking))) {
                self.unblock(key);
            }
        }
        Ok(())
    }

    /// Locks all blocked lanes of destinations, and lets them go.
    async fn release_all(
        &mut self,
        transaction: &mut PgConnection,
        destinations: &[DestinationId],
    ) -> Result<(), Failure> {
        let rows = sqlx::query(
            "SELECT destination_id, lane FROM lanes WHERE destination_id = ANY($1) AND blocked_by IS NOT NULL",
        )
        .bind(uuids(destinations.iter().copied()))
        .fetch_all(&mut *transaction)
        .await?;
        let keys = rows.iter().map(key).collect::<Result<BTreeSet<_>, _>>()?;
        let gone = self.lock_present(transaction, &keys).await?;
        keys.into_iter().filter(|key| !gone.contains(key)).for_each(|key| self.unblock(key));
        Ok(())
    }

    /// A member has ended.
    pub(crate) fn ended(&mut self, key: LaneKey) {
        self.held.entry(key).or_default().depth -= 1;
    }

    /// Nobody overtakes this dead letter.
    pub(crate) fn block(&mut self, key: LaneKey, letter: DeliveryId) {
        self.held.entry(key).or_default().blocked_by = Some(letter);
    }

    /// It goes on.
    pub(crate) fn unblock(&mut self, key: LaneKey) {
        self.held.entry(key).or_default().blocked_by = None;
    }

    /// Writes what became of the lanes, and gives the first of each its turn: due now or, with `hand_over` and where its
    /// destination's queue yields freely, leased to the caller. Nothing happens to a lane whose first member had its turn before, or that is blocked.
    pub(crate) async fn settle(
        self,
        transaction: &mut PgConnection,
        hand_over: bool,
        queues: &mut QueueChanges,
    ) -> Result<Vec<Turn>, Failure> {
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let (destinations, lanes) = columns(self.held.keys());
        // Laid out such that every look-up goes by index, whatever the planner believes of the tables' sizes. The lanes' rows
        // are locked, so they stay where they are.
        let rows = sqlx::query(
            "WITH settled AS (
                 INSERT INTO lanes (destination_id, lane, depth, blocked_by)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[]) AS i(destination_id, lane, depth, blocked_by)
                 WHERE i.depth > 0 OR i.blocked_by IS NOT NULL
                 ON CONFLICT (destination_id, lane) DO UPDATE SET depth = EXCLUDED.depth, blocked_by = EXCLUDED.blocked_by
             ), gone AS (
                 DELETE FROM lanes WHERE ctid = ANY(ARRAY(
                     SELECT l.ctid
                     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[]) AS i(destination_id, lane, depth, blocked_by)
                     CROSS JOIN LATERAL (
                         SELECT ctid FROM lanes WHERE destination_id = i.destination_id AND lane = i.lane LIMIT 1
                     ) l
                     WHERE i.depth <= 0 AND i.blocked_by IS NULL))
             ), head AS MATERIALIZED (
                 SELECT w.delivery_id, d.version
                 FROM unnest($1::uuid[], $2::uuid[], $4::uuid[], $5::bool[])
                      AS i(destination_id, lane, blocked_by, hand_over)
                 CROSS JOIN LATERAL (
                     SELECT delivery_id, due_at FROM waiting
                     WHERE destination_id = i.destination_id AND lane = i.lane ORDER BY lane_seq LIMIT 1
                 ) w
                 LEFT JOIN LATERAL (
                     SELECT d.version FROM destinations d JOIN queues q ON q.destination_id = d.id
                     WHERE i.hand_over AND d.id = i.destination_id AND NOT q.blocked AND q.trial IS NULL
                       AND COALESCE(q.hold_until <= statement_timestamp(), true)
                 ) d ON true
                 WHERE i.blocked_by IS NULL AND w.due_at = 'infinity'
             )
             UPDATE waiting w SET reason = $6, leased = h.version IS NOT NULL,
                    due_at = CASE WHEN h.version IS NULL THEN statement_timestamp()
                                  ELSE statement_timestamp() + $7 * interval '1 microsecond' END
             FROM head h
             WHERE w.delivery_id = h.delivery_id AND w.delivery_id = ANY(ARRAY(SELECT delivery_id FROM head))
             RETURNING w.delivery_id, w.tenant_id, w.destination_id, w.event_id, w.due_at, h.version",
        )
        .bind(destinations)
        .bind(lanes)
        .bind(self.held.values().map(|held| held.depth).collect::<Vec<_>>())
        .bind(self.held.values().map(|held| held.blocked_by.map(Id::uuid)).collect::<Vec<_>>())
        .bind(self.held.keys().map(|(destination, _)| hand_over && !queues.holds(*destination)).collect::<Vec<_>>())
        .bind(WaitReason::Turn as i16)
        .bind(micros(HANDOVER_LEASE))
        .fetch_all(transaction)
        .await?;
        let turns = rows.iter().map(turn).collect::<Result<Vec<_>, _>>()?;
        for turn in &turns {
            let due_us = if turn.handed_over.is_some() { micros(HANDOVER_LEASE) } else { 0 };
            queues.due(turn.tenant_id, turn.destination_id, due_us);
        }
        Ok(turns)
    }
}

/// These dead letters are off the list: lanes that one of them blocks go on. A step of its own at the end of a transaction.
pub(crate) async fn release(
    transaction: &mut PgConnection,
    letters: &[(DestinationId, DeliveryId)],
) -> Result<(), Failure> {
    if letters.is_empty() {
        return Ok(());
    }
    let (mut lanes, mut queues) = (Lanes::default(), QueueChanges::default());
    lanes.release(transaction, letters).await?;
    lanes.settle(transaction, false, &mut queues).await?;
    queues.apply(transaction).await
}

/// The destinations do not ask for it any more: all their blocked lanes go on.
pub(crate) async fn release_all(transaction: &mut PgConnection, destinations: &[DestinationId]) -> Result<(), Failure> {
    let (mut lanes, mut queues) = (Lanes::default(), QueueChanges::default());
    lanes.release_all(transaction, destinations).await?;
    lanes.settle(transaction, false, &mut queues).await?;
    queues.apply(transaction).await
}

fn columns<'k>(keys: impl IntoIterator<Item = &'k LaneKey>) -> (Vec<Uuid>, Vec<Uuid>) {
    keys.into_iter().map(|(destination, lane)| (destination.uuid(), lane_uuid(*lane))).unzip()
}

fn key(row: &PgRow) -> Result<LaneKey, Failure> {
    let lane = optional_lane(row, "lane")?.ok_or_else(|| Failure::Inconsistent("a lane without its id".to_owned()))?;
    Ok((id(row, "destination_id")?, lane))
}

fn held(row: &PgRow) -> Result<Held, Failure> {
    Ok(Held { depth: row.try_get("depth")?, blocked_by: optional_id(row, "blocked_by")? })
}

fn turn(row: &PgRow) -> Result<Turn, Failure> {
    let version: Option<i64> = row.try_get("version")?;
    let handed_over = match version {
        None => None,
        Some(_) => Some((crate::rows::version(row, "version")?, time(row, "due_at")?)),
    };
    Ok(Turn {
        delivery_id: id(row, "delivery_id")?,
        tenant_id: id(row, "tenant_id")?,
        destination_id: id(row, "destination_id")?,
        event_id: id(row, "event_id")?,
        handed_over,
    })
}
