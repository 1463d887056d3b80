//! Ids as arrays and ranges of statements.

use signalpost_core::{
    Timestamp,
    id::{Id, Kind},
};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

/// As an array.
pub(crate) fn uuids<K: Kind>(ids: impl IntoIterator<Item = Id<K>>) -> Vec<Uuid> {
    ids.into_iter().map(Id::uuid).collect()
}

/// Ids one after the other, 16 bytes each.
pub(crate) fn pack<K: Kind>(ids: impl IntoIterator<Item = Id<K>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in ids {
        bytes.extend_from_slice(id.uuid().as_bytes());
    }
    bytes
}

/// The reverse of [`pack`].
pub(crate) fn unpack<K: Kind>(bytes: &[u8]) -> impl Iterator<Item = Id<K>> + '_ {
    bytes.as_chunks::<16>().0.iter().map(|chunk| Id::from_uuid(Uuid::from_bytes(*chunk)))
}

/// The lowest id of what was made at that time or later. An id has whole milliseconds: the first one that is not before the time.
pub(crate) fn first_at<K: Kind>(at: Timestamp) -> Id<K> {
    Id::floor(Timestamp::from_micros(at.as_micros().saturating_add(999)))
}

/// Accepted within a range of time: `since` inclusive, `until` exclusive, as a range of ids.
pub(crate) fn push_accepted<K: Kind>(
    query: &mut QueryBuilder<Postgres>,
    key: &'static str,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) {
    let first = |at: Timestamp| first_at::<K>(at).uuid();
    if let Some(since) = since {
        query.push(" AND ").push(key).push(" >= ").push_bind(first(since));
    }
    if let Some(until) = until {
        query.push(" AND ").push(key).push(" < ").push_bind(first(until));
    }
}
