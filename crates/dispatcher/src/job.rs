//! One delivery in the hands of the dispatcher, and what its tasks tell the engine.

use std::{sync::Arc, time::Duration};

use signalpost_bus::{Message, Place};
use signalpost_core::{DestinationId, DestinationState, Timestamp, WaitReason};
use signalpost_limits::Claim;
use signalpost_store::{
    dispatch::{DeliveryWrite, Target},
    schedule::DueDelivery,
};
use tokio::sync::mpsc::UnboundedSender;

/// A message that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Where on the bus it stands. None: nowhere; it was handed over by the end of the delivery before it in its lane.
    pub place: Option<Place>,
    /// What.
    pub message: Arc<Message>,
    /// Since when it waits here, by the process's clock.
    pub since: Duration,
    /// In a lane: when its lease ends, by the process's clock, measured so that the store's view of it is never sooner.
    pub lease_end: Option<Duration>,
    /// The mark of that lease.
    pub lease: Option<Timestamp>,
    /// It tries a circuit. Set when it starts.
    pub is_probe: bool,
    /// At most once, and its claim may be in the store: its deadline there ends it, whatever happens here.
    pub is_claimed: bool,
}

/// A request of a lane starts so long before the end of its lease: time to be detached, which makes the lease longer.
const START_MARGIN: Duration = Duration::from_secs(3);
/// A request of a lane that could not be detached is given up so long before the end of its lease.
const GIVE_UP_MARGIN: Duration = Duration::from_millis(500);

impl Job {
    /// Off the bus.
    pub(crate) const fn new(place: Option<Place>, message: Arc<Message>, since: Duration) -> Self {
        Self { place, message, since, lease_end: None, lease: None, is_probe: false, is_claimed: false }
    }

    /// Handed over by the store, leased until then, by the process's clock.
    pub(crate) fn handed_over(due: DueDelivery, lease_end: Duration, now: Duration) -> Self {
        let lease = Some(due.leased_until);
        Self { lease_end: Some(lease_end), lease, ..Self::new(None, Arc::new(due.into()), now) }
    }

    /// Whether the lease of a lane is too short to begin anything: the store brings it back.
    pub(crate) fn is_too_late(&self, now: Duration) -> bool {
        self.lease_end.is_some_and(|end| now + START_MARGIN > end)
    }

    /// In a lane: until when something may be begun, or something be written that another owner of the lease would not bear.
    pub(crate) fn write_until(&self) -> Option<Duration> {
        self.lease_end.map(|end| end.saturating_sub(START_MARGIN))
    }

    /// In a lane: when a request that is not detached must be given up.
    pub(crate) fn give_up_at(&self) -> Option<Duration> {
        self.lease_end.map(|end| end.saturating_sub(GIVE_UP_MARGIN))
    }

    /// Which delivery a write is about.
    pub(crate) fn target(&self) -> Target {
        Target {
            delivery_id: self.message.delivery_id,
            tenant_id: self.message.tenant_id,
            destination_id: self.message.destination_id,
            event_id: self.message.event.id,
            lease: self.lease,
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
        DeliveryWrite::Park { target: self.target(), reason, after, hold_queue, claim: None }
    }
}

/// What a request told about its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It took the delivery.
    Success,
    /// It answered, and refused: neither a success nor a failure. To a probe it is a sign of life.
    Refusal,
    /// It did not, or with 5xx: why, for a person.
    Failure(String),
    /// Nothing: no request was made, or it was told to be slower.
    Nothing,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What it told.
    pub health: Health,
    /// `Retry-After` of a 429 or 503.
    pub slow_for: Option<Duration>,
}

impl Ending {
    /// That told nothing.
    pub(crate) const NOTHING: Self = Self { health: Health::Nothing, slow_for: None };
}

/// What a task tells the engine.
#[derive(Debug)]
pub(crate) enum Signal {
    /// A request is over, its slot is free.
    Ended {
        /// Whose slot.
        destination_id: DestinationId,
        /// It tried a circuit.
        is_probe: bool,
        /// How.
        ending: Ending,
    },
    /// The store holds it from now on; its request is still out.
    Detached(Place),
    /// What came of it is written.
    Settled(Job),
    /// It is given up without a word: the store brings it back.
    Dropped(Job),
    /// The task broke: a bug. Nothing is known of its request.
    Broken(Job),
    /// The next of lanes whose delivery ended, leased to us until then, by the process's clock.
    Followers(Vec<DueDelivery>, Duration),
    /// A batch of claims has been given back.
    ClaimsReleased,
}

/// Holds a job while a task works on it. Dropped before it is settled, it tells that the task broke.
pub(crate) struct Hold {
    job: Option<Job>,
    /// Whose slot it has.
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

    /// The claim of the delivery may be in the store from now on.
    pub(crate) const fn claimed(&mut self) {
        if let Some(job) = &mut self.job {
            job.is_claimed = true;
        }
    }

    /// The request is over.
    pub(crate) fn ended(&mut self, ending: Ending) {
        if let Some(destination_id) = self.slot.take() {
            let is_probe = self.job.as_ref().is_some_and(|job| job.is_probe);
            self.tell(Signal::Ended { destination_id, is_probe, ending });
        }
    }

    /// It is given up: the store brings it back.
    pub(crate) fn dropped(mut self) {
        self.ended(Ending::NOTHING);
        if let Some(job) = self.job.take() {
            self.tell(Signal::Dropped(job));
        }
    }

    /// What came of it is written.
    pub(crate) fn settled(mut self) {
        self.ended(Ending::NOTHING);
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
        self.ended(Ending::NOTHING);
        if let Some(job) = self.job.take() {
            self.tell(Signal::Broken(job));
        }
    }
}
