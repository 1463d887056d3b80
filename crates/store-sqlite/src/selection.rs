//! Walks through what a replay selects: first deliveries that ended, then dead letters whose delivery is gone with its
//! retention, then (on demand) events that have no delivery to the destination.
//!
//! A delivery that ended, or an event that was accepted, after the job was asked for is not selected: so the walk ends,
//! and does not meet its own creations.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params_from_iter, types::Value};
use signalpost_core::{
    DeadReason, DeliveryId, DeliveryState, DeliveryStatus, DestinationId, DestinationSpec, EventId, EventMeta,
    TenantId, Timestamp, id::DeliveryKind,
};
use signalpost_store::manage::{ReplayJob, ReplaySelection};

use crate::{
    columns::{self, ceiling, first_at, id, key, maybe_id, unpack},
    failure::{Failure, Outcome},
    tx::Place,
};

/// What is walked through.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) tenant: TenantId,
    selection: ReplaySelection,
    /// When it was asked for. None: now.
    asked_at: Option<Timestamp>,
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    phase: u8,
    /// The last key that was looked at.
    after: [u8; 16],
}

/// Something to send again, or for the first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Match {
    pub(crate) event_id: EventId,
    pub(crate) destination_id: DestinationId,
    pub(crate) replay_of: Option<DeliveryId>,
    /// Its place in its lane, where it has one.
    pub(crate) place: Option<Place>,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) matches: Vec<Match>,
    /// Where to go on; None at the end.
    pub(crate) next: Option<Cursor>,
}

const DELIVERIES: u8 = 0;
const DEAD_LETTERS: u8 = 1;
const MISSING: u8 = 2;

impl Cursor {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.phase];
        bytes.extend_from_slice(&self.after);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        match bytes.split_first().map(|(phase, after)| (*phase, after.try_into())) {
            Some((phase, Ok(after))) => Ok(Self { phase, after }),
            _ => Err(Failure::internal("the cursor of a replay cannot be read")),
        }
    }
}

impl Walk {
    pub(crate) fn new(tenant: TenantId, selection: ReplaySelection) -> Self {
        Self { tenant, selection, asked_at: None }
    }

    pub(crate) fn of_job(job: &ReplayJob) -> Self {
        Self { tenant: job.tenant_id, selection: job.selection.clone(), asked_at: Some(job.created_at) }
    }

    /// Up to `most` matches, having looked at no more than about `scan` rows; more where that would cut a millisecond in which
    /// deliveries of lanes are. The order of those shows only when all of them are there: ids know no more than the millisecond.
    pub(crate) fn page(&self, connection: &Connection, from: Cursor, most: usize, scan: usize) -> Outcome<Page> {
        let mut page = Page { matches: Vec::new(), next: Some(from) };
        if most == 0 {
            return Ok(page);
        }
        let looked_at = match from.phase {
            DELIVERIES => self.deliveries(connection, &mut page, from, most, scan)?,
            DEAD_LETTERS => self.dead_letters(connection, &mut page, from, most, scan)?,
            MISSING => self.missing(connection, &mut page, from, most, scan)?,
            _ => None,
        };
        page.matches
            .sort_by_key(|found| (found.replay_of.map(|old| old.created_at()), found.place.map(|place| place.seq)));
        page.next = match looked_at {
            Some(after) => Some(Cursor { phase: from.phase, after }),
            None => (from.phase < MISSING).then_some(Cursor { phase: from.phase + 1, after: [0; 16] }),
        };
        Ok(page)
    }

    /// A condition on the key, and on the destination where one is wanted, with its values.
    fn range(&self, column: &str, from: Cursor) -> (String, Vec<Value>) {
        let mut sql = format!("{column} > ? AND {column} >= ? AND {column} < ?");
        let since = self.selection.since.map_or([0; 16], |since| key(first_at::<DeliveryKind>(since)));
        let until = self.selection.until.map_or([0xff; 16], |until| key(first_at::<DeliveryKind>(until)));
        let mut values: Vec<Value> = [from.after, since, until].map(|bytes| Value::Blob(bytes.to_vec())).into();
        if let Some(destination) = self.selection.destination_id.filter(|_| from.phase != MISSING) {
            sql.push_str(" AND destination_id = ?");
            values.push(Value::Blob(key(destination).to_vec()));
        }
        (sql, values)
    }

    fn wants_type(&self, event_type: &str) -> bool {
        let patterns = &self.selection.event_types;
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    fn wants_status(&self, status: DeliveryStatus) -> bool {
        let statuses = &self.selection.statuses;
        if statuses.is_empty() { status == DeliveryStatus::Dead } else { statuses.contains(&status) }
    }

    fn ended_in_time(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| self.asked_at.is_none_or(|asked| at <= asked))
    }

    /// Returns the last key looked at, None where there are no more.
    fn deliveries(
        &self,
        connection: &Connection,
        page: &mut Page,
        from: Cursor,
        most: usize,
        scan: usize,
    ) -> Outcome<Option<[u8; 16]>> {
        let (range, values) = self.range("id", from);
        let mut statement = connection.prepare_cached(&format!(
            "SELECT id, event_id, destination_id, state, reason, replayed_by, ended_at, tenant_id, lane, lane_seq
             FROM deliveries WHERE {range} ORDER BY id"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut destinations = Destinations::new(connection, self.tenant);
        let mut end = End::new(most, scan, "SELECT 1 FROM deliveries WHERE id >= ?1 AND id < ?2 AND lane IS NOT NULL");
        while let Some(row) = rows.next()? {
            let delivery: DeliveryId = id(row, 0)?;
            if end.is_reached(connection, page.matches.len(), delivery)? {
                return Ok(end.last);
            }
            let state = columns::state(row, 3)?;
            let discarded = row.get::<_, Option<u8>>(4)? == Some(DeadReason::Discarded as u8);
            let replayed = maybe_id::<DeliveryKind>(row, 5)?.is_some();
            let ended_at = row.get::<_, Option<i64>>(6)?.map(Timestamp::from_micros);
            let (event_id, destination_id) = (id(row, 1)?, id(row, 2)?);
            if id::<signalpost_core::id::TenantKind>(row, 7)? != self.tenant
                || !state.is_final()
                || !self.wants_status(state.status(0))
                || (state == DeliveryState::Dead && discarded)
                || replayed
                || !self.ended_in_time(ended_at)
                || !destinations.takes(destination_id)?
                || !self.wants_type_of(connection, event_id, delivery)?
            {
                continue;
            }
            page.matches.push(Match {
                event_id,
                destination_id,
                replay_of: Some(delivery),
                place: columns::place(row, 8)?,
            });
        }
        Ok(None)
    }

    /// Looks the type up only where it matters; of an event that is gone its dead letter knows the type.
    fn wants_type_of(&self, connection: &Connection, event: EventId, delivery: DeliveryId) -> Outcome<bool> {
        if self.selection.event_types.is_empty() {
            return Ok(true);
        }
        let event_type: Option<String> = connection
            .prepare_cached(
                "SELECT coalesce((SELECT type FROM events WHERE id = ?1),
                                 (SELECT event_type FROM dead_letters WHERE delivery_id = ?2))",
            )?
            .query_row([key(event), key(delivery)], |row| row.get(0))?;
        Ok(event_type.is_some_and(|event_type| self.wants_type(&event_type)))
    }

    fn dead_letters(
        &self,
        connection: &Connection,
        page: &mut Page,
        from: Cursor,
        most: usize,
        scan: usize,
    ) -> Outcome<Option<[u8; 16]>> {
        if !self.wants_status(DeliveryStatus::Dead) {
            return Ok(None);
        }
        let (range, mut values) = self.range("delivery_id", from);
        values.push(Value::Blob(key(self.tenant).to_vec()));
        let mut statement = connection.prepare_cached(&format!(
            "SELECT delivery_id, event_id, destination_id, event_type, dead_at,
                    EXISTS (SELECT 1 FROM deliveries d WHERE d.id = delivery_id), lane, lane_seq
             FROM dead_letters WHERE {range} AND tenant_id = ? ORDER BY delivery_id"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut destinations = Destinations::new(connection, self.tenant);
        let lanes = "SELECT 1 FROM dead_letters WHERE delivery_id >= ?1 AND delivery_id < ?2 AND lane IS NOT NULL";
        let mut end = End::new(most, scan, lanes);
        while let Some(row) = rows.next()? {
            let delivery: DeliveryId = id(row, 0)?;
            if end.is_reached(connection, page.matches.len(), delivery)? {
                return Ok(end.last);
            }
            let destination_id = id(row, 2)?;
            let has_row: bool = row.get(5)?;
            if has_row
                || !self.ended_in_time(Some(columns::time(row, 4)?))
                || !self.wants_type(&row.get::<_, String>(3)?)
                || !destinations.takes(destination_id)?
            {
                continue;
            }
            page.matches.push(Match {
                event_id: id(row, 1)?,
                destination_id,
                replay_of: Some(delivery),
                place: columns::place(row, 6)?,
            });
        }
        Ok(None)
    }

    fn missing(
        &self,
        connection: &Connection,
        page: &mut Page,
        from: Cursor,
        most: usize,
        scan: usize,
    ) -> Outcome<Option<[u8; 16]>> {
        let Some(destination_id) = self.selection.destination_id.filter(|_| self.selection.missing) else {
            return Ok(None);
        };
        let spec: Option<String> = connection
            .prepare_cached("SELECT spec FROM destinations WHERE id = ?1 AND tenant_id = ?2 AND state <> 'deleted'")?
            .query_row([key(destination_id), key(self.tenant)], |row| row.get(0))
            .optional()?;
        let Some(spec) = spec else { return Ok(None) };
        let spec: DestinationSpec = serde_json::from_str(&spec)?;
        let (range, mut values) = self.range("id", from);
        values.push(Value::Blob(key(self.tenant).to_vec()));
        let mut statement = connection.prepare_cached(&format!(
            "SELECT id, type, meta FROM events WHERE {range} AND tenant_id = ? ORDER BY id LIMIT {scan}"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut last, mut seen) = (None, 0);
        while let Some(row) = rows.next()? {
            let event_id: EventId = id(row, 0)?;
            (last, seen) = (Some(key(event_id)), seen + 1);
            let event_type: String = row.get(1)?;
            if self.asked_at.is_some_and(|asked| event_id.created_at() > asked)
                || !self.wants_type(&event_type)
                || !spec.wants(&event_type)
            {
                continue;
            }
            let meta: EventMeta = serde_json::from_str(row.get_ref(2)?.as_str().map_err(Failure::internal)?)?;
            if meta.destination_id.is_some_and(|only| only != destination_id)
                || has_delivery(connection, event_id, destination_id)?
            {
                continue;
            }
            page.matches.push(Match { event_id, destination_id, replay_of: None, place: None });
            if page.matches.len() >= most {
                return Ok(last);
            }
        }
        Ok(last.filter(|_| seen >= scan))
    }
}

/// Where a page ends.
struct End {
    most: usize,
    scan: usize,
    /// Finds deliveries of lanes within a range of ids.
    lanes: &'static str,
    /// The key of the last row that belongs to the page.
    last: Option<[u8; 16]>,
    seen: usize,
    /// The page is full, but goes on to the end of this millisecond.
    until: Option<[u8; 16]>,
}

impl End {
    const fn new(most: usize, scan: usize, lanes: &'static str) -> Self {
        Self { most, scan, lanes, last: None, seen: 0, until: None }
    }

    /// Whether the page ends before this row; else the row belongs to it.
    fn is_reached(&mut self, connection: &Connection, matches: usize, row: DeliveryId) -> Outcome<bool> {
        let row = key(row);
        if let Some(until) = self.until
            && row >= until
        {
            return Ok(true);
        }
        if let Some(last) = self.last
            && self.until.is_none()
            && (matches >= self.most || self.seen >= self.scan)
        {
            let at = DeliveryId::from_uuid(uuid::Uuid::from_bytes(last)).created_at();
            let range = [key(DeliveryId::floor(at)), key(ceiling::<DeliveryKind>(at))];
            if row >= range[1] || !connection.prepare_cached(self.lanes)?.exists(range)? {
                return Ok(true);
            }
            self.until = Some(range[1]);
        }
        (self.last, self.seen) = (Some(row), self.seen + 1);
        Ok(false)
    }
}

/// Whether an event has a delivery to a destination, or will get one from its fan-out.
fn has_delivery(connection: &Connection, event: EventId, destination: DestinationId) -> Outcome<bool> {
    let at = event.created_at();
    let found = connection
        .prepare_cached(
            "SELECT 1 FROM deliveries WHERE destination_id = ?1 AND id >= ?2 AND id < ?3 AND event_id = ?4",
        )?
        .exists([key(destination), key(DeliveryId::floor(at)), key(ceiling::<DeliveryKind>(at)), key(event)])?;
    if found {
        return Ok(true);
    }
    let fan_out: Option<Vec<u8>> = connection
        .prepare_cached("SELECT destination_ids FROM fan_outs WHERE event_id = ?1")?
        .query_row([key(event)], |row| row.get(0))
        .optional()?;
    Ok(fan_out.is_some_and(|packed| unpack(&packed).any(|id: DestinationId| id == destination)))
}

/// Remembers which destinations are there and not deleted.
struct Destinations<'c> {
    connection: &'c Connection,
    tenant: TenantId,
    known: BTreeMap<DestinationId, bool>,
}

impl<'c> Destinations<'c> {
    fn new(connection: &'c Connection, tenant: TenantId) -> Self {
        Self { connection, tenant, known: BTreeMap::new() }
    }

    fn takes(&mut self, destination: DestinationId) -> Outcome<bool> {
        if let Some(known) = self.known.get(&destination) {
            return Ok(*known);
        }
        let takes = self
            .connection
            .prepare_cached("SELECT 1 FROM destinations WHERE id = ?1 AND tenant_id = ?2 AND state <> 'deleted'")?
            .exists([key(destination), key(self.tenant)])?;
        self.known.insert(destination, takes);
        Ok(takes)
    }
}
