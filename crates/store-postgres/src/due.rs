//! What was leased, made whole: with its attempts, its fixed properties and its event.

use std::{collections::HashMap, sync::Arc};

use signalpost_core::{DeliveryId, DestinationId, Event, EventId, Guarantee, LaneId, TenantId, Timestamp, WaitReason};
use signalpost_store::schedule::DueDelivery;
use sqlx::{PgConnection, Row};

use crate::{
    error::Failure,
    ids::uuids,
    partitions::by_day,
    rows::{self, count, event_columns, guarantee, id, optional_lane, optional_time},
};

/// A row of `waiting` that was leased.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) delivery_id: DeliveryId,
    pub(crate) tenant_id: TenantId,
    pub(crate) destination_id: DestinationId,
    /// Of the destination.
    pub(crate) version: u32,
    pub(crate) event_id: EventId,
    pub(crate) reason: WaitReason,
    pub(crate) until: Timestamp,
}

/// What is kept with the delivery.
struct Kept {
    attempts: u32,
    lane: Option<LaneId>,
    guarantee: Guarantee,
    born_at: Option<Timestamp>,
}

/// Completes leased rows; each event is read once, its data only where it is not larger than that.
pub(crate) async fn load(
    transaction: &mut PgConnection,
    leased: &[Leased],
    inline_bytes: usize,
) -> Result<Vec<DueDelivery>, Failure> {
    if leased.is_empty() {
        return Ok(Vec::new());
    }
    let kept = kept(transaction, leased).await?;
    let events = events(transaction, leased, inline_bytes).await?;
    let mut due = Vec::with_capacity(leased.len());
    for row in leased {
        let (Some(kept), Some((event, whole))) = (kept.get(&row.delivery_id), events.get(&row.event_id)) else {
            tracing::error!(delivery.id = %row.delivery_id, event.id = %row.event_id, "waiting delivery without its event");
            continue;
        };
        due.push(DueDelivery {
            delivery_id: row.delivery_id,
            tenant_id: row.tenant_id,
            destination_id: row.destination_id,
            destination_version: row.version,
            attempts: kept.attempts,
            reason: row.reason,
            lane: kept.lane,
            guarantee: kept.guarantee,
            born_at: kept.born_at,
            leased_until: row.until,
            event: Arc::clone(event),
            whole: *whole,
        });
    }
    Ok(due)
}

async fn kept(transaction: &mut PgConnection, leased: &[Leased]) -> Result<HashMap<DeliveryId, Kept>, Failure> {
    let mut found = HashMap::with_capacity(leased.len());
    for (day, ids) in by_day(leased.iter().map(|row| row.delivery_id)) {
        let rows = sqlx::query(
            "SELECT id, attempts, lane, guarantee, born_at FROM deliveries
             WHERE id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND id >= $2 AND id < $3",
        )
        .bind(ids)
        .bind(day.first_id())
        .bind(day.end_id())
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let kept = Kept {
                attempts: count(row, "attempts")?,
                lane: optional_lane(row, "lane")?,
                guarantee: guarantee(row, "guarantee")?,
                born_at: optional_time(row, "born_at")?,
            };
            found.insert(id(row, "id")?, kept);
        }
    }
    Ok(found)
}

async fn events(
    transaction: &mut PgConnection,
    leased: &[Leased],
    inline_bytes: usize,
) -> Result<HashMap<EventId, (Arc<Event>, bool)>, Failure> {
    let mut found = HashMap::with_capacity(leased.len());
    for (day, ids) in by_day(leased.iter().map(|row| row.event_id)) {
        let rows = sqlx::query(concat!(
            "SELECT ",
            event_columns!("CASE WHEN octet_length(e.data) <= $2 THEN e.data END"),
            ", octet_length(e.data) <= $2 AS whole FROM events e
              WHERE e.id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND e.id >= $3 AND e.id < $4"
        ))
        .bind(ids)
        .bind(i64::try_from(inline_bytes).unwrap_or(i64::MAX))
        .bind(day.first_id())
        .bind(day.end_id())
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let event_id = id(row, "id")?;
            match rows::event(row) {
                Ok(event) => drop(found.insert(event_id, (event, row.try_get("whole")?))),
                // One row must not stop all others.
                Err(error) => tracing::error!(event.id = %event_id, %error, "event cannot be read"),
            }
        }
    }
    Ok(found)
}

/// Whole events, in any order; missing ones are missing.
pub(crate) async fn whole_events(connection: &mut PgConnection, ids: &[EventId]) -> Result<Vec<Arc<Event>>, Failure> {
    let mut wanted = uuids(ids.iter().copied());
    wanted.sort_unstable();
    wanted.dedup();
    let rows = sqlx::query(concat!("SELECT ", event_columns!("e.data"), " FROM events e WHERE e.id = ANY($1)"))
        .bind(wanted)
        .fetch_all(connection)
        .await?;
    rows.iter().map(rows::event).collect()
}
