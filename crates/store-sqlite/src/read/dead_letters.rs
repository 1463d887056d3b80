//! Dead letters, from their own copies.

use std::sync::Arc;

use rusqlite::{Connection, Row, params, params_from_iter};
use signalpost_core::{DeliveryId, TenantId};
use signalpost_store::read::{DeadLetter, DeadLetterFilter, Page};

use super::filter::Filter;
use crate::{
    columns::{self, ATTEMPT, id, key},
    failure::Outcome,
};

fn select(with_data: bool) -> String {
    let data = if with_data { "l.event_data" } else { "x''" };
    format!(
        "SELECT l.delivery_id, l.destination_id, l.reason, l.dead_at, l.attempts,
                l.event_id, l.tenant_id, l.event_type, l.event_uid, l.event_source, l.event_meta, {data}, {ATTEMPT},
                EXISTS (SELECT 1 FROM lanes n WHERE n.destination_id = l.destination_id AND n.lane = l.lane
                        AND n.blocked_by = l.delivery_id) AS blocks_lane
         FROM dead_letters l LEFT JOIN attempts a ON a.delivery_id = l.delivery_id AND a.number = l.attempts"
    )
}

fn view(row: &Row<'_>) -> Outcome<DeadLetter> {
    Ok(DeadLetter {
        delivery_id: id(row, 0)?,
        destination_id: id(row, 1)?,
        reason: columns::dead_reason(row, 2)?,
        dead_at: columns::time(row, 3)?,
        attempts: row.get(4)?,
        blocks_lane: row.get("blocks_lane")?,
        event: Arc::new(columns::event(row, 5)?),
        last_attempt: columns::attempt(row, 12)?,
    })
}

pub(super) fn one(connection: &Connection, tenant: TenantId, delivery: DeliveryId) -> Outcome<Option<DeadLetter>> {
    let mut statement =
        connection.prepare_cached(&format!("{} WHERE l.delivery_id = ?1 AND l.tenant_id = ?2", select(true)))?;
    let mut rows = statement.query(params![key(delivery), key(tenant)])?;
    rows.next()?.map(view).transpose()
}

pub(super) fn list(
    connection: &Connection,
    tenant: TenantId,
    filter: &DeadLetterFilter,
    page: Page<DeliveryId>,
    with_data: bool,
) -> Outcome<Vec<DeadLetter>> {
    let mut conditions = Filter::default();
    conditions.blob("l.tenant_id = ?", key(tenant));
    if let Some(destination) = filter.destination_id {
        conditions.blob("l.destination_id = ?", key(destination));
    }
    if let Some(event_type) = &filter.event_type {
        conditions.text("l.event_type = ?", event_type);
    }
    if let Some(reason) = filter.reason {
        conditions.number("l.reason = ?", i64::from(reason as u8));
    }
    conditions.times("l.dead_at", filter.since, filter.until);
    let (sql, values) = conditions.page("l.delivery_id", &page, page.limit);
    let mut statement = connection.prepare_cached(&format!("{} {sql}", select(with_data)))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(view(row)?);
    }
    Ok(found)
}
