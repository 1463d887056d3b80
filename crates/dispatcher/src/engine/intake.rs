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
                    let is_new = self.partitions.add(place);
                    if is_new && self.claims.hold(&message, place) {
                        batch.push(Incoming { job: Job { place, message, since: now }, reread });
                    } else if is_new {
                        metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "in_hand").increment(1);
                        self.partitions.done(place);
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
        for job in self.queues.take_partitions(&partitions, now) {
            self.abandon(&job);
        }
        self.partitions.revoke(partitions, now + REVOCATION);
    }

    /// Leaves a job to the next owner of its partition.
    pub(super) fn abandon(&mut self, job: &Job) {
        self.partitions.abandon(job.place);
        self.claims.release(job);
    }

    fn begin_admission(&mut self, batch: Vec<Incoming>) {
        if batch.is_empty() {
            return;
        }
        let mut lacking: Vec<_> = batch
            .iter()
            .map(|incoming| &incoming.job.message)
            .filter(|message| self.cache.lacks(message.destination_id, message.destination_version))
            .map(|message| message.destination_id)
            .collect();
        lacking.sort_unstable();
        lacking.dedup();
        let admission = Admission {
            store: Arc::clone(&self.context.store),
            limits: Arc::clone(&self.limits),
            owner: self.owner,
            suspect_after: self.settings.suspect_after,
        };
        self.admission = Some(Box::pin(admission.admit(batch, lacking, self.clock.now())));
    }

    pub(super) fn admitted(&mut self, admitted: Admitted, now: Duration) {
        self.admission = None;
        let wanted: BTreeSet<_> = admitted.ready.iter().map(|job| job.message.destination_id).collect();
        for destination in admitted.loaded {
            self.cache.put(destination, |id| wanted.contains(&id) || self.queues.holds(id));
        }
        for id in &admitted.gone {
            self.cache.remove(*id);
        }
        for job in admitted.dropped {
            self.partitions.done(job.place);
            self.claims.let_go(&job);
        }
        for job in admitted.claimed_by_others {
            if self.partitions.is_ours(job.place) {
                metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "claimed").increment(1);
                self.park(job, WaitReason::Turn, CLAIM_LEASE, false);
            } else {
                self.abandon(&job);
            }
        }
        for job in admitted.ready {
            if self.partitions.is_ours(job.place) {
                self.enqueue(job, &admitted.gone, now);
            } else {
                self.abandon(&job);
            }
        }
    }

    /// `gone`: the destinations of the batch that the store does not know any more.
    fn enqueue(&mut self, mut job: Job, gone: &[DestinationId], now: Duration) {
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
        let parked = self.queues.push(job, &destination.spec, now);
        self.park_all(parked.into_iter().collect());
    }
}
