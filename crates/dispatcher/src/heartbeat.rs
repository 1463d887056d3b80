//! Tells the store each second that this dispatcher lives, and learns how many do: for the shares of each while the
//! limits are away. Economy: what is told late or not at all only makes shares larger or smaller than need be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use signalpost_limits::{Limits, Owner};
use signalpost_store::DispatchStore;
use tokio::time::sleep;

use crate::backoff::Backoff;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Beats until it is dropped. `alive` is what the engine looks at.
pub(crate) async fn beat(store: Arc<dyn DispatchStore>, limits: Arc<dyn Limits>, owner: Owner, alive: Arc<AtomicU32>) {
    let mut backoff = Backoff::new();
    loop {
        match store.heartbeat(owner).await {
            Ok(count) => {
                let count = count.max(1);
                if alive.swap(count, Ordering::Relaxed) != count {
                    tracing::info!(dispatchers = count, "dispatchers alive");
                }
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
