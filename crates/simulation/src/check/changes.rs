//! Checks of what the store changed.

use std::collections::{BTreeMap, BTreeSet};

use signalpost_core::{AttemptOutcome, DeliveryId, DeliveryState, DestinationId, Timestamp};
use signalpost_store::dispatch::{DeliveryWrite, Written};
use signalpost_store_sqlite::simulation::Change;
use tokio::time::Instant;

use super::{Checker, Invariant, Known, Violation, lanes::Joined};

impl Checker {
    /// Takes over what one call changed.
    ///
    /// # Errors
    /// A transition that is not in the state machine, an attempt out of turn, a lane out of order.
    pub fn changed(&mut self, changes: &[Change], now: Instant) -> Result<(), Violation> {
        let mut touched = BTreeMap::new();
        let mut joined = Vec::new();
        for change in changes {
            match change {
                Change::Event { event, uid } => {
                    // Born before it in the same transaction, or after: both are fine.
                    self.events.entry(*event).or_default();
                    if let Some(uid) = uid {
                        self.uid_of.insert(*event, uid.clone());
                    }
                    if let Some(first) = uid.as_ref().and_then(|uid| self.uids.insert(uid.clone(), *event))
                        && first != *event
                    {
                        let text = format!("{event} has the uid of {first}: one event was accepted twice");
                        return Violation::of(Invariant::Durable, text);
                    }
                }
                Change::Born { .. } => joined.extend(self.born(change, now)?),
                Change::Moved { delivery, from, to, reason } => {
                    self.moved(*delivery, *from, *to)?;
                    self.judged(*delivery, *reason);
                    touched.insert(*delivery, to.1);
                }
                Change::Gone { delivery } => {
                    return Violation::of(Invariant::NeverForgotten, format!("{delivery} is gone"));
                }
                Change::Attempt { delivery, number, outcome, before } => {
                    self.attempted(*delivery, *number, *outcome, *before)?;
                }
                Change::AttemptGone { delivery, number } => {
                    return Violation::of(Invariant::Accounted, format!("attempt {number} of {delivery} is gone"));
                }
            }
        }
        self.in_order(&joined)?;
        for (delivery, counted) in touched {
            let recorded = self.deliveries.get(&delivery).map_or(0, |known| known.attempts.len());
            if recorded != counted as usize {
                let text = format!("{delivery} counts {counted} attempts, {recorded} are recorded");
                return Violation::of(Invariant::Accounted, text);
            }
        }
        Ok(())
    }

    fn born(&mut self, change: &Change, now: Instant) -> Result<Option<Joined>, Violation> {
        let Change::Born { delivery, event, destination, state, replay_of, lane, at_most_once } = change else {
            return Ok(None);
        };
        if state.is_final() {
            return Violation::of(Invariant::NeverForgotten, format!("{delivery} is born {state:?}"));
        }
        self.events.entry(*event).or_default().insert(*destination);
        if self.destinations.get(destination).is_some_and(|expected| expected.reference) {
            self.unsent.insert(*delivery, now);
        }
        let known = Known {
            event: *event,
            destination: *destination,
            state: *state,
            attempts: BTreeMap::new(),
            lane: *lane,
            lease: None,
            at_most_once: *at_most_once,
            requests: 0,
        };
        self.deliveries.insert(*delivery, known);
        let joined = lane.map(|(lane, place)| Joined {
            lane: (*destination, lane),
            place,
            delivery: *delivery,
            event: *event,
            replay_of: *replay_of,
        });
        if let Some(joined) = &joined {
            self.joins(joined)?;
        }
        Ok(joined)
    }

    fn moved(
        &mut self,
        delivery: DeliveryId,
        from: (DeliveryState, u32),
        to: (DeliveryState, u32),
    ) -> Result<(), Violation> {
        let Some(known) = self.deliveries.get_mut(&delivery) else {
            return Violation::of(Invariant::Sound, format!("{delivery} moves, and was never born"));
        };
        if from.0 != to.0 && !from.0.may_become(to.0) {
            let text = format!("{delivery} goes from {:?} to {:?}", from.0, to.0);
            return Violation::of(Invariant::NeverForgotten, text);
        }
        if from.0.is_final() && from.1 != to.1 {
            return Violation::of(Invariant::Accounted, format!("{delivery} has ended, and counts another attempt"));
        }
        if to.1 < from.1 || to.1 > from.1 + 1 {
            let text = format!("{delivery} counted {} attempts, and now {}", from.1, to.1);
            return Violation::of(Invariant::Accounted, text);
        }
        known.state = to.0;
        if to.0.is_final() {
            self.unsent.remove(&delivery);
            self.leaves(delivery, to.0);
        }
        Ok(())
    }

    fn attempted(
        &mut self,
        delivery: DeliveryId,
        number: u32,
        outcome: AttemptOutcome,
        before: Option<AttemptOutcome>,
    ) -> Result<(), Violation> {
        let Some(known) = self.deliveries.get_mut(&delivery) else {
            return Violation::of(
                Invariant::Accounted,
                format!("attempt {number} of {delivery}, which was never born"),
            );
        };
        let last = known.attempts.keys().next_back().copied().unwrap_or(0);
        let fits = match before {
            None => number == last + 1,
            Some(before) => before == AttemptOutcome::Interrupted && number == last,
        };
        if !fits {
            let text = format!("attempt {number} ({outcome}, was {before:?}) of {delivery} follows attempt {last}");
            return Violation::of(Invariant::Accounted, text);
        }
        known.attempts.insert(number, outcome);
        Ok(())
    }

    /// The bus, or a dispatcher, has a delivery under the lease with that mark.
    pub fn leased(&mut self, delivery: DeliveryId, mark: Timestamp) {
        if let Some(known) = self.deliveries.get_mut(&delivery) {
            known.lease = Some(mark);
        }
    }

    /// What the store says it wrote, it wrote; and it refuses no attempt that is the next one.
    ///
    /// # Errors
    /// I2, I3: it did not, or does.
    pub fn written(&mut self, batch: &[DeliveryWrite], written: &[Written]) -> Result<(), Violation> {
        for (write, _) in batch.iter().zip(written).filter(|(_, written)| **written == Written::Superseded) {
            let delivery = write.target().delivery_id;
            let DeliveryWrite::Attempt { attempt, .. } = write else { continue };
            let Some(known) = self.deliveries.get(&delivery) else { continue };
            // In a lane somebody else may be sending it, under a later lease.
            if write.target().lease.is_some_and(|mark| known.lease.is_some_and(|latest| latest > mark)) {
                continue;
            }
            if !known.state.is_final() && known.attempts.len() + 1 == attempt.number as usize {
                let text = format!("attempt {} of {delivery} was refused, and is the next one", attempt.number);
                return Violation::of(Invariant::Accounted, text);
            }
        }
        for (write, _) in batch.iter().zip(written).filter(|(_, written)| **written == Written::Done) {
            let delivery = write.target().delivery_id;
            let Some(known) = self.deliveries.get(&delivery) else { continue };
            match write {
                DeliveryWrite::Attempt { attempt, .. }
                    if known.attempts.get(&attempt.number) != Some(&attempt.outcome) =>
                {
                    let text = format!("attempt {} of {delivery} was written, and is not there", attempt.number);
                    return Violation::of(Invariant::Accounted, text);
                }
                DeliveryWrite::End { .. } if !known.state.is_final() => {
                    return Violation::of(
                        Invariant::NeverForgotten,
                        format!("{delivery} was ended, and has not ended"),
                    );
                }
                // What ends later in the same batch was waiting in between.
                DeliveryWrite::Detach { .. } | DeliveryWrite::Park { .. } if known.state == DeliveryState::Queued => {
                    let text = format!("{delivery} was put back, and nothing brings it back");
                    return Violation::of(Invariant::NeverForgotten, text);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The destinations that an event has deliveries to.
    pub fn destinations_of(&self, event: signalpost_core::EventId) -> BTreeSet<DestinationId> {
        self.events.get(&event).cloned().unwrap_or_default()
    }
}
