//! Writes what came of deliveries: in batches, in order, repeated until written.
//!
//! A batch is whatever arrived while the one before was written. While the store is away the batch is kept and tried
//! again, and [`Writer::is_behind`] stops new requests. One write that the store refuses is found by writing one by one;
//! it is given up alone: its delivery is not lost, as nothing of it changed in the store, which brings it back.
//!
//! What ends in a lane lets the next of the lane go: while we keep up, the store hands it to us with the answer.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use signalpost_core::Clock;
use signalpost_runtime::batcher::{Batcher, Entry, Rejected};
use signalpost_store::{
    DispatchStore, HANDOVER_LEASE, StoreError,
    dispatch::{DeliveryWrite, Written},
};
use signalpost_telemetry::names;
use tokio::{sync::mpsc::UnboundedSender, task::JoinHandle};

use crate::{backoff::Backoff, job::Signal};

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
    /// Not to be written later: a lease ends, and then it is somebody else's.
    until: Option<Duration>,
}

type Waiting = Entry<Outcome, Option<Written>>;

/// The writing side. Cloning gives another handle of the same.
#[derive(Clone)]
pub(crate) struct Writer {
    batcher: Batcher<Outcome, Option<Written>>,
    clock: Arc<dyn Clock>,
    oldest: Arc<Oldest>,
    takes_over: Arc<AtomicBool>,
}

/// What the task works with.
struct Writing {
    store: Arc<dyn DispatchStore>,
    clock: Arc<dyn Clock>,
    signals: UnboundedSender<Signal>,
    takes_over: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the task. It ends when the last handle is gone and all is written.
    pub(crate) fn start(
        store: Arc<dyn DispatchStore>,
        clock: Arc<dyn Clock>,
        signals: UnboundedSender<Signal>,
        most: usize,
    ) -> (Self, JoinHandle<()>) {
        let oldest = Arc::new(Oldest::default());
        let takes_over = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&oldest);
        let writing = Writing { store, clock: Arc::clone(&clock), signals, takes_over: Arc::clone(&takes_over) };
        let writing = Arc::new(writing);
        let (batcher, task) = Batcher::start(CAPACITY, most, move |batch: Vec<Waiting>| {
            let (writing, oldest) = (Arc::clone(&writing), Arc::clone(&state));
            async move {
                // Entries come in the order of time, so the first one is the oldest.
                oldest.set(batch.first().map(|entry| entry.item.since));
                writing.batch(batch).await;
                oldest.set(None);
            }
        });
        (Self { batcher, clock, oldest, takes_over }, task)
    }

    /// Whether the next of a lane shall be handed to us. Not while we are full, behind, or about to leave.
    pub(crate) fn take_over(&self, takes_over: bool) {
        self.takes_over.store(takes_over, Ordering::Release);
    }

    /// Writes one and waits until it is written. None: the store refuses it for good.
    ///
    /// # Errors
    /// The writer has ended, and nothing is known.
    pub(crate) async fn write(&self, write: DeliveryWrite) -> Result<Option<Written>, Rejected> {
        self.write_until(write, None).await
    }

    /// As [`Self::write`]. Not begun after `until`, by the process's clock: then it is superseded.
    ///
    /// # Errors
    /// The writer has ended, and nothing is known.
    pub(crate) async fn write_until(
        &self,
        write: DeliveryWrite,
        until: Option<Duration>,
    ) -> Result<Option<Written>, Rejected> {
        metrics::gauge!(names::OUTCOMES_UNWRITTEN).increment(1);
        let result = self.batcher.submit_waiting(Outcome { write, since: self.clock.elapsed(), until }).await;
        metrics::gauge!(names::OUTCOMES_UNWRITTEN).decrement(1);
        result
    }

    /// Whether an outcome has been waiting for longer than that.
    pub(crate) fn is_behind(&self, most: Duration) -> bool {
        self.oldest.get().is_some_and(|since| self.clock.elapsed().saturating_sub(since) > most)
    }
}

impl Writing {
    async fn batch(&self, batch: Vec<Waiting>) {
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!(names::OUTCOME_BATCH_SIZE).record(batch.len() as f64);
        let (items, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(Entry::split).unzip();
        for (reply, written) in replies.into_iter().zip(self.until_written(items).await) {
            // Whoever waited may have gone with a stop.
            let _gone = reply.send(written);
        }
    }

    /// Writes all of them; None for one that the store refuses.
    async fn until_written(&self, outcomes: Vec<Outcome>) -> Vec<Option<Written>> {
        let mut backoff = Backoff::new();
        let mut tries = 0;
        let mut results = vec![Some(Written::Superseded); outcomes.len()];
        loop {
            let now = self.clock.elapsed();
            let in_time = |outcome: &Outcome| outcome.until.is_none_or(|until| now <= until);
            let (places, writes): (Vec<_>, Vec<_>) = outcomes
                .iter()
                .enumerate()
                .filter(|(_, outcome)| in_time(outcome))
                .map(|(place, outcome)| (place, outcome.write.clone()))
                .unzip();
            if writes.is_empty() {
                return results;
            }
            match self.once(&writes).await {
                Ok(written) => {
                    for (place, written) in places.into_iter().zip(written) {
                        results[place] = Some(written);
                    }
                    return results;
                }
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::warn!(error = %error, outcomes = writes.len(), "outcomes not written; trying again");
                }
                Err(error) if writes.len() == 1 => {
                    tries += 1;
                    let target = writes[0].target();
                    tracing::error!(error = %error, delivery.id = %target.delivery_id, tries, "outcome refused by the store");
                    if tries == TRIES_ALONE {
                        results[places[0]] = None;
                        return results;
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error, outcomes = writes.len(), "outcomes refused; writing them one by one");
                    let each = self.one_by_one(&writes).await;
                    // Where the store refuses every one of them, it is the store.
                    if each.iter().any(Option::is_some) {
                        for (place, written) in places.into_iter().zip(each) {
                            results[place] = written;
                        }
                        return results;
                    }
                }
            }
            backoff.wait().await;
        }
    }

    async fn one_by_one(&self, writes: &[DeliveryWrite]) -> Vec<Option<Written>> {
        let mut each = Vec::with_capacity(writes.len());
        for write in writes {
            let mut backoff = Backoff::new();
            let written = loop {
                match self.once(std::slice::from_ref(write)).await {
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
    async fn once(&self, writes: &[DeliveryWrite]) -> Result<Vec<Written>, StoreError> {
        // The lease of what is handed over began after this.
        let lease_end = self.clock.elapsed() + HANDOVER_LEASE;
        let takes_over = self.takes_over.load(Ordering::Acquire);
        match AssertUnwindSafe(self.store.write(writes, takes_over)).catch_unwind().await {
            Ok(Ok(report)) if report.written.len() == writes.len() => {
                if !report.followers.is_empty() {
                    // Told before the outcomes are, so that a drain which waits for those has seen these. The engine is gone
                    // only when the process stops.
                    let _gone = self.signals.send(Signal::Followers(report.followers, lease_end));
                }
                Ok(report.written)
            }
            Ok(Ok(_)) => Err(StoreError::Internal("as many results as writes were expected".to_owned())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Internal("a panic".to_owned())),
        }
    }
}
