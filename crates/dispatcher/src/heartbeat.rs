//! Tells the store each second that this dispatcher lives, and learns how many do: for the shares of each while the
//! limits are away. Economy: what is told late or not at all only makes shares larger or smaller than need be.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signalpost_core::Clock;
use signalpost_limits::{Limits, Owner, census::Census};
use signalpost_store::DispatchStore;
use tokio::time::sleep;

use crate::backoff::Backoff;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// How many dispatchers live, for the engine to look at.
#[derive(Clone)]
pub(crate) struct Alive {
    census: Arc<Mutex<Census>>,
    clock: Arc<dyn Clock>,
}

impl Alive {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        Self { census: Arc::default(), clock: Arc::clone(clock) }
    }

    /// By how many a limit is divided that cannot be shared now. None: nobody knows.
    pub(crate) fn parts(&self) -> Option<u32> {
        self.census.lock().unwrap_or_else(PoisonError::into_inner).parts(self.clock.elapsed())
    }

    fn counted(&self, count: u32) {
        self.census.lock().unwrap_or_else(PoisonError::into_inner).counted(count, self.clock.elapsed());
    }
}

/// Beats until it is dropped.
pub(crate) async fn beat(store: Arc<dyn DispatchStore>, limits: Arc<dyn Limits>, owner: Owner, alive: Alive) {
    let mut backoff = Backoff::new();
    let mut known = 1;
    loop {
        match store.heartbeat(owner).await {
            Ok(count) => {
                let count = count.max(1);
                if std::mem::replace(&mut known, count) != count {
                    tracing::info!(dispatchers = count, "dispatchers alive");
                }
                alive.counted(count);
                limits.set_share(count);
                backoff = Backoff::new();
                sleep(EVERY).await;
            }
            Err(error) => {
                tracing::debug!(error = %error, "no heartbeat; trying again");
                backoff.wait().await;
            }
        }
    }
}
