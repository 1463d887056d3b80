//! What came, in memory: one small entry a request, written twice (when it has been read, and when it ends).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which event of the load it carries; None where it is none of ours.
    pub number: Option<u64>,
    /// The number of its path.
    pub path: u32,
    /// Its `signalpost-attempt`; 0 where it has none.
    pub attempt: u32,
    /// When it had been read, since the epoch.
    pub start: Duration,
    /// When its answer was about to leave, or its client had gone; None while it is in progress.
    pub end: Option<Duration>,
    /// What it was answered; None where it was not.
    pub status: Option<u16>,
}

impl Entry {
    /// Whether it was answered with 2xx.
    pub fn accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// All requests, in the order in which they had been read.
#[derive(Debug, Default)]
pub struct Log {
    entries: Mutex<Vec<Entry>>,
    /// Rung for every end.
    ended: Notify,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that has been read; the place of its entry.
    pub fn begin(&self, number: Option<u64>, path: u32, attempt: u32, now: impl FnOnce() -> Duration) -> usize {
        let mut entries = self.entries();
        // Read under the lock: so the order of entries is that of their times.
        entries.push(Entry { number, path, attempt, start: now(), end: None, status: None });
        entries.len() - 1
    }

    /// Notes its end.
    pub fn end(&self, place: usize, at: Duration, status: Option<u16>) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.end = Some(at);
            entry.status = status;
        }
        self.ended.notify_waiters();
    }

    /// How many requests have been read.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// A copy of all entries from that place on.
    pub fn since(&self, place: usize) -> Vec<Entry> {
        self.entries().get(place..).map(<[Entry]>::to_vec).unwrap_or_default()
    }

    /// Looks at the entries from that place on, without a copy.
    pub fn look<T>(&self, place: usize, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(self.entries().get(place..).unwrap_or_default())
    }

    /// Waits for the next end of a request, at most that long.
    pub async fn changed(&self, at_most: Duration) {
        let _nothing_came = tokio::time::timeout(at_most, self.ended.notified()).await;
    }
}
