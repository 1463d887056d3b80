//! What the gauges show.

use std::time::Duration;

use signalpost_store::schedule::Sample;
use sqlx::{PgConnection, postgres::PgRow};

use crate::{
    error::Failure,
    rows::{big_count, id, optional_time, time},
};

/// Up to so many dead letters are counted; of more, the database's estimate is given.
const MOST_COUNTED: i64 = 100_000;

pub(super) async fn sample(connection: &mut PgConnection) -> Result<Sample, Failure> {
    let row = sqlx::query(
        "SELECT COALESCE(sum(depth), 0)::bigint AS waiting,
                count(*) FILTER (WHERE depth > 0) AS queues,
                count(*) FILTER (WHERE spilled) AS spilled,
                min(next_due) FILTER (WHERE NOT blocked AND next_due < statement_timestamp()) AS oldest_due,
                (SELECT min(created_at) FROM outbox) AS oldest_record,
                statement_timestamp() AS now,
                (SELECT count(*) FROM (SELECT FROM dead_letters LIMIT $1) d) AS dead_letters,
                (SELECT reltuples::bigint FROM pg_class WHERE oid = 'dead_letters'::regclass) AS estimate
         FROM queues",
    )
    .bind(MOST_COUNTED)
    .fetch_one(&mut *connection)
    .await?;
    let counted = big_count(&row, "dead_letters")?;
    let deepest = sqlx::query(
        "SELECT destination_id, depth FROM queues WHERE depth > 0 ORDER BY depth DESC, destination_id LIMIT 20",
    )
    .fetch_all(connection)
    .await?;
    Ok(Sample {
        waiting: big_count(&row, "waiting")?,
        dead_letters: if counted < MOST_COUNTED.unsigned_abs() {
            counted
        } else {
            counted.max(big_count(&row, "estimate")?)
        },
        outbox_age: age(&row, "oldest_record")?,
        oldest_due: age(&row, "oldest_due")?,
        queues: big_count(&row, "queues")?,
        spilled: big_count(&row, "spilled")?,
        deepest: deepest
            .iter()
            .map(|row| Ok((id(row, "destination_id")?, big_count(row, "depth")?)))
            .collect::<Result<_, Failure>>()?,
    })
}

fn age(row: &PgRow, column: &str) -> Result<Duration, Failure> {
    let now = time(row, "now")?;
    Ok(optional_time(row, column)?.map_or(Duration::ZERO, |since| now.since(since)))
}
