//! What does not stay here: it goes back to the store, or to the next owner of its partition.

use std::{collections::VecDeque, time::Duration};

use signalpost_bus::Partition;
use signalpost_core::{DestinationId, classify::MAX_RETRY_AFTER};

use super::{LOOK_AGAIN, Parked, Queues, SLOW, queue::Queue};
use crate::job::Job;

impl Queues {
    /// A destination asked to be left alone. What waits for it goes to the store, where that is for long. Says whether
    /// that was news.
    pub(crate) fn slow_down(&mut self, id: DestinationId, pause: Duration, now: Duration) -> (bool, Vec<Parked>) {
        let mut parked = Vec::new();
        let Some(queue) = self.queues.get_mut(&id) else { return (false, parked) };
        let until = now + pause.min(MAX_RETRY_AFTER);
        let is_news = until > queue.slow_until.max(now) + SLOW;
        queue.slow_until = queue.slow_until.max(until);
        if until > now + self.bounds.wait {
            queue.tokens.clear();
            self.park_older(id, Duration::ZERO, now, &mut parked);
        }
        (is_news, parked)
    }

    /// What has waited for too long. Also looks again at queues that waited for tokens. With `keep` nothing is given
    /// back, and what waited waits anew: it is not the destinations that are slow, it is us.
    pub(crate) fn overdue(&mut self, now: Duration, keep: bool) -> Vec<Parked> {
        let mut parked = Vec::new();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.timer = None;
            let is_ours = keep || !(queue.is_slow(now) || self.gates.get(&id).is_some_and(|gate| gate.holds()));
            if keep {
                for job in &mut queue.jobs {
                    job.since = now;
                }
            } else if !is_ours {
                self.park_older(id, self.bounds.wait, now, &mut parked);
            }
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if !queue.jobs.is_empty() {
                let soonest = if is_ours { LOOK_AGAIN } else { Duration::from_millis(1) };
                let first = queue.jobs.get(queue.tokens.len());
                let too_late = first.map_or(now + LOOK_AGAIN, |job| (job.since + self.bounds.wait).max(now + soonest));
                let open_at = queue.open_at();
                self.arm(id, if open_at > now { too_late.min(open_at) } else { too_late });
                self.make_ready(id);
            }
            self.forget_if_idle(id, now);
        }
        parked
    }

    /// Makes room when it is short: slow destinations, and those that crowd out others, give back what waits.
    pub(crate) fn shed(&mut self, now: Duration) -> Vec<Parked> {
        let mut parked = Vec::new();
        let gives = |(id, queue): &(&DestinationId, &Queue)| {
            let is_slow = queue.is_slow(now) || queue.is_crowded || self.gates.get(id).is_some_and(|gate| gate.holds());
            is_slow && queue.is_late(now)
        };
        let slow: Vec<_> = self.queues.iter().filter(gives).map(|(id, _)| *id).collect();
        for id in slow {
            self.park_older(id, SLOW, now, &mut parked);
            self.forget_if_idle(id, now);
        }
        parked
    }

    /// Takes all jobs of a destination.
    pub(crate) fn take_all(&mut self, id: DestinationId, now: Duration) -> Vec<Job> {
        let Some(queue) = self.queues.get_mut(&id) else { return Vec::new() };
        let jobs: Vec<_> = std::mem::take(&mut queue.jobs).into();
        for job in &jobs {
            self.left(job, now);
        }
        self.forget_if_idle(id, now);
        jobs
    }

    /// Gives back what waits for a circuit, but for the first `keep`.
    pub(crate) fn park_beyond(&mut self, id: DestinationId, keep: usize, now: Duration) -> Vec<Parked> {
        let mut parked = Vec::new();
        let Some(queue) = self.queues.get_mut(&id) else { return parked };
        let gate = self.gates.get(&id).copied();
        let jobs = queue.jobs.split_off(queue.jobs.len().min(keep));
        parked.extend(jobs.into_iter().map(|job| queue.park(job, self.bounds.park, gate, now)));
        for parked in &parked {
            self.left(&parked.job, now);
        }
        self.forget_if_idle(id, now);
        parked
    }

    /// Takes all jobs that came from these partitions.
    pub(crate) fn take_partitions(&mut self, partitions: &[Partition], now: Duration) -> Vec<Job> {
        let mut taken = Vec::new();
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let (gone, kept): (VecDeque<_>, _) = std::mem::take(&mut queue.jobs)
                .into_iter()
                .partition(|job| job.place.is_some_and(|place| partitions.contains(&place.partition)));
            queue.jobs = kept;
            taken.extend(gone);
            self.forget_if_idle(id, now);
        }
        for job in &taken {
            self.left(job, now);
        }
        taken
    }

    /// Takes every job, at the end.
    pub(crate) fn take_everything(&mut self) -> Vec<Job> {
        (self.queued, self.bytes) = (0, 0);
        self.queues.values_mut().flat_map(|queue| std::mem::take(&mut queue.jobs)).collect()
    }

    /// Parks what has waited for so long, but for what has a token: that goes out in a moment, and a slow rate brings no
    /// other one soon.
    fn park_older(&mut self, id: DestinationId, wait: Duration, now: Duration, parked: &mut Vec<Parked>) {
        let gate = self.gates.get(&id).copied();
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.lose_tokens(now);
        let (before, keep) = (parked.len(), queue.tokens.len());
        while queue.jobs.get(keep).is_some_and(|job| now.saturating_sub(job.since) >= wait)
            && let Some(job) = queue.jobs.remove(keep)
        {
            parked.push(queue.park(job, self.bounds.park, gate, now));
        }
        for parked in &parked[before..] {
            self.left(&parked.job, now);
        }
    }
}
