//! What is in hand: which deliveries, under which claims.
//!
//! Two uses, both economy. A message for a delivery that is in hand already is a duplicate (a relay or a bus that
//! repeats) and is dropped here, where the claim would not tell: it is ours. And claims are renewed while their delivery
//! is in hand, and given back in batches after what came of it is written.

use std::collections::BTreeMap;

use signalpost_bus::{Origin, Place};
use signalpost_core::DeliveryId;
use signalpost_limits::Claim;

use crate::job::Job;

/// Which message of a delivery: its attempt, where it stood, and its lease.
type Held = (u32, Option<Place>, Origin);

fn held(job: &Job) -> Held {
    (job.message.attempt, job.place, job.message.origin)
}

/// All deliveries in hand.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: BTreeMap<DeliveryId, Held>,
    released: Vec<Claim>,
    /// A batch is being given back.
    is_releasing: bool,
}

impl Claims {
    /// Takes a delivery in hand. False: this attempt of it, or a later one, is in hand already.
    pub(crate) fn hold(&mut self, job: &Job) -> bool {
        let message = &job.message;
        if self.held.get(&message.delivery_id).is_some_and(|(attempt, ..)| *attempt >= message.attempt) {
            return false;
        }
        self.held.insert(message.delivery_id, held(job));
        true
    }

    /// It is on its way back to the store, from where it may come again at any moment; its claim stays.
    pub(crate) fn let_go(&mut self, job: &Job) {
        let id = job.message.delivery_id;
        if self.held.get(&id) == Some(&held(job)) {
            self.held.remove(&id);
        }
    }

    /// It is out of hand, and its claim is not needed any more.
    pub(crate) fn release(&mut self, job: &Job) {
        self.let_go(job);
        self.released.push(job.claim());
    }

    /// How many deliveries are in hand.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// What must be renewed.
    pub(crate) fn all(&self) -> Vec<Claim> {
        self.held
            .iter()
            .map(|(delivery_id, (attempt, ..))| Claim { delivery_id: *delivery_id, attempt: *attempt })
            .collect()
    }

    /// Everything, at the end.
    pub(crate) fn into_all(self) -> Vec<Claim> {
        let mut all = self.all();
        all.extend(self.released);
        all
    }

    /// The next batch to give back; None while the one before is under way.
    pub(crate) fn next_release(&mut self) -> Option<Vec<Claim>> {
        if self.is_releasing || self.released.is_empty() {
            return None;
        }
        self.is_releasing = true;
        Some(std::mem::take(&mut self.released))
    }

    /// The batch before was given back.
    pub(crate) const fn is_released(&mut self) {
        self.is_releasing = false;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::fakes::message;

    fn job(attempt: u32, offset: i64) -> Job {
        let mut message = message(1, 1);
        message.attempt = attempt;
        Job::new(Some(Place { partition: 0, epoch: 1, offset }), Arc::new(message), Duration::ZERO)
    }

    #[test]
    fn the_same_attempt_is_held_once() {
        let mut claims = Claims::default();
        let (first, again, next) = (job(1, 0), job(1, 1), job(2, 2));
        assert!(claims.hold(&first));
        assert!(!claims.hold(&again));
        assert!(claims.hold(&next), "the next attempt may come before the end of this one is told");
        claims.release(&first);
        assert_eq!(claims.len(), 1);
        claims.release(&next);
        assert_eq!(claims.len(), 0);
        assert_eq!(claims.next_release(), Some(vec![first.claim(), next.claim()]));
        assert_eq!(claims.next_release(), None);
    }

    #[test]
    fn what_goes_back_may_come_again_at_once() {
        let mut claims = Claims::default();
        let (first, again) = (job(1, 0), job(1, 1));
        claims.hold(&first);
        claims.let_go(&first);
        assert!(claims.hold(&again));
        claims.release(&first);
        assert_eq!(claims.all(), [again.claim()], "the end of the first does not let go of the second");
    }
}
