//! What the store is told of destinations as a whole: queues that are held, circuits that changed.
//!
//! Told until it is written, the latest of each destination. An opening is recorded before its queue is held, and a queue is
//! let go before its closing is recorded: so whoever comes after a crash finds in the record that there is something to
//! see to.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use signalpost_core::{CircuitRecord, CircuitState, Clock, DestinationId};
use signalpost_store::{DispatchStore, StoreError, dispatch::QueueHold};

use crate::backoff::Backoff;

/// How a queue is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// By the process's clock. None: let go.
    until: Option<Duration>,
    trial: Option<NonZeroU32>,
}

/// What is to be told.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    holds: BTreeMap<DestinationId, Held>,
    records: BTreeMap<DestinationId, CircuitRecord>,
}

/// What came of telling: the batch, where it must be told again.
pub(crate) type Told = Result<(), Batch>;

/// What waits to be told.
#[derive(Debug)]
pub(crate) struct Tellings {
    batch: Batch,
    backoff: Backoff,
    /// Not before.
    at: Duration,
}

impl Tellings {
    pub(crate) fn new() -> Self {
        Self { batch: Batch::default(), backoff: Backoff::new(), at: Duration::ZERO }
    }

    /// Holds a queue for that long, or lets it go.
    pub(crate) fn hold(&mut self, id: DestinationId, hold: Duration, trial: Option<NonZeroU32>, now: Duration) {
        let until = (!hold.is_zero()).then(|| now + hold);
        self.batch.holds.insert(id, Held { until, trial });
    }

    /// Records what a circuit did.
    pub(crate) fn record(&mut self, id: DestinationId, record: CircuitRecord) {
        self.batch.records.insert(id, record);
    }

    /// When there is something to tell.
    pub(crate) fn next(&self) -> Option<Duration> {
        (!self.batch.is_empty()).then_some(self.at)
    }

    /// Begins to tell what there is to tell now.
    pub(crate) fn tell(
        &mut self,
        store: &Arc<dyn DispatchStore>,
        clock: &Arc<dyn Clock>,
        now: Duration,
    ) -> Option<BoxFuture<'static, Told>> {
        if self.batch.is_empty() || now < self.at {
            return None;
        }
        let batch = std::mem::take(&mut self.batch);
        let (store, clock) = (Arc::clone(store), Arc::clone(clock));
        Some(Box::pin(async move {
            match batch.tell(&*store, &*clock).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    tracing::warn!(error = %error, "circuits and held queues not told; trying again");
                    Err(batch)
                }
            }
        }))
    }

    /// What came of it. What is newer takes the place of what was not told.
    pub(crate) fn told(&mut self, told: Told, now: Duration) {
        match told {
            Ok(()) => self.backoff = Backoff::new(),
            Err(batch) => {
                self.at = now + self.backoff.next();
                for (id, held) in batch.holds {
                    self.batch.holds.entry(id).or_insert(held);
                }
                for (id, record) in batch.records {
                    self.batch.records.entry(id).or_insert(record);
                }
            }
        }
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.holds.is_empty() && self.records.is_empty()
    }

    async fn tell(&self, store: &dyn DispatchStore, clock: &dyn Clock) -> Result<(), StoreError> {
        let records = |closed: bool| -> Vec<_> {
            let is_closed = |record: &CircuitRecord| record.state == CircuitState::Closed;
            let wanted = self.records.iter().filter(|(_, record)| is_closed(record) == closed);
            wanted.map(|(id, record)| (*id, record.clone())).collect()
        };
        let (others, closed) = (records(false), records(true));
        if !others.is_empty() {
            store.record_circuits(&others).await?;
        }
        let now = clock.elapsed();
        let holds: Vec<_> = self.holds.iter().filter_map(|(id, held)| held.at(*id, now)).collect();
        if !holds.is_empty() {
            store.hold_queues(&holds).await?;
        }
        if !closed.is_empty() {
            store.record_circuits(&closed).await?;
        }
        Ok(())
    }
}

impl Held {
    /// What is left of it. None: it is over, and was for the sake of the pause only.
    fn at(self, destination_id: DestinationId, now: Duration) -> Option<QueueHold> {
        let Some(until) = self.until else {
            return Some(QueueHold { destination_id, hold: Duration::ZERO, trial: self.trial });
        };
        let left = until.saturating_sub(now);
        if left.is_zero() && self.trial.is_none() {
            return None;
        }
        // Zero would let it go.
        Some(QueueHold { destination_id, hold: left.max(Duration::from_millis(1)), trial: self.trial })
    }
}
