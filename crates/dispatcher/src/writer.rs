//! Writes what came of deliveries: in batches, in order, repeated until written.
//!
//! A batch is whatever arrived while the one before was written. While the store is away the batch is kept and tried
//! again, and [`Writer::is_behind`] stops new requests. One write that the store refuses is found by writing one by one;
//! it is given up alone: its delivery is not lost, as nothing of it changed in the store, which brings it back.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use signalpost_core::Clock;
use signalpost_runtime::batcher::{Batcher, Entry, Rejected};
use signalpost_store::{
    DispatchStore, StoreError,
    dispatch::{DeliveryWrite, Written},
};
use signalpost_telemetry::names;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;

/// How often a write that stands alone is tried again before it is given up.
const TRIES_ALONE: u32 = 5;
/// Places in the queue. More requests than this are never out.
const CAPACITY: usize = 65_536;

/// Since when the oldest unwritten outcome waits: microseconds of the clock plus one; zero where there is none.
#[derive(Debug, Default)]
struct Oldest(AtomicU64);

impl Oldest {
    fn set(&self, since: Option<Duration>) {
        let micros = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX - 1) + 1);
        self.0.store(micros, Ordering::Release);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::Acquire).checked_sub(1).map(Duration::from_micros)
    }
}

struct Outcome {
    write: DeliveryWrite,
    since: Duration,
}

type Waiting = Entry<Outcome, Option<Written>>;

/// The writing side. Cloning gives another handle of the same.
#[derive(Clone)]
pub(crate) struct Writer {
    batcher: Batcher<Outcome, Option<Written>>,
    clock: Arc<dyn Clock>,
    oldest: Arc<Oldest>,
}

impl Writer {
    /// Starts the task. It ends when the last handle is gone and all is written.
    pub(crate) fn start(store: Arc<dyn DispatchStore>, clock: Arc<dyn Clock>, most: usize) -> (Self, JoinHandle<()>) {
        let oldest = Arc::new(Oldest::default());
        let state = Arc::clone(&oldest);
        let (batcher, task) = Batcher::start(CAPACITY, most, move |batch: Vec<Waiting>| {
            let (store, oldest) = (Arc::clone(&store), Arc::clone(&state));
            async move {
                // Entries come in the order of time, so the first one is the oldest.
                oldest.set(batch.first().map(|entry| entry.item.since));
                write_batch(&*store, batch).await;
                oldest.set(None);
            }
        });
        (Self { batcher, clock, oldest }, task)
    }

    /// Writes one and waits until it is written. None: the store refuses it for good.
    ///
    /// # Errors
    /// The writer has ended, and nothing is known.
    pub(crate) async fn write(&self, write: DeliveryWrite) -> Result<Option<Written>, Rejected> {
        metrics::gauge!(names::OUTCOMES_UNWRITTEN).increment(1);
        let result = self.batcher.submit_waiting(Outcome { write, since: self.clock.elapsed() }).await;
        metrics::gauge!(names::OUTCOMES_UNWRITTEN).decrement(1);
        result
    }

    /// Whether an outcome has been waiting for longer than that.
    pub(crate) fn is_behind(&self, most: Duration) -> bool {
        self.oldest.get().is_some_and(|since| self.clock.elapsed().saturating_sub(since) > most)
    }
}

async fn write_batch(store: &dyn DispatchStore, batch: Vec<Waiting>) {
    #[allow(clippy::cast_precision_loss)]
    metrics::histogram!(names::OUTCOME_BATCH_SIZE).record(batch.len() as f64);
    let (items, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(Entry::split).unzip();
    let writes: Vec<_> = items.into_iter().map(|outcome| outcome.write).collect();
    for (reply, written) in replies.into_iter().zip(until_written(store, &writes).await) {
        // Whoever waited may have gone with a stop.
        let _gone = reply.send(written);
    }
}

/// Writes all of them; None for one that the store refuses.
async fn until_written(store: &dyn DispatchStore, writes: &[DeliveryWrite]) -> Vec<Option<Written>> {
    let mut backoff = Backoff::new();
    let mut tries = 0;
    loop {
        match write_once(store, writes).await {
            Ok(written) => return written.into_iter().map(Some).collect(),
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(error = %error, outcomes = writes.len(), "outcomes not written; trying again");
            }
            Err(error) if writes.len() == 1 => {
                tries += 1;
                let target = writes[0].target();
                tracing::error!(error = %error, delivery.id = %target.delivery_id, tries, "outcome refused by the store");
                if tries == TRIES_ALONE {
                    return vec![None];
                }
            }
            Err(error) => {
                tracing::error!(error = %error, outcomes = writes.len(), "outcomes refused; writing them one by one");
                let each = one_by_one(store, writes).await;
                // Where the store refuses every one of them, it is the store.
                if each.iter().any(Option::is_some) {
                    return each;
                }
            }
        }
        backoff.wait().await;
    }
}

async fn one_by_one(store: &dyn DispatchStore, writes: &[DeliveryWrite]) -> Vec<Option<Written>> {
    let mut each = Vec::with_capacity(writes.len());
    for write in writes {
        let mut backoff = Backoff::new();
        let written = loop {
            match write_once(store, std::slice::from_ref(write)).await {
                Ok(written) => break written.first().copied(),
                Err(StoreError::Unavailable(_)) => backoff.wait().await,
                Err(error) => {
                    let target = write.target();
                    tracing::error!(error = %error, delivery.id = %target.delivery_id, "outcome refused by the store");
                    break None;
                }
            }
        };
        each.push(written);
    }
    each
}

/// One try. A panic in the store, and an answer of another length, are faults of the store.
async fn write_once(store: &dyn DispatchStore, writes: &[DeliveryWrite]) -> Result<Vec<Written>, StoreError> {
    match AssertUnwindSafe(store.write(writes, false)).catch_unwind().await {
        Ok(Ok(report)) if report.written.len() == writes.len() => Ok(report.written),
        Ok(Ok(_)) => Err(StoreError::Internal("as many results as writes were expected".to_owned())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::Internal("a panic".to_owned())),
    }
}
