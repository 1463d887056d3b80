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
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use metrics::Gauge;
use signalpost_core::Clock;
use signalpost_runtime::batcher::{Batcher, Entry, Intake, Rejected};
use signalpost_store::{
    DispatchStore, HANDOVER_LEASE, StoreError,
    dispatch::{DeliveryWrite, WriteReport, Written},
};
use signalpost_telemetry::names;
use tokio::{
    sync::{Notify, mpsc::UnboundedSender},
    task::JoinHandle,
    time::timeout,
};

use crate::{backoff::Backoff, job::Signal};

/// How often a write that stands alone is tried again before it is given up.
const TRIES_ALONE: u32 = 5;
/// While outcomes come by the dozen, a batch waits so long for more of them: nobody waits for those.
const LINGER: Duration = Duration::from_millis(2);
/// From so many on a batch is one of dozens.
const MANY: usize = 8;
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

/// What is done with what waits.
enum Taken {
    /// Nothing yet.
    Waiting(Intake<Outcome, Option<Written>>),
    /// It is being written.
    Batch { entries: Vec<Entry<Outcome, Option<Written>>>, writes: Arc<[DeliveryWrite]>, places: Vec<usize> },
    /// Nothing is to be done any more.
    Away,
}

/// The writing side. Cloning gives another handle of the same.
#[derive(Clone)]
pub(crate) struct Writer {
    batcher: Batcher<Outcome, Option<Written>>,
    clock: Arc<dyn Clock>,
    oldest: Arc<Oldest>,
    takes_over: Arc<AtomicBool>,
    urgent: Arc<Notify>,
    unwritten: Gauge,
}

/// What the task works with.
struct Writing {
    store: Arc<dyn DispatchStore>,
    clock: Arc<dyn Clock>,
    signals: UnboundedSender<Signal>,
    takes_over: Arc<AtomicBool>,
    /// Somebody waits for what was handed in.
    urgent: Arc<Notify>,
    /// Outcomes in the batch before.
    before: AtomicUsize,
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
        let urgent = Arc::new(Notify::new());
        let writing = Arc::new(Writing {
            store,
            clock: Arc::clone(&clock),
            signals,
            takes_over: Arc::clone(&takes_over),
            urgent: Arc::clone(&urgent),
            before: AtomicUsize::new(0),
        });
        let (batcher, task) = Batcher::start_late(CAPACITY, move |intake: Intake<Outcome, Option<Written>>| {
            let (writing, oldest) = (Arc::clone(&writing), Arc::clone(&state));
            async move {
                // Entries come in the order of time, so the first one is the oldest.
                oldest.set(intake.look_at_first(|outcome| outcome.since));
                writing.batch(intake, most).await;
                oldest.set(None);
            }
        });
        let unwritten = metrics::gauge!(names::OUTCOMES_UNWRITTEN);
        (Self { batcher, clock, oldest, takes_over, urgent, unwritten }, task)
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

    /// As [`Self::write`], of what somebody waits for: the next of a lane for the end of the one before.
    ///
    /// # Errors
    /// The writer has ended, and nothing is known.
    pub(crate) async fn write_now(&self, write: DeliveryWrite) -> Result<Option<Written>, Rejected> {
        self.hand_in(write, None, true).await
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
        // A request waits for its claim.
        let is_urgent = matches!(write, DeliveryWrite::Claim { .. });
        self.hand_in(write, until, is_urgent).await
    }

    async fn hand_in(
        &self,
        write: DeliveryWrite,
        until: Option<Duration>,
        is_urgent: bool,
    ) -> Result<Option<Written>, Rejected> {
        self.unwritten.increment(1);
        let hurry = || {
            if is_urgent {
                self.urgent.notify_one();
            }
        };
        let result = self.batcher.submit_telling(Outcome { write, since: self.clock.elapsed(), until }, hurry).await;
        self.unwritten.decrement(1);
        result
    }

    /// Whether an outcome has been waiting for longer than that.
    pub(crate) fn is_behind(&self, most: Duration) -> bool {
        self.oldest.get().is_some_and(|since| self.clock.elapsed().saturating_sub(since) > most)
    }
}

impl Writing {
    /// Writes what waits when its turn has come.
    async fn batch(self: &Arc<Self>, intake: Intake<Outcome, Option<Written>>, most: usize) {
        if self.before.load(Ordering::Relaxed) >= MANY {
            // An urgent one that the batch before took along makes this one a batch without a wait: no harm.
            let _late = timeout(LINGER, self.urgent.notified()).await;
        }
        let taken = Arc::new(Mutex::new(Taken::Waiting(intake)));
        let make = {
            let (writing, taken) = (Arc::clone(self), Arc::clone(&taken));
            Box::new(move || writing.take(&taken, most))
        };
        let first = self.guarded(|hand_over| self.store.write_late(make, hand_over)).await;
        // Where it came to no transaction, these are the ones that are tried again.
        self.take(&taken, most);
        let taken = std::mem::replace(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner), Taken::Away);
        let Taken::Batch { entries, writes, places } = taken else { return };
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!(names::OUTCOME_BATCH_SIZE).record(entries.len() as f64);
        let (items, replies): (Vec<_>, Vec<_>) = entries.into_iter().map(Entry::split).unzip();
        let mut results = vec![Some(Written::Superseded); items.len()];
        let first = first.and_then(|written| expect(written, writes.len()));
        let mut tries = 0;
        if !self.settle(first, &writes, &places, &mut tries, &mut results).await {
            self.until_written(&items, tries, &mut results).await;
        }
        for (reply, written) in replies.into_iter().zip(results) {
            // Whoever waited may have gone with a stop.
            let _gone = reply.send(written);
        }
    }

    /// Takes what waits, once; what of it is to be written now.
    fn take(&self, taken: &Mutex<Taken>, most: usize) -> Arc<[DeliveryWrite]> {
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken::Waiting(intake) = &*taken else { return Arc::default() };
        let entries = intake.take(most);
        self.before.store(entries.len(), Ordering::Relaxed);
        let (places, writes) = self.in_time(entries.iter().map(|entry| &entry.item));
        let writes: Arc<[DeliveryWrite]> = writes.into();
        *taken = Taken::Batch { entries, writes: Arc::clone(&writes), places };
        writes
    }

    /// Those that may still be written, with their places.
    fn in_time<'a>(&self, outcomes: impl Iterator<Item = &'a Outcome>) -> (Vec<usize>, Vec<DeliveryWrite>) {
        let now = self.clock.elapsed();
        let in_time = |outcome: &Outcome| outcome.until.is_none_or(|until| now <= until);
        let outcomes = outcomes.enumerate().filter(|(_, outcome)| in_time(outcome));
        outcomes.map(|(place, outcome)| (place, outcome.write.clone())).unzip()
    }

    /// Tries again until all of them are written; None for one that the store refuses.
    async fn until_written(&self, outcomes: &[Outcome], mut tries: u32, results: &mut [Option<Written>]) {
        let mut backoff = Backoff::new();
        loop {
            backoff.wait().await;
            let (places, writes) = self.in_time(outcomes.iter());
            if writes.is_empty() {
                return;
            }
            let written = self.once(&writes).await;
            if self.settle(written, &writes, &places, &mut tries, results).await {
                return;
            }
        }
    }

    /// Notes what came of a try. False: it is to be tried again.
    async fn settle(
        &self,
        written: Result<Vec<Written>, StoreError>,
        writes: &[DeliveryWrite],
        places: &[usize],
        tries: &mut u32,
        results: &mut [Option<Written>],
    ) -> bool {
        match written {
            Ok(written) => {
                for (place, written) in places.iter().zip(written) {
                    results[*place] = Some(written);
                }
                true
            }
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(error = %error, outcomes = writes.len(), "outcomes not written; trying again");
                false
            }
            Err(error) if writes.len() == 1 => {
                *tries += 1;
                let target = writes[0].target();
                tracing::error!(error = %error, delivery.id = %target.delivery_id, tries, "outcome refused by the store");
                if *tries == TRIES_ALONE {
                    results[places[0]] = None;
                }
                *tries == TRIES_ALONE
            }
            Err(error) => {
                tracing::error!(error = %error, outcomes = writes.len(), "outcomes refused; writing them one by one");
                let each = self.one_by_one(writes).await;
                // Where the store refuses every one of them, it is the store.
                let is_some = each.iter().any(Option::is_some);
                if is_some {
                    for (place, written) in places.iter().zip(each) {
                        results[*place] = written;
                    }
                }
                is_some
            }
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

    /// One try.
    async fn once(&self, writes: &[DeliveryWrite]) -> Result<Vec<Written>, StoreError> {
        let written = self.guarded(|hand_over| self.store.write(writes, hand_over)).await;
        written.and_then(|written| expect(written, writes.len()))
    }

    /// A call of the store, which hands us what follows. A panic in it is a fault of the store.
    async fn guarded<F>(&self, write: impl FnOnce(bool) -> F) -> Result<Vec<Written>, StoreError>
    where
        F: Future<Output = Result<WriteReport, StoreError>>,
    {
        // The lease of what is handed over began after this.
        let lease_end = self.clock.elapsed() + HANDOVER_LEASE;
        let takes_over = self.takes_over.load(Ordering::Acquire);
        match AssertUnwindSafe(write(takes_over)).catch_unwind().await {
            Ok(Ok(report)) => {
                if !report.followers.is_empty() {
                    // Told before the outcomes are, so that a drain which waits for those has seen these. The engine is gone
                    // only when the process stops.
                    let _gone = self.signals.send(Signal::Followers(report.followers, lease_end));
                }
                Ok(report.written)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Internal("a panic".to_owned())),
        }
    }
}

/// An answer of another length is a fault of the store.
fn expect(written: Vec<Written>, count: usize) -> Result<Vec<Written>, StoreError> {
    if written.len() == count {
        Ok(written)
    } else {
        Err(StoreError::Internal("as many results as writes were expected".to_owned()))
    }
}
