//! Attempts, found through their deliveries: they have no index of their own but their key, as every one is written on the
//! hot path.

use signalpost_core::{DeliveryId, TenantId, id::Id};
use signalpost_store::read::{AttemptFilter, AttemptView, Page};
use sqlx::{PgConnection, Postgres, QueryBuilder, postgres::PgRow};
use std::time::Duration;

use super::{deliveries::push_of_event, page::push_limit};
use crate::{
    error::Failure,
    rows::{attempt, attempt_columns, id},
    time::Time,
};

/// How far the clocks of a dispatcher and an API process may be apart: an attempt may seem to begin before its event.
const SKEW: Duration = Duration::from_secs(60);

fn view(row: &PgRow) -> Result<AttemptView, Failure> {
    Ok(AttemptView {
        delivery_id: id(row, "id")?,
        event_id: id(row, "event_id")?,
        destination_id: id(row, "destination_id")?,
        attempt: attempt(row)?,
    })
}

pub(super) async fn list(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &AttemptFilter,
    page: Page<(DeliveryId, u32)>,
) -> Result<Vec<AttemptView>, Failure> {
    let mut query = QueryBuilder::new(concat!(
        "SELECT d.id, d.event_id, d.destination_id, ",
        attempt_columns!(),
        " FROM deliveries d JOIN attempts a ON a.delivery_id = d.id WHERE d.tenant_id = "
    ));
    query.push_bind(tenant.uuid());
    if let Some(event) = filter.event_id {
        push_of_event(&mut query, "d", event);
    }
    if let Some(delivery) = filter.delivery_id {
        query.push(" AND d.id = ").push_bind(delivery.uuid());
    }
    if let Some(destination) = filter.destination_id {
        query.push(" AND d.destination_id = ").push_bind(destination.uuid());
    }
    if let Some(outcome) = filter.outcome {
        query.push(" AND a.outcome = ").push_bind(outcome as i16);
    }
    push_started(&mut query, filter);
    let (comparison, order) = if page.descending { (" < ", " DESC") } else { (" > ", " ASC") };
    if let Some((delivery, number)) = page.after {
        // The bound on the delivery alone lets the index start there.
        let inclusive = if page.descending { " AND d.id <= " } else { " AND d.id >= " };
        query.push(inclusive).push_bind(delivery.uuid());
        query.push(" AND (d.id, a.number)").push(comparison).push("(").push_bind(delivery.uuid());
        query.push(", ").push_bind(i32::try_from(number).unwrap_or(i32::MAX)).push(")");
    }
    query.push(" ORDER BY d.id").push(order).push(", a.number").push(order);
    push_limit(&mut query, page.limit);
    query.build().fetch_all(connection).await?.iter().map(view).collect()
}

/// An attempt begins after its event was accepted, so `until` bounds the deliveries, too.
fn push_started(query: &mut QueryBuilder<Postgres>, filter: &AttemptFilter) {
    if let Some(since) = filter.since {
        query.push(" AND a.started_at >= ").push_bind(Time(since));
    }
    if let Some(until) = filter.until {
        let last: DeliveryId = Id::floor(until + SKEW);
        query.push(" AND a.started_at < ").push_bind(Time(until));
        query.push(" AND d.id < ").push_bind(last.uuid());
    }
}
