//! Deliveries and their attempts.

use rusqlite::{Connection, Row, params, params_from_iter};
use signalpost_core::{DeliveryId, DeliveryState, DeliveryStatus, EventId, TenantId, Timestamp, id::DeliveryKind};
use signalpost_store::read::{AttemptFilter, AttemptView, DeliveryFilter, DeliveryView, Page};

use super::filter::Filter;
use crate::{
    columns::{self, ATTEMPT, ceiling, id, key, maybe_id},
    failure::Outcome,
};

fn select() -> String {
    format!(
        "SELECT d.id, d.event_id, coalesce(e.type, ''), d.destination_id, d.state, d.attempts, d.reason, d.replay_of,
                d.replayed_by, d.ended_at, w.due_at, w.reason, {ATTEMPT}
         FROM deliveries d
         LEFT JOIN events e ON e.id = d.event_id
         LEFT JOIN waiting w ON w.delivery_id = d.id
         LEFT JOIN attempts a ON a.delivery_id = d.id AND a.number = d.attempts"
    )
}

fn view(row: &Row<'_>) -> Outcome<DeliveryView> {
    Ok(DeliveryView {
        id: id(row, 0)?,
        event_id: id(row, 1)?,
        event_type: row.get(2)?,
        destination_id: id(row, 3)?,
        state: columns::state(row, 4)?,
        attempts: row.get(5)?,
        waiting: columns::waiting(row, 10)?,
        last_attempt: columns::attempt(row, 12)?,
        reason: row.get::<_, Option<i64>>(6)?.map(|_| columns::dead_reason(row, 6)).transpose()?,
        replay_of: maybe_id(row, 7)?,
        replayed_by: maybe_id(row, 8)?,
        ended_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
    })
}

pub(super) fn one(connection: &Connection, tenant: TenantId, delivery: DeliveryId) -> Outcome<Option<DeliveryView>> {
    let mut statement = connection.prepare_cached(&format!("{} WHERE d.id = ?1 AND d.tenant_id = ?2", select()))?;
    let mut rows = statement.query(params![key(delivery), key(tenant)])?;
    rows.next()?.map(view).transpose()
}

/// Where an event's deliveries are: in its millisecond.
fn of_event(filter: &mut Filter, event: EventId) {
    let at = event.created_at();
    filter.blob("d.id >= ?", key(DeliveryId::floor(at)));
    filter.blob("d.id < ?", key(ceiling::<DeliveryKind>(at)));
    filter.blob("d.event_id = ?", key(event));
}

fn of_status(filter: &mut Filter, status: DeliveryStatus) {
    let state = |state: DeliveryState| state as u8;
    filter.raw(match status {
        DeliveryStatus::Pending => format!("d.state <= {} AND d.attempts = 0", state(DeliveryState::Waiting)),
        DeliveryStatus::Retrying => format!("d.state <= {} AND d.attempts > 0", state(DeliveryState::Waiting)),
        DeliveryStatus::Delivered => format!("d.state = {}", state(DeliveryState::Delivered)),
        DeliveryStatus::Dead => format!("d.state = {}", state(DeliveryState::Dead)),
        DeliveryStatus::Cancelled => format!("d.state = {}", state(DeliveryState::Cancelled)),
    });
}

pub(super) fn list(
    connection: &Connection,
    tenant: TenantId,
    filter: &DeliveryFilter,
    page: Page<DeliveryId>,
) -> Outcome<Vec<DeliveryView>> {
    let mut conditions = Filter::default();
    conditions.blob("d.tenant_id = ?", key(tenant));
    if let Some(event) = filter.event_id {
        of_event(&mut conditions, event);
    }
    if let Some(destination) = filter.destination_id {
        conditions.blob("d.destination_id = ?", key(destination));
    }
    if let Some(status) = filter.status {
        of_status(&mut conditions, status);
    }
    if let Some(event_type) = &filter.event_type {
        conditions.text("e.type = ?", event_type);
    }
    conditions.created::<DeliveryKind>("d.id", filter.since, filter.until);
    let (sql, values) = conditions.page("d.id", &page, page.limit);
    let mut statement = connection.prepare_cached(&format!("{} {sql}", select()))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(view(row)?);
    }
    Ok(found)
}

pub(super) fn attempts(
    connection: &Connection,
    tenant: TenantId,
    filter: &AttemptFilter,
    page: Page<(DeliveryId, u32)>,
) -> Outcome<Vec<AttemptView>> {
    let mut conditions = Filter::default();
    conditions.blob("d.tenant_id = ?", key(tenant));
    if let Some(event) = filter.event_id {
        of_event(&mut conditions, event);
    }
    if let Some(delivery) = filter.delivery_id {
        conditions.blob("d.id = ?", key(delivery));
    }
    if let Some(destination) = filter.destination_id {
        conditions.blob("d.destination_id = ?", key(destination));
    }
    if let Some(outcome) = filter.outcome {
        conditions.number("a.outcome = ?", i64::from(outcome as u8));
    }
    conditions.times("a.started_at", filter.since, filter.until);
    // No attempt was started before its event was accepted; an hour is for clocks of dispatchers that are behind.
    let latest = filter.until.map(|until| until + std::time::Duration::from_secs(3600));
    conditions.created::<DeliveryKind>("d.id", None, latest);
    if let Some((delivery, number)) = page.after {
        // The plain condition on the key lets SQLite start where the page starts.
        let (compare, from) = if page.descending { ("<", "d.id <= ?") } else { (">", "d.id >= ?") };
        conditions.blob(from, key(delivery));
        conditions.blob(&format!("(d.id {compare} ? OR a.number {compare} {number})"), key(delivery));
    }
    let order = if page.descending { "d.id DESC, a.number DESC" } else { "d.id, a.number" };
    let (sql, values) = conditions.end(order, page.limit);
    // CROSS JOIN: deliveries first, in their order, then the attempts of each.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.id, d.event_id, d.destination_id, {ATTEMPT}
         FROM deliveries d CROSS JOIN attempts a ON a.delivery_id = d.id {sql}"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(attempt) = columns::attempt(row, 3)? {
            found.push(AttemptView {
                delivery_id: id(row, 0)?,
                event_id: id(row, 1)?,
                destination_id: id(row, 2)?,
                attempt,
            });
        }
    }
    Ok(found)
}
