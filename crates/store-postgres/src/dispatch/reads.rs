//! What the dispatcher reads, each in one statement for a whole batch.

use std::{collections::HashMap, time::Duration};

use signalpost_core::{DeliveryId, DeliveryState, Destination, DestinationId, Timestamp};
use signalpost_store::dispatch::Standing;
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::{
    error::Failure,
    ids::uuids,
    partitions::{by_day, now},
    rows::{self, count, destination_columns, guarantee, id, named, optional_lane, optional_time},
    time::Time,
    waiting::waiting_of,
};

/// How far back a question for changes reaches before its moment: longer than any change's transaction may take.
const OVERLAP: Duration = Duration::from_secs(15);

pub(super) async fn destinations(
    connection: &mut PgConnection,
    ids: &[DestinationId],
) -> Result<Vec<Destination>, Failure> {
    let rows =
        sqlx::query(concat!("SELECT ", destination_columns!(), " FROM destinations WHERE id = ANY($1) ORDER BY id"))
            .bind(uuids(ids.iter().copied()))
            .fetch_all(connection)
            .await?;
    rows.iter().map(rows::destination).collect()
}

pub(super) async fn changed_since(
    connection: &mut PgConnection,
    since: Option<Timestamp>,
) -> Result<(Vec<Destination>, Timestamp), Failure> {
    // Before the rows are read: what changes meanwhile is given again next time.
    let moment = now(&mut *connection).await?;
    let Some(since) = since else { return Ok((Vec::new(), moment)) };
    let rows = sqlx::query(concat!(
        "SELECT ",
        destination_columns!(),
        " FROM destinations WHERE id = ANY(ARRAY(SELECT id FROM destinations WHERE updated_at >= $1
                                             UNION SELECT id FROM destinations WHERE circuit_at >= $1))
          ORDER BY updated_at, id"
    ))
    .bind(Time(since - OVERLAP))
    .fetch_all(connection)
    .await?;
    Ok((rows.iter().map(rows::destination).collect::<Result<_, _>>()?, moment))
}

pub(super) async fn examine(
    connection: &mut PgConnection,
    ids: &[DeliveryId],
) -> Result<Vec<Option<Standing>>, Failure> {
    let mut standing = HashMap::<DeliveryId, Standing>::with_capacity(ids.len());
    for (day, ids) in by_day(ids.iter().copied()) {
        let rows = sqlx::query(
            "SELECT d.id, d.state, d.attempts, d.lane, d.guarantee, d.born_at, w.due_at, w.reason AS wait_reason,
                    CASE WHEN w.leased AND w.due_at > statement_timestamp()
                         THEN (EXTRACT(EPOCH FROM w.due_at - statement_timestamp()) * 1000000)::bigint END AS lease_us
             FROM deliveries d LEFT JOIN waiting w ON w.delivery_id = d.id
             WHERE d.id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND d.id >= $2 AND d.id < $3",
        )
        .bind(ids)
        .bind(day.first_id())
        .bind(day.end_id())
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            standing.insert(id(row, "id")?, standing_of(row)?);
        }
    }
    Ok(ids.iter().map(|id| standing.get(id).copied()).collect())
}

fn standing_of(row: &PgRow) -> Result<Standing, Failure> {
    Ok(Standing {
        state: named(row, "state", DeliveryState::from_number)?,
        attempts: count(row, "attempts")?,
        waiting: waiting_of(row)?,
        lease_left: row.try_get::<Option<i64>, _>("lease_us")?.map(|left| Duration::from_micros(left.unsigned_abs())),
        lane: optional_lane(row, "lane")?,
        guarantee: guarantee(row, "guarantee")?,
        born_at: optional_time(row, "born_at")?,
    })
}
