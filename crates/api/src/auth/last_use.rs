//! When keys were last used: gathered here, and written once a minute and at the end. A process that dies forgets the last
//! minute.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use signalpost_core::{KeyId, Timestamp};
use signalpost_runtime::Shutdown;
use signalpost_store::{Store, StoreError};

/// How often it is written.
const PAUSE: Duration = Duration::from_secs(60);

/// Keys that were used since the last time.
#[derive(Debug, Default)]
pub struct LastUse(Mutex<HashMap<KeyId, Timestamp>>);

impl LastUse {
    /// The key is used at that moment.
    pub fn note(&self, key: KeyId, at: Timestamp) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = used.entry(key).or_insert(at);
        *last = at.max(*last);
    }

    /// Writes what was noted.
    ///
    /// # Errors
    /// The store is away: it is written the next time.
    pub async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let used: Vec<(KeyId, Timestamp)> = used.into_iter().collect();
        let written = store.touch_keys(&used).await;
        if written.is_err() {
            used.into_iter().for_each(|(key, at)| self.note(key, at));
        }
        written
    }

    /// Writes every minute until it is told to drain; the rest is for who ends the process.
    pub async fn run(&self, store: &dyn Store, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if let Err(error) = self.flush(store).await {
                tracing::warn!(%error, "the last use of keys could not be noted");
            }
        }
    }
}
