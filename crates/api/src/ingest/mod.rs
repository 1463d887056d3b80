//! Commits events in groups, and publishes them after.
//!
//! A handler builds a [`Submission`] (validated, routed, its messages ready) and hands it to [`Ingest::submit`]. The
//! committer takes whatever arrived while the commit before ran, commits it as one transaction, gives the messages to the
//! publisher, and answers. No timer, no round trip and no task per event.
//!
//! What waits is bounded in number and bytes: beyond that the answer is 503. What was committed and not published
//! (bus away, process killed) is found by the relay through the group's outbox record.

mod committer;
mod plan;
mod publisher;
mod requests;

use std::sync::Arc;

use metrics::Gauge;
use signalpost_bus::{Bus, Message};
use signalpost_core::{Clock, DestinationId, Entropy, EventMeta};
use signalpost_runtime::{Batcher, Rejected};
use signalpost_store::{
    IngestStore, StoreError,
    ingest::{IngestUnit, NewEvent, UnitOutcome},
};
use signalpost_telemetry::names;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::IngestSettings;
use committer::Committer;
use publisher::Publisher;

/// What one unit counts besides its bytes of `data`: its ids, answers and rows.
const UNIT_OVERHEAD_BYTES: usize = 1024;

/// What one delivery counts: its row, and its message besides the event.
const DELIVERY_BYTES: usize = 256;

/// What ingest is wired to.
#[derive(Debug, Clone)]
pub struct IngestPorts {
    /// Commits groups.
    pub store: Arc<dyn IngestStore>,
    /// Takes messages.
    pub bus: Arc<dyn Bus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// A unit, ready to be committed.
pub struct Submission {
    /// What is committed.
    pub unit: IngestUnit,
    /// For each event the messages of those of its deliveries that start on the bus.
    pub messages: Vec<Vec<Arc<Message>>>,
}

impl Submission {
    fn bytes(&self) -> usize {
        let of_event = |new: &NewEvent| {
            let deliveries = DELIVERY_BYTES * new.deliveries.len() + size_of::<DestinationId>() * new.fan_out.len();
            new.event.data.len() + free_bytes(&new.event.meta) + deliveries
        };
        UNIT_OVERHEAD_BYTES + self.unit.events.iter().map(of_event).sum::<usize>()
    }

    fn deliveries(&self) -> usize {
        self.unit.events.iter().map(|event| event.deliveries.len()).sum()
    }

    /// Whether it takes a place in a lane.
    fn is_ordered(&self) -> bool {
        self.unit.events.iter().flat_map(|event| &event.deliveries).any(|delivery| delivery.lane.is_some())
    }
}

/// The bytes of what a producer may write into an event besides `data`, and that has no bound of its own.
pub fn free_bytes(meta: &EventMeta) -> usize {
    let labels: usize = meta.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    let extensions: usize =
        meta.extensions.iter().map(|(name, value)| name.len() + value.as_str().map_or(8, str::len)).sum();
    labels + extensions
}

/// Why a submission came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// Too much waits already.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The process stops.
    #[error("the process is stopping")]
    Stopping,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the committer is handed.
enum Item {
    /// The units of one request, and their share of the bytes that may wait.
    Units { submissions: Vec<Submission>, share: OwnedSemaphorePermit },
    /// Answered when all that came before is committed.
    Barrier,
}

/// What the committer answers.
enum Reply {
    /// In the order of the units.
    Done(Vec<Result<UnitOutcome, StoreError>>),
    Barrier,
}

/// The way in. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Ingest {
    queue: Batcher<Item, Reply>,
    publisher: Publisher,
    /// In units of 1 KiB.
    room: Arc<Semaphore>,
    /// All of it.
    all_room: usize,
    waiting: Gauge,
}

impl Ingest {
    /// Starts the committer and the publisher. Both end when the last handle is dropped.
    pub fn start(ports: &IngestPorts, settings: IngestSettings) -> Self {
        let publisher = Publisher::start(ports, settings);
        let committer = Arc::new(Committer::new(ports, settings, publisher.clone()));
        let (queue, _task) = Batcher::start_late(settings.queue_requests, move |intake| {
            let committer = Arc::clone(&committer);
            async move { committer.write(intake).await }
        });
        Self {
            queue,
            publisher,
            room: Arc::new(Semaphore::new(settings.queue_bytes / 1024)),
            all_room: settings.queue_bytes / 1024,
            waiting: metrics::gauge!(names::INGEST_QUEUE),
        }
    }

    /// Commits a unit, together with others. A caller that goes away does not stop it.
    ///
    /// # Errors
    /// See [`IngestError`]; the outcome is unknown for `Store(Unavailable)` and `Stopping`.
    pub async fn submit(&self, submission: Submission) -> Result<UnitOutcome, IngestError> {
        let outcome = self.submit_all(vec![submission]).await?.pop();
        outcome.unwrap_or_else(|| Err(StoreError::Internal("a unit without an outcome".to_owned()))).map_err(Into::into)
    }

    /// Commits the units of one request, in their order, each for itself; what came of each. Those that take places in lanes
    /// do not overtake each other: where one of them has to be routed again, or nothing is known of it, those behind it are
    /// not committed, and get the same outcome. They must have been routed by the same routes.
    ///
    /// # Errors
    /// See [`IngestError`]; none was committed for `Overloaded`.
    pub async fn submit_all(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<UnitOutcome, StoreError>>, IngestError> {
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let share = submissions.iter().map(Submission::bytes).sum::<usize>().div_ceil(1024).min(self.all_room);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.room).try_acquire_many_owned(share).map_err(|_| IngestError::Overloaded)?;
        let _waiting = Waiting::new(&self.waiting);
        match self.queue.submit(Item::Units { submissions, share }).await.map_err(IngestError::from)? {
            Reply::Done(outcomes) => Ok(outcomes),
            Reply::Barrier => Err(IngestError::Stopping),
        }
    }

    /// Waits until all that was submitted before is committed and published, and its outbox records are deleted (as far
    /// as bus and store are there).
    pub async fn drained(&self) {
        let _stopped = self.queue.submit_waiting(Item::Barrier).await;
        self.publisher.drained().await;
    }
}

impl From<Rejected> for IngestError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Full => Self::Overloaded,
            Rejected::Stopped => Self::Stopping,
        }
    }
}

/// Counts one waiting request, for as long as it waits.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
