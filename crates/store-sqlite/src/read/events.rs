//! Events, with what became of them.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, params, params_from_iter};
use signalpost_core::{
    DeliveryId, DeliveryStatus, EventId, TenantId, Timestamp,
    id::{DeliveryKind, EventKind},
};
use signalpost_store::read::{DeliveryCounts, EventFilter, EventView, Page};

use super::filter::Filter;
use crate::{
    columns::{self, EVENT, LIGHT_EVENT, ceiling, id, key},
    failure::Outcome,
};

pub(super) fn one(connection: &Connection, tenant: TenantId, event: EventId) -> Outcome<Option<EventView>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {EVENT} FROM events e WHERE e.id = ?1 AND e.tenant_id = ?2"))?;
    let mut rows = statement.query(params![key(event), key(tenant)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let event = columns::event(row, 0)?;
    let counts = Counts::default().of(connection, event.id)?;
    Ok(Some(EventView { event: Arc::new(event), counts }))
}

pub(super) fn list(
    connection: &Connection,
    tenant: TenantId,
    filter: &EventFilter,
    page: Page<EventId>,
    with_data: bool,
) -> Outcome<Vec<EventView>> {
    let mut conditions = Filter::default();
    conditions.blob("e.tenant_id = ?", key(tenant));
    if let Some(event_type) = &filter.event_type {
        conditions.text("e.type = ?", event_type);
    }
    if let Some(uid) = &filter.uid {
        conditions.text("e.uid = ?", uid);
    }
    if let Some(source) = &filter.source {
        conditions.text("e.source = ?", source);
    }
    conditions.created::<EventKind>("e.id", filter.since, filter.until);
    // Labels are looked at here: rows come one by one, so nothing is read past the page.
    let limit = if filter.labels.is_empty() { page.limit } else { usize::MAX };
    let (sql, values) = conditions.page("e.id", &page, limit);
    let columns = if with_data { EVENT } else { LIGHT_EVENT };
    let mut statement = connection.prepare_cached(&format!("SELECT {columns} FROM events e {sql}"))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut counts = Counts::default();
    let mut found = Vec::new();
    while found.len() < page.limit
        && let Some(row) = rows.next()?
    {
        let event = columns::event(row, 0)?;
        if filter.labels.iter().all(|(name, value)| event.meta.labels.get(name) == Some(value)) {
            let counts = counts.of(connection, event.id)?;
            found.push(EventView { event: Arc::new(event), counts });
        }
    }
    Ok(found)
}

/// Counts deliveries per event. Those of one millisecond lie together, so they are counted together, once.
#[derive(Default)]
struct Counts {
    at: Option<Timestamp>,
    of_that_time: BTreeMap<EventId, DeliveryCounts>,
}

impl Counts {
    fn of(&mut self, connection: &Connection, event: EventId) -> Outcome<DeliveryCounts> {
        let at = event.created_at();
        if self.at != Some(at) {
            self.load(connection, at)?;
        }
        Ok(self.of_that_time.get(&event).copied().unwrap_or_default())
    }

    fn load(&mut self, connection: &Connection, at: Timestamp) -> Outcome<()> {
        self.of_that_time.clear();
        // A replayed delivery counts by its replay.
        let mut statement = connection.prepare_cached(
            "SELECT event_id, state, attempts FROM deliveries WHERE id >= ?1 AND id < ?2 AND replayed_by IS NULL",
        )?;
        let mut rows = statement.query([key(DeliveryId::floor(at)), key(ceiling::<DeliveryKind>(at))])?;
        while let Some(row) = rows.next()? {
            let counts = self.of_that_time.entry(id(row, 0)?).or_default();
            let count = match columns::state(row, 1)?.status(row.get(2)?) {
                DeliveryStatus::Pending => &mut counts.pending,
                DeliveryStatus::Retrying => &mut counts.retrying,
                DeliveryStatus::Delivered => &mut counts.delivered,
                DeliveryStatus::Dead => &mut counts.dead,
                DeliveryStatus::Cancelled => &mut counts.cancelled,
            };
            *count += 1;
        }
        let mut statement = connection.prepare_cached(
            "SELECT event_id, length(destination_ids) / 16 - position FROM fan_outs
             WHERE event_id >= ?1 AND event_id < ?2",
        )?;
        let mut rows = statement.query([key(EventId::floor(at)), key(ceiling::<EventKind>(at))])?;
        while let Some(row) = rows.next()? {
            let left: i64 = row.get(1)?;
            self.of_that_time.entry(id(row, 0)?).or_default().pending += u64::try_from(left).unwrap_or(0);
        }
        self.at = Some(at);
        Ok(())
    }
}
