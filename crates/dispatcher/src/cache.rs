//! The destinations in memory. For economy: who has an older copy than a message names loads first.

use std::{collections::BTreeMap, sync::Arc};

use signalpost_core::{Destination, DestinationId};

struct Entry {
    destination: Arc<Destination>,
    /// Looked at since the last sweep.
    used: bool,
}

/// A bounded map of destinations.
pub(crate) struct Cache {
    entries: BTreeMap<DestinationId, Entry>,
    most: usize,
}

impl Cache {
    pub(crate) const fn new(most: usize) -> Self {
        Self { entries: BTreeMap::new(), most }
    }

    /// The destination as it is known.
    pub(crate) fn get(&mut self, id: DestinationId) -> Option<Arc<Destination>> {
        let entry = self.entries.get_mut(&id)?;
        entry.used = true;
        Some(Arc::clone(&entry.destination))
    }

    /// Whether it must be loaded before a message that names this version is looked at.
    pub(crate) fn lacks(&self, id: DestinationId, version: u32) -> bool {
        self.entries.get(&id).is_none_or(|entry| entry.destination.version < version)
    }

    /// Takes a copy, unless a newer one is here. `in_use` tells which ones may not be dropped for room.
    pub(crate) fn put(&mut self, destination: Destination, in_use: impl Fn(DestinationId) -> bool) {
        let id = destination.id;
        if self.entries.get(&id).is_some_and(|entry| entry.destination.version > destination.version) {
            return;
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&id) {
            self.sweep(in_use);
        }
        self.entries.insert(id, Entry { destination: Arc::new(destination), used: true });
    }

    /// The store says that it is gone.
    pub(crate) fn remove(&mut self, id: DestinationId) {
        self.entries.remove(&id);
    }

    /// Drops what was not looked at since the last sweep; where that is nothing, all that is not in use.
    fn sweep(&mut self, in_use: impl Fn(DestinationId) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|id, entry| std::mem::take(&mut entry.used) || in_use(*id));
        if self.entries.len() == before {
            self.entries.retain(|id, _| in_use(*id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::destination;

    #[test]
    fn an_older_copy_never_replaces_a_newer_one() {
        let mut cache = Cache::new(10);
        let mut new = destination(1);
        new.version = 3;
        let id = new.id;
        assert!(cache.lacks(id, 1));
        cache.put(new, |_| false);
        cache.put(destination(1), |_| false);
        assert!(!cache.lacks(id, 3));
        assert!(cache.lacks(id, 4));
        assert_eq!(cache.get(id).unwrap().version, 3);
    }

    #[test]
    fn room_is_made_of_what_is_neither_used_nor_in_use() {
        let mut cache = Cache::new(3);
        let ids: Vec<_> = (1..=5).map(|number| destination(number).id).collect();
        for number in 1..=4 {
            cache.put(destination(number), |id| id == ids[0]);
        }
        // All three were new: all but the one in use had to go.
        assert!(cache.get(ids[0]).is_some() && cache.get(ids[1]).is_none() && cache.get(ids[3]).is_some());
        cache.put(destination(3), |_| false);
        cache.put(destination(5), |_| false);
        assert!(cache.entries.len() <= 3 && cache.get(ids[4]).is_some());
    }
}
