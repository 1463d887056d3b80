//! A store in memory that fails on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use signalpost_core::{
    CircuitRecord, DeliveryId, DeliveryState, Destination, DestinationId, Event, EventId, TenantId, Timestamp,
};
use signalpost_store::{
    DispatchStore, HANDOVER_LEASE, StoreError,
    dispatch::{DeliveryWrite, Next, QueueHold, Standing, WriteReport, Written},
    schedule::DueDelivery,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{START, delivery_id, destination_id, standing};

/// What a fake store holds, and how it fails.
#[derive(Debug, Default)]
pub(crate) struct StoreState {
    pub destinations: BTreeMap<DestinationId, Destination>,
    pub standings: BTreeMap<DeliveryId, Standing>,
    pub events: BTreeMap<EventId, Arc<Event>>,
    /// Everything that was written, when.
    pub writes: Vec<(Duration, DeliveryWrite)>,
    pub disabled: Vec<DestinationId>,
    /// Everything fails.
    pub is_away: bool,
    /// Nothing about queues and circuits is taken.
    pub holds_fail: bool,
    /// Attempts of these are refused as data.
    pub refused: BTreeSet<DeliveryId>,
    /// The next write panics.
    pub panics: bool,
    /// Writes are done, but the answer is lost, so many times.
    pub answers_lost: usize,
    /// What a delivery's end hands over, where the writer asks for it.
    pub followers: BTreeMap<DeliveryId, DueDelivery>,
    /// The claim of each delivery that is claimed at most once.
    pub claims: BTreeMap<DeliveryId, u64>,
    /// A write with a claim in it takes so long.
    pub claims_take: Duration,
    /// Heartbeats and farewells, when and whose.
    pub heartbeats: Vec<(Duration, u64)>,
    pub farewells: Vec<u64>,
    /// Leases that were taken over.
    pub taken_over: BTreeSet<(DeliveryId, Timestamp)>,
    /// How long that takes.
    pub taking_over: Duration,
    /// How many dispatchers there are besides this one.
    pub others: u32,
    pub holds: Vec<(Duration, QueueHold)>,
    pub circuits: Vec<(DestinationId, CircuitRecord)>,
    pub event_reads: usize,
    /// A read of events takes so long, and then panics where told.
    pub event_read_takes: Duration,
    pub event_read_panics: bool,
}

/// A store in memory.
#[derive(Debug)]
pub(crate) struct FakeStore {
    state: Mutex<StoreState>,
    start: Instant,
    changes: watch::Sender<u64>,
}

impl FakeStore {
    pub(crate) fn new(destinations: impl IntoIterator<Item = Destination>) -> Arc<Self> {
        let destinations = destinations.into_iter().map(|destination| (destination.id, destination)).collect();
        Arc::new(Self {
            state: Mutex::new(StoreState { destinations, ..StoreState::default() }),
            start: Instant::now(),
            changes: watch::Sender::new(0),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn changes(&self) -> signalpost_store::Changes {
        self.changes.subscribe()
    }

    /// Changes a destination, as a store does: with its version, and told before it returns.
    pub(crate) fn change(&self, number: u8, change: impl FnOnce(&mut Destination)) {
        let mut state = self.state();
        let destination = state.destinations.get_mut(&destination_id(number)).unwrap();
        change(destination);
        destination.version += 1;
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    /// What was written about a delivery.
    pub(crate) fn of(&self, delivery: u32) -> Vec<DeliveryWrite> {
        let id = delivery_id(delivery);
        self.state().writes.iter().map(|(_, write)| write.clone()).filter(|w| w.target().delivery_id == id).collect()
    }

    fn check(&self) -> Result<MutexGuard<'_, StoreState>, StoreError> {
        let state = self.state();
        if state.is_away { Err(StoreError::Unavailable("away".into())) } else { Ok(state) }
    }
}

impl StoreState {
    fn apply(&mut self, write: &DeliveryWrite) -> Written {
        let id = write.target().delivery_id;
        let standing = self.standings.entry(id).or_insert_with(|| standing(DeliveryState::Queued, 0));
        if standing.state.is_final() {
            return Written::Superseded;
        }
        match write {
            DeliveryWrite::Attempt { attempt, next, .. } => {
                // A repeated batch changes nothing.
                if attempt.number <= standing.attempts {
                    return Written::Superseded;
                }
                standing.attempts = attempt.number;
                standing.state = match next {
                    Next::Delivered => DeliveryState::Delivered,
                    Next::Retry { .. } => DeliveryState::Waiting,
                    Next::Dead { .. } => DeliveryState::Dead,
                };
            }
            DeliveryWrite::Claim { claim, .. } => {
                if standing.attempts > 0 || *self.claims.entry(id).or_insert(*claim) != *claim {
                    return Written::Superseded;
                }
                standing.state = DeliveryState::Waiting;
            }
            DeliveryWrite::Park { claim, .. } => {
                if self.claims.get(&id) != claim.as_ref() {
                    return Written::Superseded;
                }
                self.claims.remove(&id);
                standing.state = DeliveryState::Waiting;
            }
            DeliveryWrite::Detach { .. } => standing.state = DeliveryState::Waiting,
            DeliveryWrite::End { dead, .. } => {
                standing.state = if dead.is_some() { DeliveryState::Dead } else { DeliveryState::Cancelled };
            }
        }
        Written::Done
    }
}

#[async_trait]
impl DispatchStore for FakeStore {
    async fn destinations(&self, ids: &[DestinationId]) -> Result<Vec<Destination>, StoreError> {
        let state = self.check()?;
        Ok(ids.iter().filter_map(|id| state.destinations.get(id).cloned()).collect())
    }

    async fn changed_since(&self, since: Option<Timestamp>) -> Result<(Vec<Destination>, Timestamp), StoreError> {
        let state = self.check()?;
        // The overlap is everything: more than a store gives, never less.
        let changed = since.map(|_| state.destinations.values().cloned().collect());
        Ok((changed.unwrap_or_default(), START + self.start.elapsed()))
    }

    async fn examine(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Standing>>, StoreError> {
        let state = self.check()?;
        Ok(ids.iter().map(|id| state.standings.get(id).copied()).collect())
    }

    async fn events(&self, ids: &[EventId]) -> Result<Vec<Arc<Event>>, StoreError> {
        let takes = self.state().event_read_takes;
        sleep(takes).await;
        let mut state = self.check()?;
        state.event_reads += 1;
        if std::mem::take(&mut state.event_read_panics) {
            drop(state);
            panic!("the store breaks");
        }
        Ok(ids.iter().filter_map(|id| state.events.get(id).cloned()).collect())
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        let has_claim = batch.iter().any(|write| matches!(write, DeliveryWrite::Claim { .. }));
        let takes = if has_claim { self.state().claims_take } else { Duration::ZERO };
        sleep(takes.max(Duration::from_millis(1))).await;
        let mut state = self.check()?;
        if std::mem::take(&mut state.panics) {
            drop(state);
            panic!("the store breaks");
        }
        let is_refused = |write: &DeliveryWrite| matches!(write, DeliveryWrite::Attempt { target, .. } if state.refused.contains(&target.delivery_id));
        if batch.iter().any(is_refused) {
            return Err(StoreError::Data("refused".into()));
        }
        let now = self.start.elapsed();
        let mut report = WriteReport::default();
        for write in batch {
            let written = state.apply(write);
            if written == Written::Done {
                state.writes.push((now, write.clone()));
                let id = write.target().delivery_id;
                let has_ended = state.standings.get(&id).is_some_and(|standing| standing.state.is_final());
                if has_ended && let Some(next) = state.followers.remove(&id) {
                    // Without a hand-over the feed brings it: a test looks at who is left.
                    if hand_over {
                        report.followers.push(next);
                    } else {
                        state.followers.insert(id, next);
                    }
                }
            }
            report.written.push(written);
        }
        if state.answers_lost > 0 {
            state.answers_lost -= 1;
            return Err(StoreError::Unavailable("the answer is lost".into()));
        }
        Ok(report)
    }

    async fn heartbeat(&self, dispatcher: u64) -> Result<u32, StoreError> {
        let mut state = self.check()?;
        let now = self.start.elapsed();
        state.heartbeats.push((now, dispatcher));
        Ok(state.others + 1)
    }

    async fn take_over(&self, leases: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let takes = self.check()?.taking_over;
        sleep(takes).await;
        let mut state = self.check()?;
        let mark = START + self.start.elapsed() + HANDOVER_LEASE;
        Ok(leases.iter().map(|lease| state.taken_over.insert(*lease).then_some(mark)).collect())
    }

    async fn farewell(&self, dispatcher: u64) -> Result<(), StoreError> {
        self.check()?.farewells.push(dispatcher);
        Ok(())
    }

    async fn hold_queues(&self, holds: &[QueueHold]) -> Result<(), StoreError> {
        let mut state = self.check()?;
        if state.holds_fail {
            return Err(StoreError::Unavailable("as the test says".into()));
        }
        let now = self.start.elapsed();
        state.holds.extend(holds.iter().map(|hold| (now, *hold)));
        Ok(())
    }

    async fn record_circuits(&self, records: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError> {
        self.check()?.circuits.extend_from_slice(records);
        Ok(())
    }

    async fn disable_destination(&self, _tenant: TenantId, id: DestinationId, _why: &str) -> Result<(), StoreError> {
        self.check()?.disabled.push(id);
        Ok(())
    }
}
