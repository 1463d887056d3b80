//! Who sends. All dispatchers live in the one process that has the file, so their heartbeats need no disk.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use signalpost_core::Timestamp;
use signalpost_store::HEARTBEAT_LIFE;

/// When each dispatcher was last heard of.
#[derive(Debug, Default)]
pub(crate) struct Dispatchers(Mutex<BTreeMap<u64, Timestamp>>);

impl Dispatchers {
    /// It lives: how many do. A clock that was set back leaves nobody alive for long.
    pub(crate) fn beat(&self, dispatcher: u64, now: Timestamp) -> u32 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(dispatcher, now);
        seen.retain(|_, at| now.since(*at) < HEARTBEAT_LIFE && at.since(now) < HEARTBEAT_LIFE);
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }

    /// It ends.
    pub(crate) fn forget(&self, dispatcher: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&dispatcher);
    }
}
