//! How far the group of dispatchers has come, asked from outside of it.

use std::sync::Arc;

use rdkafka::error::KafkaError;
use signalpost_core::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::{observer::Observer, settings::KafkaSettings, topics::Repair};

/// Asks, one question at a time, on threads for blocking work.
pub(crate) struct Progress {
    settings: Arc<KafkaSettings>,
    clock: Arc<dyn Clock>,
    repair: Repair,
    /// Made for the first question: most processes never ask.
    observer: Arc<Mutex<Option<Observer>>>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    pub(crate) fn new(settings: Arc<KafkaSettings>, clock: Arc<dyn Clock>, repair: Repair) -> Self {
        Self { settings, clock, repair, observer: Arc::default() }
    }

    pub(crate) async fn consumed_until(&self) -> Option<Timestamp> {
        self.ask(Observer::consumed_until).await
    }

    pub(crate) async fn lag(&self) -> Option<u64> {
        self.ask(Observer::lag).await
    }

    async fn ask<T: Send + 'static>(&self, question: fn(&Observer) -> Result<Option<T>, KafkaError>) -> Option<T> {
        let mut slot = Arc::clone(&self.observer).lock_owned().await;
        let (settings, clock, repair) = (Arc::clone(&self.settings), Arc::clone(&self.clock), self.repair.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let observer = match slot.take() {
                Some(observer) => observer,
                None => Observer::new(&settings, clock, repair)?,
            };
            observer.clear();
            let answer = question(&observer);
            // One that reaches Kafka and does not find or read what should be there may know an older topic.
            if !matches!(answer, Ok(None)) {
                *slot = Some(observer);
            }
            answer
        });
        match answer.await {
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
