//! How values of the core look in columns.

use bytes::Bytes;
use rusqlite::{Row, types::FromSqlError};
use signalpost_core::{
    AttemptOutcome, CircuitRecord, DeadReason, DeliveryId, DeliveryState, Destination, DestinationState, Event,
    Guarantee, LaneId, Timestamp, WaitReason,
    id::{Id, Kind},
};
use signalpost_store::dispatch::{Attempt, Target};
use uuid::Uuid;

use crate::{
    failure::{Failure, Outcome},
    tx::Place,
};

/// The bytes of an id.
pub(crate) fn key<K: Kind>(id: Id<K>) -> [u8; 16] {
    id.uuid().into_bytes()
}

/// The id in a column.
pub(crate) fn id<K: Kind>(row: &Row<'_>, column: usize) -> rusqlite::Result<Id<K>> {
    Ok(Id::from_uuid(Uuid::from_bytes(row.get(column)?)))
}

/// What a delivery is, from the ids of its tenant, destination and event in the first three columns.
pub(crate) fn target(row: &Row<'_>, delivery_id: DeliveryId) -> rusqlite::Result<Target> {
    Ok(Target { delivery_id, tenant_id: id(row, 0)?, destination_id: id(row, 1)?, event_id: id(row, 2)?, lease: None })
}

/// The id in a column, where there is one.
pub(crate) fn maybe_id<K: Kind>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Id<K>>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(|bytes| Id::from_uuid(Uuid::from_bytes(bytes))))
}

/// The time in a column.
pub(crate) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

/// The time in a column, where there is one.
pub(crate) fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

/// The lane in a column, where there is one.
pub(crate) fn lane(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<LaneId>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(LaneId::from_bytes))
}

/// A place in a lane, from two columns from `first` on; None where they are NULL.
pub(crate) fn place(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Place>> {
    match lane(row, first)? {
        Some(lane) => Ok(Some(Place { lane, seq: row.get(first + 1)? })),
        None => Ok(None),
    }
}

/// Ids, one after the other.
pub(crate) fn pack<K: Kind>(ids: impl IntoIterator<Item = Id<K>>) -> Vec<u8> {
    let mut packed = Vec::new();
    for id in ids {
        packed.extend_from_slice(&key(id));
    }
    packed
}

/// The opposite of [`pack`].
pub(crate) fn unpack<K: Kind>(packed: &[u8]) -> impl Iterator<Item = Id<K>> + '_ {
    packed.as_chunks::<16>().0.iter().map(|bytes| Id::from_uuid(Uuid::from_bytes(*bytes)))
}

/// The first id that is greater than all of that id's millisecond: with [`Id::floor`], the range of a millisecond.
pub(crate) fn ceiling<K: Kind>(at: Timestamp) -> Id<K> {
    Id::floor(Timestamp::from_millis(at.as_millis() + 1))
}

fn out_of_range(column: usize, number: i64) -> rusqlite::Error {
    FromSqlError::OutOfRange(number).into_error(column)
}

/// Gives an error of conversion its column.
trait IntoError {
    fn into_error(self, column: usize) -> rusqlite::Error;
}

impl IntoError for FromSqlError {
    fn into_error(self, column: usize) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Integer, Box::new(self))
    }
}

macro_rules! numbered {
    ($($name:ident $type:ty;)*) => {$(
        /// The value whose number is in a column.
        pub(crate) fn $name(row: &Row<'_>, column: usize) -> rusqlite::Result<$type> {
            let number: i64 = row.get(column)?;
            u8::try_from(number).ok().and_then(<$type>::from_number).ok_or_else(|| out_of_range(column, number))
        }
    )*};
}

numbered! {
    state DeliveryState;
    wait_reason WaitReason;
    dead_reason DeadReason;
    outcome AttemptOutcome;
    guarantee Guarantee;
}

/// The columns that [`event`] reads.
pub(crate) const EVENT: &str = "e.id, e.tenant_id, e.type, e.uid, e.source, e.meta, e.data";
/// The same without `data`.
pub(crate) const LIGHT_EVENT: &str = "e.id, e.tenant_id, e.type, e.uid, e.source, e.meta, x''";

/// An event, from seven columns from `first` on.
pub(crate) fn event(row: &Row<'_>, first: usize) -> Outcome<Event> {
    let meta = row.get_ref(first + 5)?.as_str().map_err(Failure::internal)?;
    Ok(Event {
        id: id(row, first)?,
        tenant_id: id(row, first + 1)?,
        event_type: row.get(first + 2)?,
        uid: row.get(first + 3)?,
        source: row.get(first + 4)?,
        meta: serde_json::from_str(meta)?,
        data: Bytes::from(row.get::<_, Vec<u8>>(first + 6)?),
    })
}

/// The columns that [`attempt`] reads.
pub(crate) const ATTEMPT: &str =
    "a.number, a.started_at, a.duration_us, a.outcome, a.status_code, a.response_excerpt, a.error";

/// An attempt, from seven columns from `first` on; None where they are NULL.
pub(crate) fn attempt(row: &Row<'_>, first: usize) -> Outcome<Option<Attempt>> {
    let Some(number) = row.get::<_, Option<u32>>(first)? else { return Ok(None) };
    let duration_us: i64 = row.get(first + 2)?;
    Ok(Some(Attempt {
        number,
        started_at: time(row, first + 1)?,
        duration: std::time::Duration::from_micros(u64::try_from(duration_us).unwrap_or(0)),
        outcome: outcome(row, first + 3)?,
        status_code: row.get(first + 4)?,
        response_excerpt: Bytes::from(row.get::<_, Vec<u8>>(first + 5)?),
        error: row.get(first + 6)?,
    }))
}

/// The columns that [`destination`] reads.
pub(crate) const DESTINATION: &str =
    "id, tenant_id, uid, spec, secret, state, disabled_reason, version, created_at, updated_at, circuit, sealed";

/// A destination, from the columns of [`DESTINATION`].
pub(crate) fn destination(row: &Row<'_>) -> Outcome<Destination> {
    let spec = row.get_ref(3)?.as_str().map_err(Failure::internal)?;
    let (spec, secrets) = signalpost_store::secrets::read(spec, row.get(4)?, row.get(11)?)?;
    Ok(Destination {
        id: id(row, 0)?,
        tenant_id: id(row, 1)?,
        uid: row.get(2)?,
        spec,
        secrets,
        state: destination_state(row, 5)?,
        disabled_reason: row.get(6)?,
        circuit: match row.get_ref(10)?.as_str_or_null().map_err(Failure::internal)? {
            Some(record) => serde_json::from_str(record)?,
            None => CircuitRecord::default(),
        },
        version: row.get(7)?,
        created_at: time(row, 8)?,
        updated_at: time(row, 9)?,
    })
}

/// The state whose name is in a column.
pub(crate) fn destination_state(row: &Row<'_>, column: usize) -> Outcome<DestinationState> {
    let name: String = row.get(column)?;
    DestinationState::from_name(&name).ok_or_else(|| Failure::internal(format!("destination state {name:?}")))
}

/// Until when and for what a delivery waits, from two columns from `first` on; None where they are NULL.
pub(crate) fn waiting(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<(Timestamp, WaitReason)>> {
    match row.get::<_, Option<i64>>(first)? {
        Some(due_at) => Ok(Some((Timestamp::from_micros(due_at), wait_reason(row, first + 1)?))),
        None => Ok(None),
    }
}

/// The lowest id of a thing that was created at or after that time: ids know the millisecond, so it is rounded up.
pub(crate) fn first_at<K: Kind>(at: Timestamp) -> Id<K> {
    Id::floor(Timestamp::from_millis((at.as_micros().saturating_add(999)).div_euclid(1000)))
}
