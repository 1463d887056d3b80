//! Hands committed deliveries to the bus, in the order of their commits, and remembers what the bus acknowledged.
//!
//! A group's outbox record is ours for 5 s; after 10 s the relay takes it. So what could not be published by then is
//! left alone, and nothing here retries: what the bus refuses, or what does not fit into the bounded queue while it is
//! away, the relay brings back.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use signalpost_bus::{BusError, Message, Payload};
use signalpost_core::OutboxId;
use signalpost_store::{StoreError, ingest::IngestGroup};
use signalpost_telemetry::names;
use tokio::sync::{mpsc, oneshot};

use super::IngestPorts;
use crate::IngestSettings;

/// A group that has waited for so long is left to the relay: the bus may take up to 5 s more, and the relay comes after 10.
const OURS: Duration = Duration::from_secs(4);

/// Acknowledged records are deleted by the next group; after so long without one, by themselves.
const IDLE_FLUSH: Duration = Duration::from_secs(1);

/// The most that a group waits for a place in the queue. Less than the relay's time, more than a bus that works ever takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most messages handed to the bus at once.
const MOST_MESSAGES: usize = 10_000;

/// The most groups merged into one call.
const MOST_GROUPS: usize = 64;

/// The most bytes of `data` that wait to be published.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// A committed group.
pub struct Publication {
    pub outbox_id: OutboxId,
    pub messages: Vec<Arc<Message>>,
    /// On the process's own clock.
    pub committed_at: Duration,
}

impl Publication {
    fn bytes(&self) -> usize {
        let inline = |message: &&Arc<Message>| message.payload == Payload::Inline;
        self.messages.iter().filter(inline).map(|message| message.event.data.len()).sum()
    }
}

enum Job {
    Publish(Publication),
    Barrier(oneshot::Sender<()>),
}

/// The way to the publisher. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    acknowledged: Mutex<Vec<OutboxId>>,
    /// Written by both sides: bytes of `data` in the queue.
    queued_bytes: AtomicUsize,
    /// The last call of the bus failed. Written by the task.
    failing: AtomicBool,
}

impl Shared {
    fn add_acknowledged(&self, mut ids: Vec<OutboxId>) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).append(&mut ids);
    }

    fn take_acknowledged(&self) -> Vec<OutboxId> {
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_acknowledged(&self) -> bool {
        !self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Publisher {
    /// Starts the task; it ends when the last handle is dropped.
    pub fn start(ports: &IngestPorts, settings: IngestSettings) -> Self {
        let (jobs, queue) = mpsc::channel(settings.publish_groups);
        let shared = Arc::new(Shared::default());
        let task = Task { ports: ports.clone(), shared: Arc::clone(&shared) };
        tokio::spawn(task.run(queue));
        Self { jobs, shared }
    }

    /// Waits until another group can be handed in, but not for long: nobody is served by events that are accepted faster than
    /// they can go on, and come by the relay, later and dearer. Not while the bus fails: then they are accepted all the same.
    pub async fn room(&self) {
        if !self.shared.failing.load(Ordering::Relaxed) {
            // The place is given back: whoever waits here is the only one that hands in.
            let _late = tokio::time::timeout(PATIENCE, self.jobs.reserve()).await;
        }
    }

    /// Publishes a group soon. Never waits: where too much waits already, the group is left to the relay.
    pub fn publish(&self, publication: Publication) {
        if publication.messages.is_empty() {
            return;
        }
        let bytes = publication.bytes();
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > MOST_BYTES || self.jobs.try_send(Job::Publish(publication)).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            metrics::counter!(names::PUBLISH_FAILURES).increment(1);
        }
    }

    /// The records that the bus acknowledged since the last call: to be deleted with the next group.
    pub fn take_acknowledged(&self) -> Vec<OutboxId> {
        self.shared.take_acknowledged()
    }

    /// They were not deleted after all.
    pub fn give_back_acknowledged(&self, ids: Vec<OutboxId>) {
        self.shared.add_acknowledged(ids);
    }

    /// Waits until all that was handed in is published or given up, and acknowledged records are deleted.
    pub async fn drained(&self) {
        let (done, wait) = oneshot::channel();
        if self.jobs.send(Job::Barrier(done)).await.is_ok() {
            let _stopped = wait.await;
        }
    }
}

struct Task {
    ports: IngestPorts,
    shared: Arc<Shared>,
}

impl Task {
    async fn run(self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        loop {
            let received = if self.shared.has_acknowledged() {
                match tokio::time::timeout(IDLE_FLUSH, queue.recv_many(&mut jobs, MOST_GROUPS)).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.flush().await;
                        continue;
                    }
                }
            } else {
                queue.recv_many(&mut jobs, MOST_GROUPS).await
            };
            if received == 0 {
                self.flush().await;
                return;
            }
            self.work_off(&mut jobs).await;
        }
    }

    async fn work_off(&self, jobs: &mut Vec<Job>) {
        let mut messages = Vec::new();
        let mut records = Vec::new();
        let mut barriers = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Publish(publication) => {
                    self.shared.queued_bytes.fetch_sub(publication.bytes(), Ordering::Relaxed);
                    if self.ports.clock.elapsed().saturating_sub(publication.committed_at) > OURS {
                        metrics::counter!(names::PUBLISH_FAILURES).increment(1);
                        continue;
                    }
                    records.push(publication.outbox_id);
                    messages.extend(publication.messages);
                    if messages.len() >= MOST_MESSAGES {
                        self.publish(std::mem::take(&mut messages), std::mem::take(&mut records)).await;
                    }
                }
                Job::Barrier(done) => barriers.push(done),
            }
        }
        if !messages.is_empty() {
            self.publish(messages, records).await;
        }
        if !barriers.is_empty() {
            self.flush().await;
            for done in barriers {
                let _gone = done.send(());
            }
        }
    }

    async fn publish(&self, messages: Vec<Arc<Message>>, records: Vec<OutboxId>) {
        let published = AssertUnwindSafe(self.ports.bus.publish(messages)).catch_unwind().await;
        match published.unwrap_or_else(|_| Err(BusError::Unavailable("a panic".to_owned()))) {
            Ok(()) => {
                if self.shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the bus takes messages again");
                }
                self.shared.add_acknowledged(records);
            }
            Err(error) => {
                metrics::counter!(names::PUBLISH_FAILURES).increment(1);
                // Logged once, not for every group.
                if !self.shared.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the bus did not take messages; the relay will bring them");
                }
            }
        }
    }

    /// Deletes acknowledged records without waiting for a group.
    async fn flush(&self) {
        let published = self.shared.take_acknowledged();
        if published.is_empty() {
            return;
        }
        let outbox_id = OutboxId::new(self.ports.clock.now(), &*self.ports.entropy);
        let group = IngestGroup { units: Vec::new(), outbox_id, published };
        let deleted = AssertUnwindSafe(self.ports.store.ingest(&group)).catch_unwind().await;
        if let Err(error) = deleted.unwrap_or_else(|_| Err(StoreError::Internal("a panic".to_owned()))) {
            // The next group deletes them; should there be none, the relay finds their deliveries queued and anchors
            // what has not ended, which costs a check and no duplicate.
            tracing::debug!(%error, "acknowledged outbox records could not be deleted");
            self.shared.add_acknowledged(group.published);
        }
    }
}
