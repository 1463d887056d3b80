//! Partitions: one per day of acceptance, for events, deliveries and attempts alike.
//!
//! Made by CREATE and ATTACH, which lock nothing that anybody waits for. Dropped only with a short lock time-out: where
//! a long reader is in the way, it is tried again later, and nobody queues behind it for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use chrono::{DateTime, NaiveDate, Utc};
use signalpost_core::{
    EventId, Timestamp,
    id::{Id, Kind},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

use crate::{error::Failure, time::Time};

/// The partitioned tables, in the order in which they are dropped: what is left of a day for a while has its event.
pub(crate) const TABLES: [&str; 3] = ["attempts", "deliveries", "events"];

/// Held while partitions are made or dropped.
const LOCK: i64 = 0x5349_474e_414c_0001;

const MICROS_PER_DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Past days for which a partition is made where events come, and future ones: beyond, a clock is wrong.
const REASONABLE_DAYS: RangeInclusive<i64> = -400..=8;

/// A day of acceptance: days since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(i64);

impl Day {
    pub(crate) const fn of(at: Timestamp) -> Self {
        Self(at.as_micros().div_euclid(MICROS_PER_DAY))
    }

    /// Its first id. Also that of any other kind.
    pub(crate) fn first_id(self) -> Uuid {
        EventId::floor(self.start()).uuid()
    }

    /// The first id of the day after.
    pub(crate) fn end_id(self) -> Uuid {
        Self(self.0 + 1).first_id()
    }

    /// When it ends.
    pub(crate) const fn end(self) -> Timestamp {
        Self(self.0 + 1).start()
    }

    const fn start(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(MICROS_PER_DAY))
    }

    fn suffix(self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.start().as_micros())
            .unwrap_or_default()
            .format("p%Y%m%d")
            .to_string()
    }

    fn from_partition(name: &str) -> Option<Self> {
        let (_, suffix) = name.rsplit_once('_')?;
        let date = NaiveDate::parse_from_str(suffix, "p%Y%m%d").ok()?;
        let start = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros();
        Some(Self::of(Timestamp::from_micros(start)))
    }
}

/// Ids by the day of their partition, sorted, none twice. A statement for each day that names its bounds opens one partition, and is
/// planned in a moment: a plan for the ids themselves looks at each of them, which takes longer than to fetch its row.
pub(crate) fn by_day<K: Kind>(ids: impl IntoIterator<Item = Id<K>>) -> BTreeMap<Day, Vec<Uuid>> {
    let mut days = BTreeMap::<Day, Vec<Uuid>>::new();
    for id in ids {
        days.entry(Day::of(id.created_at())).or_default().push(id.uuid());
    }
    for ids in days.values_mut() {
        ids.sort_unstable();
        ids.dedup();
    }
    days
}

/// The partition of a table for a day.
pub(crate) fn name(table: &str, day: Day) -> String {
    format!("{table}_{}", day.suffix())
}

/// Makes the partitions from yesterday to so many days ahead.
pub(crate) async fn prepare(connection: &mut PgConnection, days_ahead: u32) -> Result<(), Failure> {
    let Day(today) = Day::of(now(connection).await?);
    ensure(connection, (today - 1..=today + i64::from(days_ahead)).map(Day)).await
}

/// Makes the partitions for these moments of acceptance, as far as they are within reason. Gives whether all were.
pub(crate) async fn ensure_for(
    connection: &mut PgConnection,
    moments: impl Iterator<Item = Timestamp>,
) -> Result<bool, Failure> {
    let Day(today) = Day::of(now(connection).await?);
    let days: BTreeSet<Day> = moments.map(Day::of).collect();
    let (sane, odd): (Vec<_>, Vec<_>) = days.into_iter().partition(|day| REASONABLE_DAYS.contains(&(day.0 - today)));
    ensure(connection, sane.into_iter()).await?;
    Ok(odd.is_empty())
}

/// Sees to it that the past days of these moments have all their partitions, however long ago they were, and keep them for as long as
/// the transaction lasts. What is born there and waits keeps them from then on.
pub(crate) async fn hold(
    transaction: &mut PgConnection,
    moments: impl Iterator<Item = Timestamp>,
) -> Result<(), Failure> {
    let days: BTreeSet<Day> = moments.map(Day::of).collect();
    let today = Day::of(now(transaction).await?);
    let past: Vec<Day> = days.into_iter().filter(|day| *day < today).collect();
    if past.is_empty() {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    ensure(transaction, past.into_iter()).await
}

async fn ensure(connection: &mut PgConnection, days: impl Iterator<Item = Day>) -> Result<(), Failure> {
    let days: Vec<Day> = days.collect();
    if missing(connection, &days).await?.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    // Somebody else may have made them while we waited.
    for (table, day) in missing(&mut transaction, &days).await? {
        let (partition, low, high) = (name(table, day), day.first_id(), day.end_id());
        let room = if table == "deliveries" { "WITH (fillfactor = 50)" } else { "" };
        let create = format!("CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE) {room}");
        let attach =
            format!("ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{low}') TO ('{high}')");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *transaction).await?;
        sqlx::raw_sql(AssertSqlSafe(attach)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn missing(connection: &mut PgConnection, days: &[Day]) -> Result<Vec<(&'static str, Day)>, Failure> {
    let existing = existing(connection).await?;
    let is_there = |table, day: &Day| existing.get(day).is_some_and(|tables| tables.contains(table));
    Ok(TABLES
        .into_iter()
        .flat_map(|table| days.iter().filter(move |day| !is_there(table, day)).map(move |day| (table, *day)))
        .collect())
}

/// The days that have partitions, with the tables that have them.
async fn existing(connection: &mut PgConnection) -> Result<BTreeMap<Day, BTreeSet<String>>, Failure> {
    let rows = sqlx::query(
        "SELECT parent.relname::text AS parent, child.relname::text AS child
         FROM pg_inherits i JOIN pg_class parent ON parent.oid = i.inhparent JOIN pg_class child ON child.oid = i.inhrelid
         WHERE i.inhparent IN ('events'::regclass, 'deliveries'::regclass, 'attempts'::regclass)",
    )
    .fetch_all(connection)
    .await?;
    let mut days = BTreeMap::<Day, BTreeSet<String>>::new();
    for row in rows {
        if let Some(day) = Day::from_partition(row.try_get("child")?) {
            days.entry(day).or_default().insert(row.try_get("parent")?);
        }
    }
    Ok(days)
}

/// The days that ended before `before`, oldest first.
pub(crate) async fn ended_before(connection: &mut PgConnection, before: Timestamp) -> Result<Vec<Day>, Failure> {
    Ok(existing(connection).await?.into_keys().filter(|day| day.end() <= before).collect())
}

/// Drops a table's partition of a day, unless something of that day still waits. Gives whether it may be gone. What is `Queued`
/// must have been looked for before; new deliveries of a past day are born waiting.
///
/// One table in a transaction, and of it no more than has to be: those who work hold locks on several tables, which they take in
/// any order, and a partition that is being vacuumed is none of ours.
pub(crate) async fn drop_partition(
    transaction: &mut PgConnection,
    table: &'static str,
    day: Day,
) -> Result<bool, Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1), set_config('lock_timeout', '300ms', true)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let lock = format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    let alive: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM waiting WHERE delivery_id >= $1 AND delivery_id < $2)
             OR EXISTS (SELECT FROM fan_outs WHERE event_id >= $1 AND event_id < $2)",
    )
    .bind(day.first_id())
    .bind(day.end_id())
    .fetch_one(&mut *transaction)
    .await?;
    if alive {
        return Ok(false);
    }
    let drop = format!("DROP TABLE IF EXISTS {}", name(table, day));
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *transaction).await?;
    Ok(true)
}

/// The database's time.
pub(crate) async fn now(connection: &mut PgConnection) -> Result<Timestamp, Failure> {
    Ok(sqlx::query_scalar::<_, Time>("SELECT clock_timestamp()").fetch_one(connection).await?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_its_partition_name_belong_together() {
        let day = Day::of(Timestamp::from_millis(1_700_000_000_000));
        assert_eq!(day.suffix(), "p20231114");
        assert_eq!(Day::from_partition("events_p20231114"), Some(day));
        assert_eq!(Day::from_partition("events_other"), None);
        assert_eq!(Day::of(day.end()), Day(day.0 + 1));
        assert!(day.first_id() < day.end_id());
    }
}
