//! Events as arrays, one for each column, as `unnest` takes them.

use signalpost_store::ingest::NewEvent;
use uuid::Uuid;

use crate::{error::Failure, rows::to_json};

/// Columns of the events of a group.
pub(super) struct EventColumns<'g> {
    pub ids: Vec<Uuid>,
    pub tenants: Vec<Uuid>,
    pub types: Vec<&'g str>,
    pub uids: Vec<Option<&'g str>>,
    pub sources: Vec<Option<&'g str>>,
    /// JSON.
    pub metas: Vec<String>,
    pub data: Vec<&'g [u8]>,
}

impl<'g> EventColumns<'g> {
    /// # Errors
    /// What is kept about one is no JSON.
    pub(super) fn of(events: &[&'g NewEvent]) -> Result<Self, Failure> {
        Ok(Self {
            ids: column(events, |new| new.event.id.uuid()),
            tenants: column(events, |new| new.event.tenant_id.uuid()),
            types: column(events, |new| new.event.event_type.as_str()),
            uids: column(events, |new| new.event.uid.as_deref()),
            sources: column(events, |new| new.event.source.as_deref()),
            metas: events.iter().map(|new| to_json(&new.event.meta)).collect::<Result<_, _>>()?,
            data: column(events, |new| new.event.data.as_ref()),
        })
    }
}

/// One column.
pub(super) fn column<E: Copy, T>(items: &[E], of: impl Fn(E) -> T) -> Vec<T> {
    items.iter().copied().map(of).collect()
}
