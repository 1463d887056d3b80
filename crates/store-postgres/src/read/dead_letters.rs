//! Dead letters, with their own copies of their events.

use signalpost_core::{DeadReason, DeliveryId, TenantId};
use signalpost_store::read::{DeadLetter, DeadLetterFilter, Page};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};

use super::page::push_page;
use crate::{
    error::Failure,
    rows::{self, attempt_columns, count, id, named, optional_attempt, time},
    time::Time,
};

macro_rules! select {
    ($data:literal) => {
        concat!(
            "SELECT l.delivery_id, l.destination_id, l.reason, l.dead_at, l.attempts, l.event_id AS id, l.tenant_id,
                    l.event_type AS type, l.uid, l.source, l.meta::text AS meta,
                    EXISTS (SELECT 1 FROM lanes n WHERE n.destination_id = l.destination_id AND n.lane = l.lane
                            AND n.blocked_by = l.delivery_id) AS blocks_lane, ",
            $data,
            " AS data, ",
            attempt_columns!(),
            " FROM dead_letters l LEFT JOIN LATERAL (SELECT ",
            attempt_columns!(),
            " FROM attempts a WHERE a.delivery_id = l.delivery_id ORDER BY a.number DESC LIMIT 1) a ON true
              WHERE l.tenant_id = "
        )
    };
}

fn letter(row: &PgRow) -> Result<DeadLetter, Failure> {
    Ok(DeadLetter {
        delivery_id: id(row, "delivery_id")?,
        destination_id: id(row, "destination_id")?,
        reason: named(row, "reason", DeadReason::from_number)?,
        dead_at: time(row, "dead_at")?,
        attempts: count(row, "attempts")?,
        blocks_lane: row.try_get("blocks_lane")?,
        last_attempt: optional_attempt(row)?,
        event: rows::event(row)?,
    })
}

pub(super) async fn one(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: DeliveryId,
) -> Result<Option<DeadLetter>, Failure> {
    let mut query = QueryBuilder::new(select!("l.data"));
    query.push_bind(tenant.uuid()).push(" AND l.delivery_id = ").push_bind(id.uuid());
    query.build().fetch_optional(connection).await?.as_ref().map(letter).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &DeadLetterFilter,
    page: Page<DeliveryId>,
    with_data: bool,
) -> Result<Vec<DeadLetter>, Failure> {
    let mut query = QueryBuilder::new(if with_data { select!("l.data") } else { select!("NULL::bytea") });
    query.push_bind(tenant.uuid());
    push_filter(&mut query, filter);
    push_page(&mut query, "l.delivery_id", page);
    query.build().fetch_all(connection).await?.iter().map(letter).collect()
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &DeadLetterFilter) {
    if let Some(destination) = filter.destination_id {
        query.push(" AND l.destination_id = ").push_bind(destination.uuid());
    }
    if let Some(event_type) = &filter.event_type {
        query.push(" AND l.event_type = ").push_bind(event_type.clone());
    }
    if let Some(reason) = filter.reason {
        query.push(" AND l.reason = ").push_bind(reason as i16);
    }
    if let Some(since) = filter.since {
        query.push(" AND l.dead_at >= ").push_bind(Time(since));
    }
    if let Some(until) = filter.until {
        query.push(" AND l.dead_at < ").push_bind(Time(until));
    }
}
