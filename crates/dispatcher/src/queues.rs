//! The queues of destinations, and whose turn it is. Pure: time comes in as the process's clock.
//!
//! Fair in turns of one request each, among tenants and among the destinations of each. A destination may have so many
//! requests out as it allows and as this dispatcher's share of its slots is, and never more than are left free for its
//! tenant; to which an eighth of the room is not, that others left. So a hundred hanging destinations still leave room for
//! the next one. A rate-limited one gets tokens in blocks of at most 50 ms of its rate, some ahead of their time, which are used when
//! they are ready or lost: each by its own time, so that a late start makes none of those behind it late.
//!
//! What waits here must be gone soon. Where a destination is what holds it up, it is given back as [`Parked`], to wait in
//! the store: after a while, where its queue is full, and where room is short. While we are what holds it up, it stays.

mod gate;
mod pace;
mod parking;
mod permits;
mod queue;
mod shares;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(crate) use gate::{Gate, OpenCircuits};
use pace::Pace;
use queue::Queue;
use shares::Shares;
use signalpost_core::{DestinationId, DestinationSpec, TenantId, WaitReason};
use turns::Turns;

use crate::job::Job;

/// A token is used within this time after it is ready.
const TOKEN_LIFE: Duration = Duration::from_millis(50);
/// What waits for longer is late: where room is short, it goes, if its destination is what holds it up.
const SLOW: Duration = Duration::from_millis(500);
/// Jobs of one destination that does not limit its rate: more are kept only while there is room, or it is quick.
const MOST_OF_ONE: usize = 1024;
/// What is in hand should be gone within that time; else nothing more is taken in hand.
const IN_HAND: Duration = Duration::from_millis(1500);
/// This part of the room that the others left is not a tenant's to fill.
const KEPT_FOR_OTHERS: usize = 8;
/// When to look again at what is kept though it waits for long.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

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
    /// Circuits that are not simply closed.
    gates: BTreeMap<DestinationId, Gate>,
    open_circuits: OpenCircuits,
    shares: Shares,
    /// Those that may be able to start something, in turn. Each at most once.
    ready: Turns,
    /// When to look at a queue again. At most one entry per queue.
    timers: BTreeSet<(Duration, DestinationId)>,
    /// Those that need tokens.
    wanting: BTreeSet<DestinationId>,
    /// Those that wait for room among all, in turn. Each at most once.
    crowded: Turns,
    in_flight: usize,
    /// Requests that are out, by tenant; none is zero.
    in_flight_of: BTreeMap<TenantId, usize>,
    /// How fast jobs leave.
    pace: Pace,
    queued: usize,
    bytes: usize,
}

impl Queues {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queues: BTreeMap::new(),
            gates: BTreeMap::new(),
            open_circuits: OpenCircuits::default(),
            shares: Shares::default(),
            ready: Turns::default(),
            timers: BTreeSet::new(),
            wanting: BTreeSet::new(),
            crowded: Turns::default(),
            in_flight: 0,
            in_flight_of: BTreeMap::new(),
            pace: Pace::default(),
            queued: 0,
            bytes: 0,
        }
    }

    /// Whether nothing more should be received.
    pub(crate) const fn is_full(&self) -> bool {
        self.queued >= self.bounds.queued || self.bytes >= self.bounds.bytes
    }

    /// Whether so much is in hand that it takes too long to be gone: we are what is slow.
    pub(crate) fn is_congested(&self, now: Duration) -> bool {
        self.queued > self.bounds.queued / 4 && self.pace.time_for(self.queued, now).is_none_or(|time| time > IN_HAND)
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

    /// How many jobs of the destination wait here, and how many of its requests are out.
    pub(crate) fn load(&self, id: DestinationId) -> (usize, usize) {
        self.queues.get(&id).map_or((0, 0), |queue| (queue.jobs.len(), queue.in_flight))
    }

    /// Takes a job, or gives it back where it could not start soon.
    pub(crate) fn push(&mut self, job: Job, spec: &DestinationSpec, now: Duration) -> Option<Parked> {
        let id = job.message.destination_id;
        let gate = self.gates.get(&id).copied();
        let queue = self.queues.entry(id).or_insert_with(|| Queue::new(job.message.tenant_id, now));
        queue.configure(spec);
        // While there is plenty of room, a burst may wait here as long as any other; and some more of it while nobody can know
        // yet how fast its destination is.
        let roomy = if queue.is_new(now) { self.bounds.queued / 4 * 3 } else { self.bounds.queued / 2 };
        let is_roomy = queue.rate.is_none() && self.queued < roomy && !queue.is_stuck(now);
        let is_full = queue.jobs.len() >= queue.most(self.bounds.wait, now) && !is_roomy && queue.is_slow(now);
        let is_shut =
            gate.is_some_and(|gate| !gate.shut_for(now).is_zero()) || queue.open_for_next_at() > now + self.bounds.wait;
        if is_full || is_shut {
            let parked = queue.park(job, self.bounds.park, gate, now);
            self.pace.tick(1, now);
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

    /// What the circuit of a destination lets through from now on. None: everything.
    pub(crate) fn set_gate(&mut self, id: DestinationId, gate: Option<Gate>) {
        let before = match gate {
            Some(gate) => self.gates.insert(id, gate),
            None => self.gates.remove(&id),
        };
        if before != gate {
            self.open_circuits.note(id, gate);
            self.make_ready(id);
        }
    }

    /// Which circuits are open, now and later.
    pub(crate) fn open_circuits(&self) -> OpenCircuits {
        self.open_circuits.clone()
    }

    /// What the circuit of a destination lets through now.
    pub(crate) fn gate(&self, id: DestinationId) -> Option<Gate> {
        self.gates.get(&id).copied()
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
            && let Some(id) = self.ready.pop()
        {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.is_ready = false;
            if queue.jobs.is_empty() {
                self.forget_if_idle(id, now);
                continue;
            }
            let gate = self.gates.get_mut(&id);
            let most = gate.as_deref().map_or(usize::MAX, |gate| gate.most(queue.in_flight));
            let slots = queue.max_in_flight.min(most).saturating_sub(queue.in_flight);
            queue.is_held = slots == 0;
            if queue.is_held {
                // Ready again when a request ends, or when the circuit changes.
                continue;
            }
            let (tenant, in_flight) = (queue.tenant, queue.in_flight);
            let free = free_for(&self.bounds, self.in_flight, &self.in_flight_of, tenant);
            if in_flight >= free {
                self.crowd(id);
                continue;
            }
            queue.lose_tokens(now);
            let open_at = queue.open_at();
            if open_at > now {
                self.arm_sooner(id, open_at);
                continue;
            }
            if let Err(look_again) = self.shares.take(id, in_flight, now) {
                queue.is_held = true;
                if let Some(at) = look_again {
                    self.arm_sooner(id, at);
                }
                continue;
            }
            if queue.rate.is_some() {
                if !queue.is_asking && queue.tokens_at <= now && queue.wanted_tokens(id, slots.min(free)).is_some() {
                    queue.is_asking = true;
                    self.wanting.insert(id);
                }
                let Some(ready_at) = queue.tokens.front().copied() else { continue };
                if ready_at > now {
                    self.arm_sooner(id, ready_at);
                    continue;
                }
                queue.tokens.pop_front();
            }
            let Some(mut job) = queue.jobs.pop_front() else { continue };
            if let Some(Gate::Trying { left }) = gate {
                *left = left.saturating_sub(1);
                job.is_probe = true;
            }
            if queue.in_flight == 0 {
                queue.moved_at = now;
            }
            queue.in_flight += 1;
            self.in_flight += 1;
            *self.in_flight_of.entry(tenant).or_default() += 1;
            self.left(&job, now);
            self.make_ready(id);
            return Some(job);
        }
        None
    }

    /// A request ended.
    pub(crate) fn ended(&mut self, id: DestinationId, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
            queue.pace.tick(1, now);
            queue.moved_at = now;
            queue.is_held = false;
            if let Some(of_tenant) = self.in_flight_of.get_mut(&queue.tenant) {
                *of_tenant -= 1;
                if *of_tenant == 0 {
                    self.in_flight_of.remove(&queue.tenant);
                }
            }
            self.make_ready(id);
        }
        self.forget_if_idle(id, now);
        self.uncrowd();
    }

    /// Lets the next one go that waits for room and now has it.
    fn uncrowd(&mut self) {
        // Queues leave this line only here, also those that were emptied or forgotten meanwhile. A few whose tenant has
        // room may be too large themselves.
        for _ in 0..8 {
            let free = |tenant| free_for(&self.bounds, self.in_flight, &self.in_flight_of, tenant);
            let Some(id) = self.crowded.pop_of(|tenant| free(tenant) > 0) else { return };
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if queue.jobs.is_empty() {
                queue.is_crowded = false;
                continue;
            }
            let tenant = queue.tenant;
            if queue.in_flight < free(tenant) {
                queue.is_crowded = false;
                self.make_ready(id);
                return;
            }
            self.crowded.push(tenant, id);
        }
    }

    /// When [`Self::overdue`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Lets a queue wait for room among all.
    fn crowd(&mut self, id: DestinationId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !std::mem::replace(&mut queue.is_crowded, true)
        {
            self.crowded.push(queue.tenant, id);
        }
    }

    fn left(&mut self, job: &Job, now: Duration) {
        self.queued = self.queued.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(job.bytes());
        self.pace.tick(1, now);
    }

    fn make_ready(&mut self, id: DestinationId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !queue.is_ready
            && !queue.jobs.is_empty()
        {
            queue.is_ready = true;
            self.ready.push(queue.tenant, id);
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

/// How many more requests a tenant may have out.
fn free_for(bounds: &Bounds, in_flight: usize, in_flight_of: &BTreeMap<TenantId, usize>, tenant: TenantId) -> usize {
    let of_tenant = in_flight_of.get(&tenant).copied().unwrap_or(0);
    let room = bounds.in_flight.saturating_sub(in_flight) + of_tenant;
    (room - room / KEPT_FOR_OTHERS).saturating_sub(of_tenant)
}
