//! What happens to a received batch before it may be sent: destinations are loaded, suspects examined, attempts claimed.
//! One read or round trip each for the whole batch, and none where there is nothing to ask.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signalpost_bus::{Message, Origin};
use signalpost_core::{Clock, DeliveryState, Destination, DestinationId, Timestamp};
use signalpost_limits::{Claimed, Limits, Owner};
use signalpost_store::{DispatchStore, HANDOVER_LEASE, StoreError, dispatch::Standing};
use signalpost_telemetry::names;

use crate::{backoff::Backoff, job::Job};

/// A message as it came from the bus.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub job: Job,
    /// Lay in its partition before it was assigned to us.
    pub reread: bool,
}

/// A batch that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// May be sent.
    pub ready: Vec<Job>,
    /// Another process has claimed the attempt.
    pub claimed_by_others: Vec<Job>,
    /// Duplicates: nothing is to be done, nothing is lost.
    pub dropped: Vec<Job>,
    /// Destinations as the store knows them now.
    pub loaded: Vec<Destination>,
    /// Destinations that the store does not know any more.
    pub gone: Vec<DestinationId>,
}

/// What is asked with.
#[derive(Clone)]
pub(crate) struct Admission {
    pub store: Arc<dyn DispatchStore>,
    pub limits: Arc<dyn Limits>,
    pub owner: Owner,
    pub clock: Arc<dyn Clock>,
    pub suspect_after: Duration,
}

impl Admission {
    /// Looks at a batch; `lacking` are the destinations that must be loaded for it. Repeats what fails until it succeeds;
    /// dropping it at any point leaves nothing behind but claims that expire.
    pub(crate) async fn admit(self, batch: Vec<Incoming>, lacking: Vec<DestinationId>, now: Timestamp) -> Admitted {
        let mut admitted = Admitted::default();
        if !lacking.is_empty() {
            self.load(lacking, &mut admitted).await;
        }
        let passed = self.examine(batch, now, &mut admitted).await;
        self.claim(passed, &mut admitted).await;
        self.take_over(&mut admitted).await;
        admitted
    }

    async fn load(&self, lacking: Vec<DestinationId>, admitted: &mut Admitted) {
        let mut backoff = Backoff::new();
        loop {
            match self.store.destinations(&lacking).await {
                Ok(loaded) => {
                    let found: BTreeSet<_> = loaded.iter().map(|destination| destination.id).collect();
                    admitted.gone = lacking.into_iter().filter(|id| !found.contains(id)).collect();
                    admitted.loaded = loaded;
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "destinations not loaded; trying again");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Asks the store until it answers for each. Returns when it was asked, too, by the process's clock.
    async fn ask<T, F>(&self, count: usize, about: &str, question: impl Fn() -> F) -> (Duration, Vec<T>)
    where
        F: Future<Output = Result<Vec<T>, StoreError>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let asked_at = self.clock.elapsed();
            match question().await {
                Ok(answers) if answers.len() == count => return (asked_at, answers),
                Ok(_) => tracing::error!(about, "as many answers as questions were expected"),
                Err(error) => tracing::warn!(error = %error, about, "not answered by the store; trying again"),
            }
            backoff.wait().await;
        }
    }

    async fn examine(&self, batch: Vec<Incoming>, now: Timestamp, admitted: &mut Admitted) -> Vec<Job> {
        // One that was handed over has just been examined, in a way: the store leased it to us with its own write.
        let is_suspect = |incoming: &Incoming| {
            let message = &incoming.job.message;
            let is_handed_over = incoming.job.place.is_none();
            if is_handed_over {
                return false;
            }
            incoming.reread
                || message.lane.is_some()
                || message.origin != Origin::Fresh
                || now.since(message.delivery_id.created_at()) > self.suspect_after
        };
        let ids: Vec<_> =
            batch.iter().filter(|incoming| is_suspect(incoming)).map(|i| i.job.message.delivery_id).collect();
        if ids.is_empty() {
            return batch.into_iter().map(|incoming| incoming.job).collect();
        }
        let (asked_at, standings) = self.ask(ids.len(), "standings", || self.store.examine(&ids)).await;
        let mut standings = standings.into_iter();
        let mut passed = Vec::with_capacity(batch.len());
        for mut incoming in batch {
            if is_suspect(&incoming) {
                let standing = standings.next().flatten();
                if let Err(reason) = judge(&incoming.job.message, standing) {
                    metrics::counter!(names::SUSPECTS_DROPPED, "reason" => reason).increment(1);
                    tracing::debug!(delivery.id = %incoming.job.message.delivery_id, reason, "suspect dropped");
                    admitted.dropped.push(incoming.job);
                    continue;
                }
                if incoming.job.message.lane.is_some() {
                    // Counted from before the question, so that it ends here no later than in the store.
                    let left = standing.and_then(|standing| standing.lease_left).unwrap_or_default();
                    incoming.job.lease_end = Some(asked_at + left);
                }
            }
            passed.push(incoming.job);
        }
        passed
    }

    /// Several dispatchers may have the message of a delivery of a lane, and claims are no more than economy: the store says
    /// whose it is, and for how long.
    async fn take_over(&self, admitted: &mut Admitted) {
        let lease = |job: &Job| match job.message.origin {
            Origin::Feed { leased_until } if job.message.lane.is_some() && job.place.is_some() => {
                Some((job.message.delivery_id, leased_until))
            }
            _ => None,
        };
        let leases: Vec<_> = admitted.ready.iter().filter_map(lease).collect();
        if leases.is_empty() {
            return;
        }
        let (asked_at, answers) = self.ask(leases.len(), "leases", || self.store.take_over(&leases)).await;
        let mut answers = answers.into_iter();
        for mut job in std::mem::take(&mut admitted.ready) {
            if lease(&job).is_none() {
                admitted.ready.push(job);
            } else if let Some(mark) = answers.next().flatten() {
                job.lease_end = Some(asked_at + HANDOVER_LEASE);
                job.lease = Some(mark);
                admitted.ready.push(job);
            } else {
                metrics::counter!(names::SUSPECTS_DROPPED, "reason" => "taken_over").increment(1);
                admitted.dropped.push(job);
            }
        }
    }

    async fn claim(&self, passed: Vec<Job>, admitted: &mut Admitted) {
        // What was handed over is leased to us by the store itself.
        let (handed_over, passed): (Vec<_>, Vec<_>) = passed.into_iter().partition(|job| job.place.is_none());
        admitted.ready = handed_over;
        if passed.is_empty() {
            return;
        }
        let claims: Vec<_> = passed.iter().map(Job::claim).collect();
        match self.limits.claim(self.owner, &claims).await {
            Ok(answers) if answers.len() == claims.len() => {
                for (job, answer) in passed.into_iter().zip(answers) {
                    match answer {
                        Claimed::Ours => admitted.ready.push(job),
                        Claimed::Others => admitted.claimed_by_others.push(job),
                    }
                }
            }
            // Claims are economy: without them deliveries go on.
            Ok(_) => admitted.ready.extend(passed),
            Err(error) => {
                metrics::counter!(names::LIMITS_UNAVAILABLE).increment(1);
                tracing::debug!(error = %error, "attempts not claimed; going on without");
                admitted.ready.extend(passed);
            }
        }
    }
}

/// Whether a suspect is still to be sent; the reason why not.
pub(crate) fn judge(message: &Message, standing: Option<Standing>) -> Result<(), &'static str> {
    let standing = standing.ok_or("unknown")?;
    if standing.state.is_final() {
        return Err("ended");
    }
    if standing.attempts.checked_add(1) != Some(message.attempt) {
        return Err("other_attempt");
    }
    if message.lane.is_some() && standing.lease_left.is_none() {
        return Err("lease");
    }
    match message.origin {
        Origin::Fresh if standing.state == DeliveryState::Queued => Ok(()),
        Origin::Fresh => Err("anchored"),
        Origin::Feed { leased_until } => {
            let same = standing.waiting.is_some_and(|(due, _)| due == leased_until);
            if standing.state == DeliveryState::Waiting && same { Ok(()) } else { Err("lease") }
        }
    }
}

#[cfg(test)]
mod tests {
    use signalpost_core::{LaneId, WaitReason};

    use super::*;
    use crate::fakes::message;

    #[test]
    fn a_suspect_is_sent_only_where_the_store_agrees() {
        let at = Timestamp::from_millis;
        let feed = Origin::Feed { leased_until: at(60_000) };
        let standing = |state, attempts, due: Option<i64>| {
            let waiting = due.map(|due| (at(due), WaitReason::Retry));
            Some(Standing { waiting, ..crate::fakes::standing(state, attempts) })
        };
        use DeliveryState::{Cancelled, Dead, Delivered, Queued, Waiting};
        for (origin, attempt, standing, verdict) in [
            (Origin::Fresh, 1, standing(Queued, 0, None), Ok(())),
            (Origin::Fresh, 1, None, Err("unknown")),
            (Origin::Fresh, 1, standing(Waiting, 0, Some(60_000)), Err("anchored")),
            (Origin::Fresh, 1, standing(Queued, 1, None), Err("other_attempt")),
            (Origin::Fresh, 1, standing(Delivered, 1, None), Err("ended")),
            (feed, 3, standing(Waiting, 2, Some(60_000)), Ok(())),
            (feed, 3, standing(Waiting, 2, Some(60_001)), Err("lease")),
            (feed, 3, standing(Waiting, 3, Some(60_000)), Err("other_attempt")),
            (feed, 1, standing(Queued, 0, None), Err("lease")),
            (feed, 3, standing(Dead, 2, None), Err("ended")),
            (feed, 3, standing(Cancelled, 2, None), Err("ended")),
        ] {
            let mut message = message(1, 1);
            message.origin = origin;
            message.attempt = attempt;
            assert_eq!(judge(&message, standing), verdict, "{origin:?} {attempt} {standing:?}");
            // In a lane nothing is sent without a lease.
            message.lane = Some(LaneId::of("a"));
            assert!(judge(&message, standing).is_err());
            let leased = standing.map(|standing| Standing { lease_left: Some(Duration::from_secs(1)), ..standing });
            assert_eq!(judge(&message, leased), verdict, "{origin:?} {attempt} {standing:?}");
        }
    }
}
