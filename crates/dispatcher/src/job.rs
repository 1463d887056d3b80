//! One delivery in the hands of the dispatcher, and what its tasks tell the engine.

use std::{sync::Arc, time::Duration};

use signalpost_bus::{Message, Place};
use signalpost_core::{DestinationId, DestinationState, WaitReason};
use signalpost_limits::Claim;
use signalpost_store::dispatch::{DeliveryWrite, Target};
use tokio::sync::mpsc::UnboundedSender;

/// A message that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Where on the bus it stands.
    pub place: Place,
    /// What.
    pub message: Arc<Message>,
    /// Since when it waits here, by the process's clock.
    pub since: Duration,
}

impl Job {
    /// Which delivery a write is about.
    pub(crate) fn target(&self) -> Target {
        Target {
            delivery_id: self.message.delivery_id,
            tenant_id: self.message.tenant_id,
            destination_id: self.message.destination_id,
            event_id: self.message.event.id,
        }
    }

    /// What is claimed for it.
    pub(crate) fn claim(&self) -> Claim {
        Claim { delivery_id: self.message.delivery_id, attempt: self.message.attempt }
    }

    /// What it takes of memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.message.event.data.len()
    }

    /// Settles it where its destination is not sent to. The store holds the queue of a destination that is paused or disabled
    /// for as long as it is.
    pub(crate) fn turn_away(&self, state: DestinationState) -> DeliveryWrite {
        match state {
            DestinationState::Deleted => DeliveryWrite::End { target: self.target(), dead: None },
            _ => self.park(WaitReason::Paused, Duration::ZERO, false),
        }
    }

    /// Puts it back into the store.
    pub(crate) fn park(&self, reason: WaitReason, after: Duration, hold_queue: bool) -> DeliveryWrite {
        DeliveryWrite::Park { target: self.target(), reason, after, hold_queue }
    }
}

/// What a task tells the engine.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A request is over, its slot is free. The destination may have asked to be left alone for a while.
    Ended {
        /// Whose slot.
        destination_id: DestinationId,
        /// `Retry-After` of a 429 or 503.
        slow_for: Option<Duration>,
    },
    /// The store holds it from now on; its request is still out.
    Detached(Place),
    /// What came of it is written.
    Settled(Job),
    /// The task broke: a bug. Nothing is known of its request.
    Broken(Job),
    /// A batch of claims has been given back.
    ClaimsReleased,
}

/// Holds a job while a task works on it. Dropped before it is settled, it tells that the task broke.
pub(crate) struct Hold {
    job: Option<Job>,
    slot: Option<DestinationId>,
    signals: UnboundedSender<Signal>,
}

impl Hold {
    pub(crate) fn new(job: Job, signals: UnboundedSender<Signal>) -> Self {
        Self { slot: Some(job.message.destination_id), job: Some(job), signals }
    }

    /// For work that takes no slot.
    pub(crate) fn without_slot(job: Job, signals: UnboundedSender<Signal>) -> Self {
        Self { slot: None, job: Some(job), signals }
    }

    /// The request is over.
    pub(crate) fn ended(&mut self, slow_for: Option<Duration>) {
        if let Some(destination_id) = self.slot.take() {
            self.tell(Signal::Ended { destination_id, slow_for });
        }
    }

    /// What came of it is written.
    pub(crate) fn settled(mut self) {
        self.ended(None);
        if let Some(job) = self.job.take() {
            self.tell(Signal::Settled(job));
        }
    }

    fn tell(&self, signal: Signal) {
        // The engine is gone only when the process stops.
        let _gone = self.signals.send(signal);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ended(None);
        if let Some(job) = self.job.take() {
            self.tell(Signal::Broken(job));
        }
    }
}
