//! The queues of destinations, and whose turn it is. Pure: time comes in as the process's clock.
//!
//! Fair in turns of one request each. A destination may have so many requests out as it allows, and never more than are
//! left free for all, so that a hundred hanging destinations still leave room for the next one. A rate-limited one gets
//! tokens in blocks of at most 50 ms of its rate, which are used at once or lost.
//!
//! What waits here must be gone soon. A job that waited too long, that finds its queue full, or that holds up the
//! intake because its destination is slow, is given back as [`Parked`], to wait in the store.

mod queue;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use queue::Queue;
use signalpost_bus::Partition;
use signalpost_core::{DestinationId, DestinationSpec, WaitReason, classify::MAX_RETRY_AFTER};
use signalpost_limits::{TokenGrant, TokenRequest};

use crate::job::Job;

/// A granted token is used within this time.
const TOKEN_LIFE: Duration = Duration::from_millis(50);
/// A queue whose first job waits for longer is slow: where room is short, it is its jobs that go.
const SLOW: Duration = Duration::from_millis(500);
/// Jobs of one destination that does not limit its rate: more are kept only while it is quick.
const MOST_OF_ONE: usize = 1024;

/// How much may be here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub in_flight: usize,
    pub queued: usize,
    pub bytes: usize,
    pub wait: Duration,
    pub park: Duration,
}

/// A job that goes to the store.
#[derive(Debug)]
pub(crate) struct Parked {
    pub job: Job,
    pub reason: WaitReason,
    pub after: Duration,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Queues {
    bounds: Bounds,
    queues: BTreeMap<DestinationId, Queue>,
    /// Those that may be able to start something, in turn. Each at most once.
    ready: VecDeque<DestinationId>,
    /// When to look at a queue again. At most one entry per queue.
    timers: BTreeSet<(Duration, DestinationId)>,
    /// Those that need tokens.
    wanting: BTreeSet<DestinationId>,
    /// Those that wait for room among all, in turn. Each at most once.
    crowded: VecDeque<DestinationId>,
    in_flight: usize,
    queued: usize,
    bytes: usize,
}

impl Queues {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queues: BTreeMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            wanting: BTreeSet::new(),
            crowded: VecDeque::new(),
            in_flight: 0,
            queued: 0,
            bytes: 0,
        }
    }

    /// Whether nothing more should be received.
    pub(crate) const fn is_full(&self) -> bool {
        self.queued >= self.bounds.queued || self.bytes >= self.bounds.bytes
    }

    /// How many more jobs there is room for.
    pub(crate) const fn room(&self) -> usize {
        self.bounds.queued.saturating_sub(self.queued)
    }

    /// Requests that are out.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the destination has jobs here or requests out.
    pub(crate) fn holds(&self, id: DestinationId) -> bool {
        self.queues.contains_key(&id)
    }

    /// Takes a job, or gives it back where its queue is full and not quick.
    pub(crate) fn push(&mut self, job: Job, spec: &DestinationSpec, now: Duration) -> Option<Parked> {
        let id = job.message.destination_id;
        let queue = self.queues.entry(id).or_default();
        queue.configure(spec);
        // While there is plenty of room, a burst may wait here as long as any other.
        let is_roomy = queue.rate.is_none() && self.queued * 2 < self.bounds.queued;
        if queue.jobs.len() >= queue.most(self.bounds.wait) && !is_roomy && !queue.is_quick(now) {
            let parked = queue.park(job, self.bounds.park, now);
            self.forget_if_idle(id, now);
            return Some(parked);
        }
        self.queued += 1;
        self.bytes += job.bytes();
        let too_late = job.since + self.bounds.wait;
        queue.jobs.push_back(job);
        if queue.timer.is_none() {
            self.arm(id, too_late);
        }
        self.make_ready(id);
        None
    }

    /// The destination changed.
    pub(crate) fn reconfigure(&mut self, id: DestinationId, spec: &DestinationSpec) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.configure(spec);
            queue.tokens_at = Duration::ZERO;
            queue.slow_until = Duration::ZERO;
            self.make_ready(id);
        }
    }

    /// The next job to start, whose slot is taken with that. None: nothing may start now.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Job> {
        while self.in_flight < self.bounds.in_flight
            && let Some(id) = self.ready.pop_front()
        {
            let free = self.bounds.in_flight - self.in_flight;
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.is_ready = false;
            if queue.jobs.is_empty() {
                self.forget_if_idle(id, now);
                continue;
            }
            if queue.in_flight >= queue.max_in_flight {
                // Ready again when a request ends.
                continue;
            }
            if queue.in_flight >= free {
                self.crowd(id);
                continue;
            }
            let open_at = queue.open_at();
            if open_at > now {
                self.arm_sooner(id, open_at);
                continue;
            }
            if queue.rate.is_some() && !queue.take_token(now) {
                if !queue.is_asking {
                    queue.is_asking = true;
                    self.wanting.insert(id);
                }
                continue;
            }
            let Some(job) = queue.jobs.pop_front() else { continue };
            queue.in_flight += 1;
            self.in_flight += 1;
            self.left(&job);
            self.make_ready(id);
            return Some(job);
        }
        None
    }

    /// The tokens that are needed now, for as much as can be sent now.
    pub(crate) fn wanted_tokens(&mut self) -> Vec<TokenRequest> {
        let free = self.bounds.in_flight - self.in_flight;
        let mut requests = Vec::new();
        for id in std::mem::take(&mut self.wanting) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            match queue.wanted_tokens(id, free) {
                Some(request) => requests.push(request),
                None => {
                    queue.is_asking = false;
                    // Others took the last room meanwhile: it is next when some of it is given back.
                    if free == 0 {
                        self.crowd(id);
                    }
                }
            }
        }
        requests
    }

    /// What came of asking for tokens. None: it could not be asked; later.
    pub(crate) fn granted(&mut self, request: &TokenRequest, grant: Option<TokenGrant>, now: Duration) {
        let Some(queue) = self.queues.get_mut(&request.destination_id) else { return };
        queue.is_asking = false;
        let grant = grant.unwrap_or(TokenGrant { granted: 0, retry_after: TOKEN_LIFE });
        queue.tokens = grant.granted;
        queue.tokens_until = now + TOKEN_LIFE;
        if grant.granted < request.wanted {
            // Never at once again, whatever the answer says.
            queue.tokens_at = now + grant.retry_after.max(Duration::from_millis(1));
        }
        self.make_ready(request.destination_id);
    }

    /// A request ended.
    pub(crate) fn ended(&mut self, id: DestinationId, slow_for: Option<Duration>, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
            if let Some(pause) = slow_for {
                queue.slow_until = queue.slow_until.max(now + pause.min(MAX_RETRY_AFTER));
            }
            self.make_ready(id);
        }
        self.forget_if_idle(id, now);
        // The first that still has something to send: queues leave this line only here, also those that were emptied or
        // forgotten meanwhile.
        while let Some(crowded) = self.crowded.pop_front() {
            let Some(queue) = self.queues.get_mut(&crowded) else { continue };
            if std::mem::take(&mut queue.is_crowded) && !queue.jobs.is_empty() {
                self.make_ready(crowded);
                break;
            }
        }
    }

    /// When [`Self::overdue`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
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
            if keep {
                for job in &mut queue.jobs {
                    job.since = now;
                }
            } else {
                self.park_older(id, self.bounds.wait, now, &mut parked);
            }
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if let Some(first) = queue.jobs.front() {
                let too_late =
                    (first.since + self.bounds.wait).max(now + Duration::from_millis(if keep { 250 } else { 1 }));
                let open_at = queue.open_at();
                self.arm(id, if open_at > now { too_late.min(open_at) } else { too_late });
                self.make_ready(id);
            }
            self.forget_if_idle(id, now);
        }
        parked
    }

    /// Makes room when it is short: slow destinations give back what waits.
    pub(crate) fn shed(&mut self, now: Duration) -> Vec<Parked> {
        let mut parked = Vec::new();
        let slow: Vec<_> = self.queues.iter().filter(|(_, queue)| !queue.is_quick(now)).map(|(id, _)| *id).collect();
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
            self.left(job);
        }
        self.forget_if_idle(id, now);
        jobs
    }

    /// Takes all jobs that came from these partitions.
    pub(crate) fn take_partitions(&mut self, partitions: &[Partition], now: Duration) -> Vec<Job> {
        let mut taken = Vec::new();
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let (gone, kept): (VecDeque<_>, _) =
                std::mem::take(&mut queue.jobs).into_iter().partition(|job| partitions.contains(&job.place.partition));
            queue.jobs = kept;
            taken.extend(gone);
            self.forget_if_idle(id, now);
        }
        for job in &taken {
            self.left(job);
        }
        taken
    }

    /// Takes every job, at the end.
    pub(crate) fn take_everything(&mut self) -> Vec<Job> {
        (self.queued, self.bytes) = (0, 0);
        self.queues.values_mut().flat_map(|queue| std::mem::take(&mut queue.jobs)).collect()
    }

    fn park_older(&mut self, id: DestinationId, wait: Duration, now: Duration, parked: &mut Vec<Parked>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let before = parked.len();
        while let Some(job) = queue.jobs.pop_front_if(|job| now.saturating_sub(job.since) >= wait) {
            parked.push(queue.park(job, self.bounds.park, now));
        }
        for parked in &parked[before..] {
            self.left(&parked.job);
        }
    }

    /// Lets a queue wait for room among all.
    fn crowd(&mut self, id: DestinationId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !std::mem::replace(&mut queue.is_crowded, true)
        {
            self.crowded.push_back(id);
        }
    }

    fn left(&mut self, job: &Job) {
        self.queued = self.queued.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(job.bytes());
    }

    fn make_ready(&mut self, id: DestinationId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !queue.is_ready
            && !queue.jobs.is_empty()
        {
            queue.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn arm(&mut self, id: DestinationId, at: Duration) {
        if let Some(queue) = self.queues.get_mut(&id) {
            if let Some(before) = queue.timer.replace(at) {
                self.timers.remove(&(before, id));
            }
            self.timers.insert((at, id));
        }
    }

    fn arm_sooner(&mut self, id: DestinationId, at: Duration) {
        if self.queues.get(&id).is_some_and(|queue| queue.timer.is_none_or(|timer| timer > at)) {
            self.arm(id, at);
        }
    }

    /// Drops a queue that has nothing to remember.
    fn forget_if_idle(&mut self, id: DestinationId, now: Duration) {
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.jobs.is_empty() && queue.in_flight == 0 && !queue.is_asking && queue.open_at() <= now {
            if let Some(at) = queue.timer {
                self.timers.remove(&(at, id));
            }
            self.queues.remove(&id);
        }
    }
}
