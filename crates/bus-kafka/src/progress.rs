//! How far the group of dispatchers has come, asked from outside of it.

use std::sync::Arc;

use rdkafka::error::KafkaError;
use signalpost_core::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::{
    observer::{Asking, Observer},
    settings::KafkaSettings,
    topics::Repair,
};

/// Asks, one question at a time, on threads for blocking work.
pub(crate) struct Progress {
    asking: Arc<Mutex<Asking>>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    pub(crate) fn new(settings: Arc<KafkaSettings>, clock: Arc<dyn Clock>, repair: Repair) -> Self {
        Self { asking: Arc::new(Mutex::new(Asking::new(settings, clock, repair))) }
    }

    pub(crate) async fn consumed_until(&self) -> Option<Timestamp> {
        self.ask(Observer::consumed_until).await
    }

    pub(crate) async fn lag(&self) -> Option<u64> {
        self.ask(Observer::lag).await
    }

    async fn ask<T: Send + 'static>(&self, question: fn(&Observer) -> Result<Option<T>, KafkaError>) -> Option<T> {
        let mut asking = Arc::clone(&self.asking).lock_owned().await;
        match tokio::task::spawn_blocking(move || asking.ask(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%error, "progress of the group not known");
                None
            }
            Err(error) => {
                tracing::error!(%error, "asking for the progress of the group failed");
                None
            }
        }
    }
}
