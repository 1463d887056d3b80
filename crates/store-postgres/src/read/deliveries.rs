//! Deliveries.

use signalpost_core::{DeadReason, DeliveryId, DeliveryState, DeliveryStatus, EventId, TenantId, id::DeliveryKind};
use signalpost_store::read::{DeliveryFilter, DeliveryView, Page};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};

use super::page::push_page;
use crate::{
    error::Failure,
    ids::push_accepted,
    rows::{attempt_columns, count, id, named, optional_attempt, optional_id, optional_named, optional_time},
    waiting::waiting_of,
};

/// The page `d`, completed with what each waits for and its last attempt.
const SELECT: &str = concat!(
    "SELECT d.*, w.due_at, w.reason AS wait_reason, ",
    attempt_columns!(),
    " FROM (SELECT id, event_id, event_type, destination_id, state, attempts, reason, replay_of, replayed_by, ended_at
            FROM deliveries d WHERE d.tenant_id = "
);
const COMPLETE: &str = concat!(
    ") d LEFT JOIN waiting w ON w.delivery_id = d.id
      LEFT JOIN LATERAL (SELECT ",
    attempt_columns!(),
    " FROM attempts a WHERE a.delivery_id = d.id ORDER BY a.number DESC LIMIT 1) a ON true ORDER BY d.id"
);

fn view(row: &PgRow) -> Result<DeliveryView, Failure> {
    Ok(DeliveryView {
        id: id(row, "id")?,
        event_id: id(row, "event_id")?,
        event_type: row.try_get("event_type")?,
        destination_id: id(row, "destination_id")?,
        state: named(row, "state", DeliveryState::from_number)?,
        attempts: count(row, "attempts")?,
        waiting: waiting_of(row)?,
        last_attempt: optional_attempt(row)?,
        reason: optional_named(row, "reason", DeadReason::from_number)?,
        replay_of: optional_id(row, "replay_of")?,
        replayed_by: optional_id(row, "replayed_by")?,
        ended_at: optional_time(row, "ended_at")?,
    })
}

pub(super) async fn one(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: DeliveryId,
) -> Result<Option<DeliveryView>, Failure> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(tenant.uuid()).push(" AND d.id = ").push_bind(id.uuid()).push(COMPLETE);
    query.build().fetch_optional(connection).await?.as_ref().map(view).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &DeliveryFilter,
    page: Page<DeliveryId>,
) -> Result<Vec<DeliveryView>, Failure> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(tenant.uuid());
    if let Some(event) = filter.event_id {
        push_of_event(&mut query, "d", event);
    }
    if let Some(destination) = filter.destination_id {
        query.push(" AND d.destination_id = ").push_bind(destination.uuid());
    }
    if let Some(event_type) = &filter.event_type {
        query.push(" AND d.event_type = ").push_bind(event_type.clone());
    }
    if let Some(status) = filter.status {
        push_status(&mut query, status);
    }
    push_accepted::<DeliveryKind>(&mut query, "d.id", filter.since, filter.until);
    push_page(&mut query, "d.id", page);
    query.push(COMPLETE).push(if page.descending { " DESC" } else { " ASC" });
    query.build().fetch_all(connection).await?.iter().map(view).collect()
}

/// Of one event: their ids carry its millisecond.
pub(super) fn push_of_event(query: &mut QueryBuilder<Postgres>, table: &'static str, event: EventId) {
    let floor = EventId::floor(event.created_at()).uuid();
    let ceiling = uuid::Uuid::from_u128(floor.as_u128() | (u128::MAX >> 48));
    query.push(" AND ").push(table).push(".event_id = ").push_bind(event.uuid());
    query.push(" AND ").push(table).push(".id BETWEEN ").push_bind(floor).push(" AND ").push_bind(ceiling);
}

fn push_status(query: &mut QueryBuilder<Postgres>, status: DeliveryStatus) {
    let states = [DeliveryState::Queued as i16, DeliveryState::Waiting as i16].to_vec();
    match status {
        DeliveryStatus::Pending => query.push(" AND d.attempts = 0 AND d.state = ANY(").push_bind(states).push(")"),
        DeliveryStatus::Retrying => query.push(" AND d.attempts > 0 AND d.state = ANY(").push_bind(states).push(")"),
        DeliveryStatus::Delivered => query.push(" AND d.state = ").push_bind(DeliveryState::Delivered as i16),
        DeliveryStatus::Dead => query.push(" AND d.state = ").push_bind(DeliveryState::Dead as i16),
        DeliveryStatus::Cancelled => query.push(" AND d.state = ").push_bind(DeliveryState::Cancelled as i16),
    };
}
