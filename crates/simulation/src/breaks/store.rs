//! A store that lies.

use std::sync::{Arc, Mutex, PoisonError};

use signalpost_core::{DestinationId, Timestamp};
use signalpost_store::{
    Store, StoreError,
    dispatch::{DeliveryWrite, WriteReport, Written},
    ingest::{EventOutcome, IngestGroup, IngestUnit, UnitOutcome},
    layers::StoreLayer,
    schedule::{Due, FeedBudget},
};

use super::Lie;
use crate::{gates::copied, seed::Rng, world::World};

/// The part of calls that are lied about: a store that always lies is found at once.
const SOMETIMES: f64 = 0.1;

#[derive(Debug)]
pub(super) struct LyingStore {
    lie: Lie,
    world: Arc<World>,
    inner: Arc<dyn Store>,
    rng: Mutex<Rng>,
}

impl LyingStore {
    pub(super) fn new(lie: Lie, world: &Arc<World>, inner: Arc<dyn Store>) -> Self {
        Self { lie, inner, rng: Mutex::new(Rng::of(world.seed, "lies")), world: Arc::clone(world) }
    }

    /// Whether this lie is told now.
    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie && self.rng.lock().unwrap_or_else(PoisonError::into_inner).chance(SOMETIMES)
    }

    /// What of a write is not told to the store, and what is answered instead.
    fn kept_back(&self, write: &DeliveryWrite) -> Option<Written> {
        let (lie, answer) = match write {
            DeliveryWrite::Attempt { .. } if self.lie == Lie::RefusesAnAttempt => {
                (Lie::RefusesAnAttempt, Written::Superseded)
            }
            DeliveryWrite::Attempt { .. } => (Lie::WritesNoAttempt, Written::Done),
            DeliveryWrite::Park { .. } => (Lie::ForgetsWhatIsParked, Written::Done),
            DeliveryWrite::Detach { .. } => (Lie::ForgetsWhatIsDetached, Written::Done),
            DeliveryWrite::Claim { .. } => (Lie::ForgetsAClaim, Written::Done),
            DeliveryWrite::End { .. } => return None,
        };
        // A claim matters only where something else goes wrong as well.
        (self.lies(lie) || lie == self.lie && lie == Lie::ForgetsAClaim).then_some(answer)
    }

    /// The destination that is starved: the one that everybody takes to be healthy.
    fn starved(&self) -> Option<DestinationId> {
        let reference = |world: &World| {
            world.ask(|checker| checker.destinations.iter().find(|(_, of)| of.reference).map(|(id, _)| *id))
        };
        (self.lie == Lie::Starves && self.world.knobs.calm).then(|| reference(&self.world)).flatten()
    }
}

impl StoreLayer for LyingStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        if !group.units.is_empty() && self.lies(Lie::AcknowledgesBeforeCommit) {
            let accepted = |unit: &IngestUnit| UnitOutcome::Committed(vec![EventOutcome::Accepted; unit.events.len()]);
            return Ok(group.units.iter().map(accepted).collect());
        }
        if !group.units.is_empty() && self.lies(Lie::LeavesOutADestination) {
            return self.inner.ingest(&without_one(group)).await;
        }
        self.inner.ingest(group).await
    }

    async fn spilled(&self) -> Result<Vec<DestinationId>, StoreError> {
        let mut spilled = self.inner.spilled().await?;
        spilled.extend(self.starved());
        Ok(spilled)
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        let answers: Vec<Option<Written>> = batch.iter().map(|write| self.kept_back(write)).collect();
        let told: Vec<DeliveryWrite> =
            batch.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(write, _)| write.clone()).collect();
        let mut report = self.inner.write(&told, hand_over).await?;
        let mut written = report.written.into_iter();
        report.written = answers.into_iter().filter_map(|answer| answer.or_else(|| written.next())).collect();
        if self.lies(Lie::HandsOutTwoHeads) {
            self.world.inspector().promote_a_follower()?;
        }
        if self.lies(Lie::DropsAFollower) {
            self.world.inspector().drop_a_head()?;
        }
        Ok(report)
    }

    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError> {
        let mut due = self.inner.take_due(budget).await?;
        if let Some(starved) = self.starved() {
            due.deliveries.retain(|delivery| delivery.destination_id != starved);
        }
        Ok(due)
    }

    async fn requeue_lost(&self, until: Timestamp, most: usize) -> Result<(usize, bool), StoreError> {
        if self.lie == Lie::NeverReconciles {
            return Ok((0, true));
        }
        self.inner.requeue_lost(until, most).await
    }
}

/// The group without the last delivery of its first event.
fn without_one(group: &IngestGroup) -> IngestGroup {
    let mut group = copied(group);
    if let Some(event) = group.units.first_mut().and_then(|unit| unit.events.first_mut()) {
        event.deliveries.pop();
    }
    group
}
