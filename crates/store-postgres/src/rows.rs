//! Rows as the types of the core.

use std::sync::Arc;

use bytes::Bytes;
use signalpost_core::{
    AttemptOutcome, Destination, DestinationState, Event, Guarantee, LaneId, Timestamp,
    id::{Id, Kind},
};
use signalpost_store::dispatch::Attempt;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{error::Failure, time::Time};

/// The columns of [`destination`].
macro_rules! destination_columns {
    () => {
        "id, tenant_id, uid, spec::text AS spec, secret, sealed, state, disabled_reason, circuit::text AS circuit, version, created_at, \
         updated_at"
    };
}

/// The columns of [`event`], of a table `e`, with an expression for `data`.
macro_rules! event_columns {
    ($data:literal) => {
        concat!("e.id, e.tenant_id, e.type, e.uid, e.source, e.meta::text AS meta, ", $data, " AS data")
    };
}

/// The columns of [`attempt`], of a table `a`.
macro_rules! attempt_columns {
    () => {
        "a.number, a.started_at, a.duration_us, a.outcome, a.status_code, a.response_excerpt, a.error"
    };
}

pub(crate) use attempt_columns;
pub(crate) use destination_columns;
pub(crate) use event_columns;

/// An id.
pub(crate) fn id<K: Kind>(row: &PgRow, column: &str) -> Result<Id<K>, Failure> {
    Ok(Id::from_uuid(row.try_get(column)?))
}

/// An id that may be null.
pub(crate) fn optional_id<K: Kind>(row: &PgRow, column: &str) -> Result<Option<Id<K>>, Failure> {
    Ok(row.try_get::<Option<Uuid>, _>(column)?.map(Id::from_uuid))
}

/// A time.
pub(crate) fn time(row: &PgRow, column: &str) -> Result<Timestamp, Failure> {
    Ok(row.try_get::<Time, _>(column)?.0)
}

/// A time that may be null.
pub(crate) fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, Failure> {
    Ok(row.try_get::<Option<Time>, _>(column)?.map(|time| time.0))
}

/// A count in an `integer` column.
pub(crate) fn count(row: &PgRow, column: &str) -> Result<u32, Failure> {
    Ok(u32::try_from(row.try_get::<i32, _>(column)?).unwrap_or_default())
}

/// A count in a `bigint` column.
pub(crate) fn big_count(row: &PgRow, column: &str) -> Result<u64, Failure> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

/// A value that is kept as its number.
pub(crate) fn named<T>(row: &PgRow, column: &str, from: impl FnOnce(u8) -> Option<T>) -> Result<T, Failure> {
    let number: i16 = row.try_get(column)?;
    u8::try_from(number)
        .ok()
        .and_then(from)
        .ok_or_else(|| Failure::Inconsistent(format!("{number} is no known value of {column}")))
}

/// As [`named`], of a column that may be null.
pub(crate) fn optional_named<T>(
    row: &PgRow,
    column: &str,
    from: impl FnOnce(u8) -> Option<T>,
) -> Result<Option<T>, Failure> {
    match row.try_get::<Option<i16>, _>(column)? {
        None => Ok(None),
        Some(_) => named(row, column, from).map(Some),
    }
}

/// A value that is kept as JSON, selected as text.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Failure> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| Failure::Inconsistent(format!("{column}: {error}")))
}

/// As [`json`], of a column that may be null.
pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, Failure> {
    match row.try_get::<Option<&str>, _>(column)? {
        None => Ok(None),
        Some(_) => json(row, column).map(Some),
    }
}

/// A lane, kept as a UUID: any 16 bytes.
pub(crate) fn optional_lane(row: &PgRow, column: &str) -> Result<Option<LaneId>, Failure> {
    Ok(row.try_get::<Option<Uuid>, _>(column)?.map(|lane| LaneId::from_bytes(lane.into_bytes())))
}

/// The reverse of [`optional_lane`].
pub(crate) fn lane_uuid(lane: LaneId) -> Uuid {
    Uuid::from_bytes(*lane.as_bytes())
}

/// A guarantee; null is the usual one.
pub(crate) fn guarantee(row: &PgRow, column: &str) -> Result<Guarantee, Failure> {
    Ok(optional_named(row, column, Guarantee::from_number)?.unwrap_or_default())
}

/// The reverse of [`guarantee`].
pub(crate) fn guarantee_number(guarantee: Guarantee) -> Option<i16> {
    (guarantee != Guarantee::default()).then_some(guarantee as i16)
}

/// A value as the JSON that a statement casts.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Sql(sqlx::Error::Encode(error.into())))
}

/// Of [`destination_columns`].
pub(crate) fn destination(row: &PgRow) -> Result<Destination, Failure> {
    let (spec, secrets) =
        signalpost_store::secrets::read(row.try_get("spec")?, row.try_get("secret")?, row.try_get("sealed")?)
            .map_err(|error| Failure::Inconsistent(format!("a destination's spec: {error}")))?;
    Ok(Destination {
        id: id(row, "id")?,
        tenant_id: id(row, "tenant_id")?,
        uid: row.try_get("uid")?,
        spec,
        secrets,
        state: destination_state(row, "state")?,
        disabled_reason: row.try_get("disabled_reason")?,
        circuit: optional_json(row, "circuit")?.unwrap_or_default(),
        version: version(row, "version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

/// A destination's version.
pub(crate) fn version(row: &PgRow, column: &str) -> Result<u32, Failure> {
    let version: i64 = row.try_get(column)?;
    u32::try_from(version).map_err(|_| Failure::Inconsistent(format!("{version} is no version")))
}

/// A destination's state.
pub(crate) fn destination_state(row: &PgRow, column: &str) -> Result<DestinationState, Failure> {
    let name: &str = row.try_get(column)?;
    DestinationState::from_name(name).ok_or_else(|| Failure::Inconsistent(format!("{name} is no state")))
}

/// Of [`event_columns`]. Null `data` becomes empty.
pub(crate) fn event(row: &PgRow) -> Result<Arc<Event>, Failure> {
    Ok(Arc::new(Event {
        id: id(row, "id")?,
        tenant_id: id(row, "tenant_id")?,
        event_type: row.try_get("type")?,
        uid: row.try_get("uid")?,
        source: row.try_get("source")?,
        meta: json(row, "meta")?,
        data: Bytes::from(row.try_get::<Option<Vec<u8>>, _>("data")?.unwrap_or_default()),
    }))
}

/// Of [`attempt_columns`].
pub(crate) fn attempt(row: &PgRow) -> Result<Attempt, Failure> {
    Ok(Attempt {
        number: count(row, "number")?,
        started_at: time(row, "started_at")?,
        duration: std::time::Duration::from_micros(big_count(row, "duration_us")?),
        outcome: named(row, "outcome", AttemptOutcome::from_number)?,
        status_code: row.try_get::<Option<i32>, _>("status_code")?.and_then(|code| u16::try_from(code).ok()),
        response_excerpt: Bytes::from(row.try_get::<Vec<u8>, _>("response_excerpt")?),
        error: row.try_get("error")?,
    })
}

/// Of [`attempt_columns`] of a left join.
pub(crate) fn optional_attempt(row: &PgRow) -> Result<Option<Attempt>, Failure> {
    match row.try_get::<Option<i32>, _>("number")? {
        None => Ok(None),
        Some(_) => attempt(row).map(Some),
    }
}
