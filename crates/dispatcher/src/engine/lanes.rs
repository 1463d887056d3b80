//! The next of a lane, handed over by the end of the one before: it takes its place in the queue of its destination like any
//! other, but stands on no partition, and is sent only while its lease lasts.

use std::time::Duration;

use signalpost_store::schedule::DueDelivery;
use signalpost_telemetry::names;

use super::Engine;
use crate::{admission::Incoming, job::Job};

impl Engine {
    pub(super) fn follow(&mut self, followers: Vec<DueDelivery>, lease_end: Duration, now: Duration) {
        for due in followers {
            let job = Job::handed_over(due, lease_end, now);
            if !self.claims.hold(&job) {
                metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "in_hand").increment(1);
                continue;
            }
            let message = &job.message;
            if self.cache.lacks(message.destination_id, message.destination_version) {
                self.pending.push(Incoming { job, reread: false });
            } else {
                self.enqueue(job, &[], now);
            }
        }
    }
}
