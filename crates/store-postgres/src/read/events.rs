//! Events, and what became of them.

use signalpost_core::{DeliveryState, EventId, TenantId, id::EventKind};
use signalpost_store::read::{DeliveryCounts, EventFilter, EventView, Page};
use sqlx::{PgConnection, Postgres, QueryBuilder, postgres::PgRow};
use uuid::Uuid;

use super::page::{push_limit, push_page};
use crate::{
    error::Failure,
    ids::push_accepted,
    rows::{self, big_count, event_columns},
    selection::{event_ceiling, event_floor},
};

/// Counts of deliveries of the event `e`. What was sent again counts by its replay. A large fan-out has `to_create` to go.
const COUNTS: &str = concat!(
    " LEFT JOIN LATERAL (
          SELECT count(*) FILTER (WHERE d.state <= 1 AND d.attempts = 0) AS pending,
                 count(*) FILTER (WHERE d.state <= 1 AND d.attempts > 0) AS retrying,
                 count(*) FILTER (WHERE d.state = 2) AS delivered,
                 count(*) FILTER (WHERE d.state = 3) AS dead,
                 count(*) FILTER (WHERE d.state = 4) AS cancelled
          FROM deliveries d
          WHERE d.event_id = e.id AND d.replayed_by IS NULL AND d.id BETWEEN ",
    event_floor!(),
    " AND ",
    event_ceiling!(),
    ") c ON true
      LEFT JOIN LATERAL (
          SELECT (octet_length(f.destination_ids) / 16 - f.position)::bigint AS to_create
          FROM fan_outs f WHERE f.event_id = e.id
      ) f ON true"
);

// The numbers in the counts above.
const _: () = {
    assert!(DeliveryState::Queued as u8 == 0 && DeliveryState::Waiting as u8 == 1);
    assert!(DeliveryState::Delivered as u8 == 2);
    assert!(DeliveryState::Dead as u8 == 3);
    assert!(DeliveryState::Cancelled as u8 == 4);
};

const WITH_DATA: &str = concat!(
    "SELECT ",
    event_columns!("e.data"),
    ", c.pending, c.retrying, c.delivered, c.dead, c.cancelled, COALESCE(f.to_create, 0) AS to_create FROM "
);
const WITHOUT_DATA: &str = concat!(
    "SELECT ",
    event_columns!("NULL::bytea"),
    ", c.pending, c.retrying, c.delivered, c.dead, c.cancelled, COALESCE(f.to_create, 0) AS to_create FROM "
);

fn view(row: &PgRow) -> Result<EventView, Failure> {
    Ok(EventView {
        event: rows::event(row)?,
        counts: DeliveryCounts {
            pending: big_count(row, "pending")? + big_count(row, "to_create")?,
            retrying: big_count(row, "retrying")?,
            delivered: big_count(row, "delivered")?,
            dead: big_count(row, "dead")?,
            cancelled: big_count(row, "cancelled")?,
        },
    })
}

pub(super) async fn one(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: EventId,
) -> Result<Option<EventView>, Failure> {
    let mut query = QueryBuilder::new(WITH_DATA);
    query.push("events e").push(COUNTS);
    query.push(" WHERE e.id = ").push_bind(id.uuid());
    query.push(" AND e.tenant_id = ").push_bind(tenant.uuid());
    query.build().fetch_optional(connection).await?.as_ref().map(view).transpose()
}

pub(super) async fn by_uid(
    connection: &mut PgConnection,
    tenant: TenantId,
    uid: &str,
) -> Result<Option<EventId>, Failure> {
    let found: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM events WHERE tenant_id = $1 AND uid = $2 ORDER BY id DESC LIMIT 1")
            .bind(tenant.uuid())
            .bind(uid)
            .fetch_optional(connection)
            .await?;
    Ok(found.map(EventId::from_uuid))
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &EventFilter,
    page: Page<EventId>,
    with_data: bool,
) -> Result<Vec<EventView>, Failure> {
    let mut query = QueryBuilder::new(if with_data { WITH_DATA } else { WITHOUT_DATA });
    // The page first, then what became of its events.
    query.push("(SELECT * FROM events e WHERE e.tenant_id = ").push_bind(tenant.uuid());
    push_filter(&mut query, filter);
    push_page(&mut query, "e.id", page);
    query.push(") e").push(COUNTS).push(" ORDER BY e.id").push(if page.descending { " DESC" } else { " ASC" });
    push_limit(&mut query, page.limit);
    query.build().fetch_all(connection).await?.iter().map(view).collect()
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &EventFilter) {
    if let Some(event_type) = &filter.event_type {
        query.push(" AND e.type = ").push_bind(event_type.clone());
    }
    if let Some(uid) = &filter.uid {
        query.push(" AND e.uid = ").push_bind(uid.clone());
    }
    if let Some(source) = &filter.source {
        query.push(" AND e.source = ").push_bind(source.clone());
    }
    for (name, value) in &filter.labels {
        query.push(" AND e.meta -> 'labels' ->> ").push_bind(name.clone());
        query.push(" = ").push_bind(value.clone());
    }
    push_accepted::<EventKind>(query, "e.id", filter.since, filter.until);
}
