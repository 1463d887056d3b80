//! What tasks tell.

use std::time::Duration;

use signalpost_core::{DestinationId, WaitReason, classify::MAX_RETRY_AFTER};

use super::{AFTER_BREAKAGE, Engine};
use crate::job::{Ending, Job, Signal};

impl Engine {
    pub(super) fn signal(&mut self, signal: Signal, now: Duration) {
        match signal {
            Signal::Ended { destination_id, is_probe, ending } => self.ended(destination_id, is_probe, &ending, now),
            Signal::Detached(place) => self.partitions.done(place),
            Signal::Settled(job) | Signal::Dropped(job) => self.settled(&job),
            Signal::Broken(job) => {
                tracing::error!(delivery.id = %job.message.delivery_id, "the task of a delivery broke");
                if job.is_claimed {
                    // Its request may have gone out, so it is not for us to say what becomes of it.
                    self.settled(&job);
                } else {
                    self.park(job, WaitReason::Turn, AFTER_BREAKAGE, false);
                }
            }
            Signal::Followers(followers, lease_end) => self.follow(followers, lease_end, now),
            Signal::ClaimsReleased => self.claims.is_released(),
        }
    }

    /// A request ended.
    pub(super) fn ended(&mut self, id: DestinationId, is_probe: bool, ending: &Ending, now: Duration) {
        let destination = self.cache.get(id);
        let grace = self.settings.detach_grace;
        self.circuits.ended(id, destination.as_deref(), &ending.health, is_probe, grace, now);
        if let Some(pause) = ending.slow_for {
            let (is_news, parked) = self.queues.slow_down(id, pause, now);
            self.park_all(parked);
            if is_news {
                // So that no dispatcher is fed with what waits in the store.
                self.tellings.hold(id, pause.min(MAX_RETRY_AFTER), self.circuits.trial(id), now);
            }
        }
        self.queues.ended(id, now);
    }

    /// It is out of our hands.
    pub(super) fn settled(&mut self, job: &Job) {
        if let Some(place) = job.place {
            self.partitions.done(place);
        }
        self.claims.release(job);
    }
}
