//! From the bus into the queues.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signalpost_bus::{BusError, Delivered, Partition, Place};
use signalpost_core::{DeadReason, DestinationId, DestinationState, WaitReason};
use signalpost_limits::CLAIM_LEASE;
use signalpost_store::dispatch::DeliveryWrite;
use signalpost_telemetry::names;
use tokio::time::{Instant, timeout_at};

use super::Engine;
use crate::{
    DispatcherError,
    admission::{Admission, Admitted, Incoming},
    job::Job,
};

/// How long a revoked partition is kept at most: after 5 s it goes anyway.
const REVOCATION: Duration = Duration::from_secs(4);
/// How long the bus may take to set aside what cannot be decoded of one batch.
const SET_ASIDE: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) async fn received(
        &mut self,
        received: Result<Vec<Delivered>, BusError>,
        now: Duration,
    ) -> Result<(), DispatcherError> {
        let received = match received {
            Ok(received) => received,
            Err(BusError::Closed) => return Err(BusError::Closed.into()),
            Err(error) => {
                let pause = self.receive_backoff.next();
                tracing::warn!(error = %error, "nothing received; trying again");
                self.receive_at = now + pause;
                return Ok(());
            }
        };
        self.receive_backoff = crate::backoff::Backoff::new();
        let mut batch = Vec::with_capacity(received.len());
        // For all of the batch: however many there are, nothing else waits for longer.
        let set_aside_until = Instant::now() + SET_ASIDE;
        for item in received {
            match item {
                Delivered::Message { place, message, reread } => {
                    if self.partitions.add(place) {
                        let incoming = Incoming { job: Job::new(Some(place), message, now), reread };
                        batch.extend(self.take(incoming));
                    }
                }
                Delivered::Undecodable { place, delivery_id, error } => {
                    metrics::counter!(names::UNREADABLE).increment(1);
                    let delivery_id = delivery_id.map(|id| id.to_string());
                    tracing::error!(delivery.id = delivery_id, error, "a message cannot be decoded");
                    self.set_aside(place, set_aside_until).await;
                }
                Delivered::Revoked(partitions) => self.revoked(partitions, now),
            }
        }
        self.begin_admission(batch);
        Ok(())
    }

    /// Takes a delivery in hand; not where it is in hand already. One that is only being looked at may turn out to be old:
    /// then this one takes its place.
    fn take(&mut self, incoming: Incoming) -> Option<Incoming> {
        let id = incoming.job.message.delivery_id;
        if self.claims.hold(&incoming.job) {
            self.admitting.insert(id);
            return Some(incoming);
        }
        let over = if self.admitting.contains(&id) { self.aside.insert(id, incoming) } else { Some(incoming) };
        if let Some(place) = over.and_then(|over| over.job.place) {
            metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "in_hand").increment(1);
            self.partitions.done(place);
        }
        None
    }

    /// Keeps an undecodable message where a person finds it. Its delivery is found by the reconciler: to the store it is
    /// `queued` although the bus has moved past it.
    async fn set_aside(&mut self, place: Place, until: Instant) {
        self.partitions.add(place);
        match timeout_at(until, self.consumer.set_aside(place)).await {
            Ok(Ok(())) => {}
            // Nothing behind it waits: it is in the log, and the delivery is not lost.
            Ok(Err(error)) => tracing::error!(error = %error, "an undecodable message was not set aside"),
            Err(_) => tracing::error!("an undecodable message was not set aside: the bus takes too long"),
        }
        self.partitions.done(place);
    }

    fn revoked(&mut self, partitions: Vec<Partition>, now: Duration) {
        tracing::info!(partitions = ?partitions, "partitions revoked");
        // What is aside is left to the next owner like the rest; what it waits behind is seen to where it is admitted.
        for job in self.queues.take_partitions(&partitions, now) {
            self.abandon(&job);
        }
        self.partitions.revoke(partitions, now + REVOCATION);
    }

    /// Leaves a job to the next owner of its partition.
    pub(super) fn abandon(&mut self, job: &Job) {
        if let Some(place) = job.place {
            self.partitions.abandon(place);
        }
        self.claims.release(job);
    }

    /// Looks at a batch, and at what waits to be looked at.
    pub(super) fn begin_admission(&mut self, mut batch: Vec<Incoming>) {
        if self.admission.is_some() {
            return self.pending.append(&mut batch);
        }
        if !self.pending.is_empty() {
            batch.splice(..0, self.pending.drain(..));
        }
        if batch.is_empty() {
            return;
        }
        let mut lacking: Vec<_> = batch
            .iter()
            .filter(|incoming| {
                let message = &incoming.job.message;
                // What was read before by somebody else tells that we may not know yet what that one saw of its circuit.
                incoming.reread || self.cache.lacks(message.destination_id, message.destination_version)
            })
            .map(|incoming| incoming.job.message.destination_id)
            .collect();
        lacking.sort_unstable();
        lacking.dedup();
        let admission = Admission {
            store: Arc::clone(&self.context.store),
            limits: Arc::clone(&self.limits),
            owner: self.owner,
            clock: Arc::clone(&self.clock),
            suspect_after: self.settings.suspect_after,
        };
        self.admission = Some(Box::pin(admission.admit(batch, lacking, self.clock.now())));
    }

    pub(super) fn admitted(&mut self, admitted: Admitted, now: Duration) {
        self.admission = None;
        let wanted: BTreeSet<_> = admitted.ready.iter().map(|job| job.message.destination_id).collect();
        let aside = std::mem::take(&mut self.aside);
        self.admitting.clear();
        for destination in admitted.loaded {
            if let Some(gate) = self.circuits.loaded(&destination, self.settings.detach_grace, now) {
                self.queues.set_gate(destination.id, Some(gate));
            }
            self.cache.put(destination, |id| wanted.contains(&id) || self.queues.holds(id));
        }
        for id in &admitted.gone {
            self.cache.remove(*id);
            self.forget_circuit(*id);
        }
        for job in admitted.dropped {
            if let Some(place) = job.place {
                self.partitions.done(place);
            }
            self.claims.let_go(&job);
        }
        for job in admitted.claimed_by_others {
            if self.is_ours(&job) {
                metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "claimed").increment(1);
                self.park(job, WaitReason::Turn, CLAIM_LEASE, false);
            } else {
                self.abandon(&job);
            }
        }
        for job in admitted.ready {
            if self.is_ours(&job) {
                self.enqueue(job, &admitted.gone, now);
            } else {
                self.abandon(&job);
            }
        }
        // What is still in hand stays; the others get their look.
        let again: Vec<_> = aside.into_values().filter_map(|incoming| self.take(incoming)).collect();
        self.pending.extend(again);
    }

    /// Whether the partition that it came from is still ours.
    fn is_ours(&mut self, job: &Job) -> bool {
        job.place.is_none_or(|place| self.partitions.is_ours(place))
    }

    /// `gone`: the destinations of the batch that the store does not know any more.
    pub(super) fn enqueue(&mut self, mut job: Job, gone: &[DestinationId], now: Duration) {
        // What the store took to answer is not the destination's fault.
        job.since = now;
        let id = job.message.destination_id;
        let Some(destination) = self.cache.get(id) else {
            // One that only fell out of the cache while the batch was looked at is as alive as before.
            return match gone.contains(&id) {
                true => self.turn_away(job, DestinationState::Deleted),
                false => self.park(job, WaitReason::Turn, Duration::ZERO, false),
            };
        };
        if destination.state != DestinationState::Active {
            return self.turn_away(job, destination.state);
        }
        if self.clock.now().since(job.message.born_at()) > self.settings.max_age {
            let write = DeliveryWrite::End { target: job.target(), dead: Some(DeadReason::Expired) };
            return self.put_back(job, write);
        }
        if self.queues.gate(id).is_some() {
            self.circuits.look(id, now);
        }
        let parked = self.queues.push(job, &destination.spec, now);
        self.park_all(parked.into_iter().collect());
    }
}
