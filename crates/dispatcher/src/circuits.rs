//! What this dispatcher sees of the circuits of destinations, and what follows. Pure: time comes in as the process's clock.
//!
//! Outcomes are counted here and told to the limits in batches, every 100 ms, of those destinations only that failed in
//! the last 30 s or whose circuit is not closed: one that is healthy costs two counters. What comes back says what may be
//! sent ([`Gate`]) and, where a circuit changed, what the store is told ([`Change`]). Whoever sees a change tells it; telling it
//! twice is harmless.
//!
//! Nothing is remembered over a restart but what the store keeps of a circuit that was not closed: such a one is asked
//! about before anything is sent.

mod successes;

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use signalpost_core::{CircuitPolicy, CircuitRecord, CircuitState, Destination, DestinationId, DestinationState};
use signalpost_limits::{CircuitReport, CircuitView};
use successes::Successes;

use crate::{job::Health, queues::Gate};

/// How often is reported, where there is something to report.
const EVERY: Duration = Duration::from_millis(100);
/// A closed circuit is reported for so long after the last failure.
const FAILED_LATELY: Duration = Duration::from_secs(30);
/// How often is asked about one that is not closed, where nothing is to be told.
const IDLE: Duration = Duration::from_secs(5);
/// Circuits of one report.
const BATCH: usize = 500;

/// What is counted between two reports.
#[derive(Debug, Default)]
struct Counts {
    successes: u32,
    failures: u32,
    succeeded_last: bool,
    probes_succeeded: u32,
    probes_failed: u32,
    probes_void: u32,
    reason: Option<String>,
}

#[derive(Debug)]
struct Entry {
    policy: CircuitPolicy,
    /// How long a probe may take.
    probe_timeout: Duration,
    counts: Counts,
    failed_at: Option<Duration>,
    state: CircuitState,
    /// Openings, as far as is known.
    trips: u32,
    /// The newest version of the destination that is known here, and the newest that the limits were told.
    version: u32,
    told: u32,
    /// It closed not long ago.
    ramps: bool,
    /// Probes that are out.
    probes: u32,
    report_at: Duration,
}

/// A circuit that changed, and what follows here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub destination_id: DestinationId,
    /// What is kept of it.
    pub record: CircuitRecord,
    /// Open: for so long the stored queue is held. Closed: zero.
    pub hold: Option<Duration>,
    /// While it is not closed: how many of the stored queue are let out at a time.
    pub trial: Option<NonZeroU32>,
}

/// What a view of a circuit means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    /// What may be sent from now on.
    pub gate: Option<Gate>,
    /// What waits here goes to the store, but for so many.
    pub keep: Option<usize>,
    pub change: Option<Change>,
}

/// Everything that is seen of circuits.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    entries: BTreeMap<DestinationId, Entry>,
    successes: Successes,
    /// When to look for reports again.
    look_at: Duration,
}

/// What waits, and what a gate lets through that has not begun, of one destination.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub waiting: usize,
    pub in_flight: usize,
    pub gate: Option<Gate>,
}

impl Circuits {
    /// A destination was loaded. One whose circuit was not closed when it was last told, by somebody who saw more of it than we,
    /// is asked about first.
    pub(crate) fn loaded(&mut self, destination: &Destination, grace: Duration, now: Duration) -> Option<Gate> {
        if destination.state == DestinationState::Deleted {
            return None;
        }
        let kept = &destination.circuit;
        let is_known = |entry: &Entry| entry.state != CircuitState::Closed || kept.trips <= entry.trips;
        if kept.state == CircuitState::Closed || self.entries.get(&destination.id).is_some_and(is_known) {
            return None;
        }
        let entry = self.entries.entry(destination.id).or_insert_with(|| Entry::new(destination, grace, now));
        entry.state = kept.state;
        self.look_at = self.look_at.min(entry.report_at.max(now));
        Some(Gate::Open { until: now })
    }

    /// A destination was deleted: what comes of the requests that are still out is told to nobody. Whether there was anything to tell.
    pub(crate) fn forget(&mut self, id: DestinationId) -> bool {
        self.entries.remove(&id).is_some()
    }

    /// A destination changed: its policy is taken over. Where its circuit is not closed, that is told at once. Whether it is.
    pub(crate) fn changed(&mut self, destination: &Destination, grace: Duration, now: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(&destination.id) else { return false };
        entry.configure(destination, grace);
        let is_news = entry.is_to_be_tried();
        if is_news {
            self.look_at = self.look_at.min(entry.report_at.max(now));
        }
        is_news
    }

    /// A request began, to try the circuit.
    pub(crate) fn probing(&mut self, id: DestinationId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.probes += 1;
        }
    }

    /// A request ended.
    pub(crate) fn ended(
        &mut self,
        id: DestinationId,
        destination: Option<&Destination>,
        health: &Health,
        is_probe: bool,
        grace: Duration,
        now: Duration,
    ) {
        let destination = destination
            .filter(|destination| destination.spec.circuit.enabled && destination.state != DestinationState::Deleted);
        if let Health::Failure(_) = health
            && let Some(destination) = destination
            && !self.entries.contains_key(&id)
        {
            let mut entry = Entry::new(destination, grace, now);
            // Without these a row would be longer, and a ratio higher, than what happened.
            entry.counts.successes = self.successes.take(id, now);
            entry.counts.succeeded_last = entry.counts.successes > 0;
            self.entries.insert(id, entry);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            if *health == Health::Success && destination.is_some() {
                self.successes.add(id, now);
            }
            return;
        };
        self.look_at = self.look_at.min(entry.report_at.max(now));
        let counts = &mut entry.counts;
        if is_probe {
            entry.probes = entry.probes.saturating_sub(1);
        }
        let probe = u32::from(is_probe);
        match health {
            Health::Refusal if !is_probe => {}
            // Else one that is well again, and refuses what comes first, would stay half-open.
            Health::Success | Health::Refusal => {
                counts.successes = counts.successes.saturating_add(1);
                counts.probes_succeeded += probe;
                counts.succeeded_last = true;
            }
            Health::Failure(reason) => {
                counts.failures = counts.failures.saturating_add(1);
                counts.probes_failed += probe;
                counts.succeeded_last = false;
                counts.reason = Some(reason.clone());
                entry.failed_at = Some(now);
            }
            Health::Nothing => counts.probes_void += probe,
        }
    }

    /// A probe was not made after all.
    pub(crate) fn void(&mut self, id: DestinationId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.probes = entry.probes.saturating_sub(1);
            entry.counts.probes_void += 1;
        }
    }

    /// What is to be reported now: a call's worth, whose counts begin anew. Forgets what there is nothing to tell about.
    pub(crate) fn reports(&mut self, now: Duration, load: impl Fn(DestinationId) -> Load) -> Vec<CircuitReport> {
        self.entries.retain(|_, entry| !entry.is_over(now));
        self.look_at = now + IDLE;
        let mut reports = Vec::new();
        for (id, entry) in &mut self.entries {
            if reports.len() >= BATCH {
                self.look_at = now;
                break;
            }
            let load = load(*id);
            if now >= entry.report_at && entry.has_news(load, now) {
                reports.push(entry.report(*id, load, now));
            }
            self.look_at = self.look_at.min(entry.look_at(load, now));
        }
        reports
    }

    /// Something came for a destination whose circuit is not simply closed.
    pub(crate) fn look(&mut self, id: DestinationId, now: Duration) {
        if let Some(entry) = self.entries.get(&id) {
            self.look_at = self.look_at.min(entry.report_at.max(now));
        }
    }

    /// When it is to be looked for reports again.
    pub(crate) fn next_report(&self) -> Option<Duration> {
        (!self.entries.is_empty()).then_some(self.look_at)
    }

    /// A report that did not get through: its counts are told with the next.
    pub(crate) fn failed(&mut self, report: CircuitReport) {
        if let Some(entry) = self.entries.get_mut(&report.destination_id) {
            entry.counts.add(report);
            self.look_at = self.look_at.min(entry.report_at);
        }
    }

    /// What came back.
    pub(crate) fn seen(
        &mut self,
        report: &CircuitReport,
        view: CircuitView,
        left: u32,
        now: Duration,
    ) -> Option<Applied> {
        let entry = self.entries.get_mut(&report.destination_id)?;
        let CircuitView { state, open_for, probes_granted, ramp, record } = view;
        let opened_again = state == CircuitState::Open && record.trips > entry.trips;
        // The change let its stored queue go.
        let stayed_open = state == CircuitState::Open && report.version > entry.told;
        let is_change = state != entry.state || opened_again || stayed_open;
        let left = left + probes_granted;
        let (gate, keep) = match state {
            CircuitState::Closed => (ramp.map(|most| Gate::Ramp { most }), None),
            CircuitState::Open => (Some(Gate::Open { until: now + open_for }), Some(0)),
            // Who has no place by now goes: places are few, and more come with the feed.
            CircuitState::HalfOpen => (Some(Gate::Trying { left }), Some(usize::try_from(left).unwrap_or(usize::MAX))),
        };
        entry.state = state;
        entry.trips = entry.trips.max(record.trips);
        entry.told = entry.told.max(report.version);
        entry.ramps = ramp.is_some();
        let change = is_change.then(|| Change {
            destination_id: report.destination_id,
            record,
            hold: match state {
                CircuitState::Open => Some(open_for),
                CircuitState::HalfOpen => None,
                CircuitState::Closed => Some(Duration::ZERO),
            },
            trial: (state != CircuitState::Closed).then_some(entry.policy.probes),
        });
        Some(Applied { gate, keep, change })
    }

    /// While a circuit is not closed, its stored queue is let out in so small pieces.
    pub(crate) fn trial(&self, id: DestinationId) -> Option<NonZeroU32> {
        self.entries.get(&id).filter(|entry| entry.state != CircuitState::Closed).map(|entry| entry.policy.probes)
    }

    /// How many are not closed.
    pub(crate) fn open(&self) -> usize {
        self.entries.values().filter(|entry| entry.state != CircuitState::Closed).count()
    }
}

impl Entry {
    fn new(destination: &Destination, grace: Duration, now: Duration) -> Self {
        let mut entry = Self {
            policy: CircuitPolicy::default(),
            probe_timeout: Duration::ZERO,
            counts: Counts::default(),
            failed_at: None,
            state: CircuitState::Closed,
            trips: destination.circuit.trips,
            version: 0,
            told: destination.version,
            ramps: false,
            probes: 0,
            report_at: now,
        };
        entry.configure(destination, grace);
        entry
    }

    fn configure(&mut self, destination: &Destination, grace: Duration) {
        self.policy = destination.spec.circuit.clone();
        self.probe_timeout = destination.spec.timeout() + grace;
        self.trips = self.trips.max(destination.circuit.trips);
        self.version = self.version.max(destination.version);
    }

    /// It is not closed, and somebody changed or resumed its destination since it was last told.
    fn is_to_be_tried(&self) -> bool {
        self.state != CircuitState::Closed && self.version > self.told
    }

    /// Whether nobody needs to hear of it any more.
    fn is_over(&self, now: Duration) -> bool {
        self.state == CircuitState::Closed
            && !self.ramps
            && (!self.policy.enabled || !self.counts.has_any())
            && (!self.policy.enabled || self.failed_at.is_none_or(|at| now.saturating_sub(at) >= FAILED_LATELY))
    }

    fn has_news(&self, load: Load, now: Duration) -> bool {
        let is_used = load.waiting > 0 || load.in_flight > 0 || self.probes > 0;
        let is_idle = now >= self.report_at + IDLE;
        self.counts.has_any()
            || self.is_to_be_tried()
            || match self.state {
                CircuitState::Closed => self.ramps && (is_used || is_idle),
                CircuitState::Open => load.gate.is_none_or(|gate| match gate {
                    Gate::Open { until } => until <= now && (load.waiting > 0 || is_idle),
                    Gate::Trying { .. } | Gate::Ramp { .. } => true,
                }),
                CircuitState::HalfOpen => is_used || is_idle,
            }
    }

    /// When it is to be looked at again, if nothing happens.
    fn look_at(&self, load: Load, now: Duration) -> Duration {
        if self.has_news(load, now + EVERY) {
            return if self.report_at > now { self.report_at } else { now + EVERY };
        }
        match load.gate {
            Some(Gate::Open { until }) if until > now && load.waiting > 0 => until,
            _ => now + IDLE,
        }
    }

    fn report(&mut self, destination_id: DestinationId, load: Load, now: Duration) -> CircuitReport {
        self.report_at = now + EVERY;
        let waiting = u32::try_from(load.waiting).unwrap_or(u32::MAX);
        let left = if let Some(Gate::Trying { left }) = load.gate { left } else { 0 };
        let counts = std::mem::take(&mut self.counts);
        CircuitReport {
            destination_id,
            policy: self.policy.clone(),
            successes: counts.successes,
            failures: counts.failures,
            succeeded_last: counts.succeeded_last,
            probes_succeeded: counts.probes_succeeded,
            probes_failed: counts.probes_failed,
            // What may be sent and is not there to be sent gives its place back.
            probes_void: counts.probes_void + left.saturating_sub(waiting),
            probes_wanted: waiting.saturating_sub(left),
            probe_timeout: self.probe_timeout,
            reason: counts.reason,
            trips: self.trips,
            version: self.version,
        }
    }
}

impl Counts {
    fn has_any(&self) -> bool {
        self.successes + self.failures + self.probes_void > 0
    }

    /// Puts back what came before.
    fn add(&mut self, before: CircuitReport) {
        let is_newer = self.successes + self.failures > 0;
        self.succeeded_last = if is_newer { self.succeeded_last } else { before.succeeded_last };
        self.successes = self.successes.saturating_add(before.successes);
        self.failures = self.failures.saturating_add(before.failures);
        self.probes_succeeded += before.probes_succeeded;
        self.probes_failed += before.probes_failed;
        self.probes_void += before.probes_void;
        self.reason = self.reason.take().or(before.reason);
    }
}
