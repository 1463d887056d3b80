//! The circuit as a pure machine: time, what was seen, and chance come in, permits come out.
//!
//! - *Closed*: requests go through. It opens on [`CircuitPolicy::failures`] failures in a row over at least 5 s, with no success
//!   between, or when [`CircuitPolicy::failure_ratio`] of at least 20 attempts of the last 30 s failed.
//! - *Open*: nothing is sent, for `open_ms`, doubled with every further opening in a row, ± 20 %, at most `max_open_ms`.
//! - *Half-open*: [`CircuitPolicy::probes`] probes in all are let through. All must succeed; one that fails opens it again. A probe
//!   that tells nothing (429), or nothing in time, gives its place back.
//! - *Closed with a ramp*: for 10 s only so many requests may be out: `probes` at first, doubling each second. After that, openings
//!   are no longer in a row.
//!
//! A newer version of the destination makes an open one half-open at once: who changed it, or resumed it, may have mended it.
//!
//! A policy that is not enabled closes it and forgets all but `trips`. What ends while it is open was sent before, and counts
//! for nothing; neither does, in half-open, what was no probe.
//!
//! It relies on its caller for one clock: a clock that is set back only delays, by at most the time that it stays open.
//! It does not protect a destination from requests that are out when it opens.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::{CircuitPolicy, CircuitState, window::Window};
use crate::{Entropy, Timestamp};

/// A row of failures counts when it lasted that long.
pub const ROW_LASTS: Duration = Duration::from_secs(5);

/// The ratio counts from so many attempts on.
pub const RATIO_FROM: u64 = 20;

/// How long it takes until a closed circuit is like any other.
pub const RAMP: Duration = Duration::from_secs(10);

/// How far the open time is spread, so that circuits that opened together do not try together.
pub const JITTER: f64 = 0.2;

/// For how long nothing may fail, or be reported, before a row of failures is forgotten.
pub const ROW_KEPT: Duration = Duration::from_secs(3600);

/// For how long a closed circuit that has opened before is kept, for the sake of `trips`.
const TRIPS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest reason, in characters.
const REASON_LENGTH: usize = 200;

/// What somebody saw of a destination since the last time, and what it would like to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen<'a> {
    /// Attempts that the destination answered: it works.
    pub successes: u32,
    /// Attempts that count against it.
    pub failures: u32,
    /// The latest of them was a success.
    pub succeeded_last: bool,
    /// How many of the successes were probes.
    pub probes_succeeded: u32,
    /// How many of the failures were probes.
    pub probes_failed: u32,
    /// Probes that told nothing.
    pub probes_void: u32,
    /// How many probes it could send now.
    pub probes_wanted: u32,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// The last failure, for a person.
    pub reason: Option<&'a str>,
    /// How often the circuit is known to have opened before, by a memory that is longer than this one.
    pub trips: u32,
    /// The version of the destination that whoever saw it knows.
    pub version: u32,
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// Where it is now.
    pub state: CircuitState,
    /// Open: for how much longer. Else zero.
    pub open_for: Duration,
    /// Half-open: probes that may be sent now, out of those that were wanted.
    pub probes: u32,
    /// Closed not long ago: requests that may be out. None: as many as usual.
    pub ramp: Option<u32>,
}

/// The circuit of one destination. Serialised into shared memory; grows by fields with a default only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Circuit {
    state: State,
    /// Since when it is in that state; None: always.
    since: Option<Timestamp>,
    /// All openings.
    trips: u32,
    /// When openings were taken over from a memory that is longer than this one; None: all were seen here.
    took_over: Option<Timestamp>,
    /// Openings in a row, without a ramp that went through between them.
    in_a_row: u32,
    /// Why it opened last; None while it is closed.
    reason: Option<String>,
    /// The newest version of the destination that was told of; 0: none.
    version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Closed {
        window: Window,
        row: Option<Row>,
        /// When the ramp began.
        ramp: Option<Timestamp>,
    },
    Open {
        until: Timestamp,
    },
    HalfOpen {
        /// When the places of probes that are out are free again, in order.
        places: VecDeque<Timestamp>,
        succeeded: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { window: Window::default(), row: None, ramp: None }
    }
}

/// Failures with no success between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    failures: u32,
    since: Timestamp,
    /// When the latest was told of; None: it was kept by a version that did not note it.
    #[serde(default)]
    latest: Option<Timestamp>,
}

impl Row {
    fn is_current(&self, now: Timestamp) -> bool {
        self.since <= now && now.since(self.latest.unwrap_or(self.since)) < ROW_KEPT
    }
}

impl Circuit {
    /// Takes in what was seen, moves on with the time, and says what may be sent now.
    pub fn step(&mut self, now: Timestamp, policy: &CircuitPolicy, seen: &Seen<'_>, entropy: &dyn Entropy) -> Permits {
        if seen.trips > self.trips {
            self.trips = seen.trips;
            self.took_over = Some(now);
        }
        if policy.enabled {
            // What ended while it was open says nothing about the probes that are yet to come.
            let was_open = self.state() == CircuitState::Open;
            self.advance(now);
            if self.version > 0 && seen.version > self.version && self.state() == CircuitState::Open {
                self.half_open(now);
            }
            if !was_open {
                self.learn(now, policy, seen, entropy);
            }
        } else {
            self.forget(now);
        }
        self.version = self.version.max(seen.version);
        self.permit(now, policy, seen)
    }

    /// Where it is.
    pub fn state(&self) -> CircuitState {
        match self.state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// Since when; None: always. Of two pictures of one circuit, the later one holds.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// The same for a longer memory: what is told to it of openings that were taken over from it is news to it, though nothing
    /// happened here since.
    pub fn told_since(&self) -> Option<Timestamp> {
        self.since.max(self.took_over)
    }

    /// How often it has opened.
    pub fn trips(&self) -> u32 {
        self.trips
    }

    /// Why it opened, for a person; None while it is closed.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// After how long without news it can be forgotten.
    pub fn kept_for(&self) -> Duration {
        if self.trips == 0 { ROW_KEPT } else { TRIPS_KEPT }
    }

    /// What time alone does.
    fn advance(&mut self, now: Timestamp) {
        self.set_back(now);
        match &mut self.state {
            State::Closed { ramp, .. } => {
                if ramp.is_some_and(|began| now.since(began) >= RAMP) {
                    *ramp = None;
                    self.in_a_row = 0;
                }
            }
            State::Open { until } => {
                if *until <= now {
                    self.half_open(now);
                }
            }
            State::HalfOpen { .. } => {}
        }
    }

    fn half_open(&mut self, now: Timestamp) {
        self.enter(now, State::HalfOpen { places: VecDeque::new(), succeeded: 0 });
    }

    /// Where the clock was set back, what had begun begins now.
    fn set_back(&mut self, now: Timestamp) {
        self.took_over = self.took_over.map(|at| at.min(now));
        let Some(since) = self.since.filter(|since| *since > now) else { return };
        match &mut self.state {
            State::Closed { ramp, .. } => *ramp = ramp.map(|_| now),
            State::Open { until } => *until = now + until.since(since),
            State::HalfOpen { places, .. } => places.clear(),
        }
        self.since = Some(now);
    }

    fn learn(&mut self, now: Timestamp, policy: &CircuitPolicy, seen: &Seen<'_>, entropy: &dyn Entropy) {
        let why = match &mut self.state {
            State::Closed { window, row, .. } => {
                window.add(now, seen.successes, seen.failures);
                *row = row_after(*row, now, seen);
                why_open(window, *row, now, policy, seen)
            }
            State::Open { .. } => None,
            State::HalfOpen { places, succeeded } => {
                let ended = seen.probes_void.saturating_add(seen.probes_succeeded);
                places.drain(..places.len().min(as_len(ended)));
                // After what was reported: a probe whose end is told just now was not too late.
                places.retain(|until| *until > now);
                *succeeded = succeeded.saturating_add(seen.probes_succeeded);
                if seen.probes_failed > 0 {
                    Some(format!("{} of {} probes failed", seen.probes_failed, policy.probes))
                } else {
                    if *succeeded >= policy.probes.get() {
                        self.enter(now, State::Closed { window: Window::default(), row: None, ramp: Some(now) });
                        self.reason = None;
                    }
                    None
                }
            }
        };
        if let Some(why) = why {
            self.open(now, policy, why, seen.reason, entropy);
        }
    }

    fn open(&mut self, now: Timestamp, policy: &CircuitPolicy, why: String, last: Option<&str>, entropy: &dyn Entropy) {
        let time = open_time(policy, self.in_a_row, entropy);
        self.enter(now, State::Open { until: now + time });
        self.trips = self.trips.saturating_add(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let reason = match last {
            Some(last) => format!("{why}, the last: {last}"),
            None => why,
        };
        self.reason = Some(reason.chars().take(REASON_LENGTH).collect());
    }

    fn forget(&mut self, now: Timestamp) {
        let since = if self.state() == CircuitState::Closed { self.since } else { Some(now) };
        *self = Self { since, trips: self.trips, took_over: self.took_over, ..Self::default() };
    }

    fn enter(&mut self, now: Timestamp, state: State) {
        self.state = state;
        self.since = Some(now);
    }

    fn permit(&mut self, now: Timestamp, policy: &CircuitPolicy, seen: &Seen<'_>) -> Permits {
        let mut permits = Permits { state: self.state(), open_for: Duration::ZERO, probes: 0, ramp: None };
        match &mut self.state {
            State::Closed { ramp, .. } => {
                permits.ramp = ramp.map(|began| {
                    let doublings = u32::try_from(now.since(began).as_secs()).unwrap_or(u32::MAX);
                    policy.probes.get().saturating_mul(2_u32.saturating_pow(doublings))
                });
            }
            State::Open { until } => permits.open_for = until.since(now),
            State::HalfOpen { places, succeeded } => {
                let taken = succeeded.saturating_add(u32::try_from(places.len()).unwrap_or(u32::MAX));
                permits.probes = policy.probes.get().saturating_sub(taken).min(seen.probes_wanted);
                let until = now + seen.probe_timeout;
                places.extend(std::iter::repeat_n(until, as_len(permits.probes)));
                // Time-outs differ where the destination was changed meanwhile.
                places.make_contiguous().sort_unstable();
            }
        }
        permits
    }
}

fn as_len(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn row_after(row: Option<Row>, now: Timestamp, seen: &Seen<'_>) -> Option<Row> {
    match (seen.successes, seen.failures) {
        (0, 0) => row,
        (0, failures) => {
            let row = row.filter(|row| row.is_current(now)).unwrap_or(Row { failures: 0, since: now, latest: None });
            Some(Row { failures: row.failures.saturating_add(failures), latest: Some(now), ..row })
        }
        (_, 0) => None,
        _ if seen.succeeded_last => None,
        // How many failed after the last success is not told: one for certain.
        _ => Some(Row { failures: 1, since: now, latest: Some(now) }),
    }
}

fn why_open(
    window: &Window,
    row: Option<Row>,
    now: Timestamp,
    policy: &CircuitPolicy,
    seen: &Seen<'_>,
) -> Option<String> {
    if seen.failures == 0 {
        return None;
    }
    if let Some(Row { failures, since, .. }) = row
        && failures >= policy.failures.get()
        && now.since(since) >= ROW_LASTS
    {
        return Some(format!("{failures} failures in a row over {} s", now.since(since).as_secs()));
    }
    let (attempts, failed) = window.sums();
    #[allow(clippy::cast_precision_loss, reason = "nobody makes 2^53 attempts in 30 s")]
    let (part, of_all) = (failed as f64, attempts as f64);
    if attempts >= RATIO_FROM && part >= policy.failure_ratio * of_all {
        let percent = failed * 100 / attempts;
        return Some(format!("{percent} % of {attempts} attempts in 30 s failed"));
    }
    None
}

/// How long it stays open, after so many openings in a row.
fn open_time(policy: &CircuitPolicy, in_a_row: u32, entropy: &dyn Entropy) -> Duration {
    // 2^26 × 100 ms is more than the longest open time.
    let doubled = policy.open_ms.saturating_mul(1 << in_a_row.min(26));
    let longest = Duration::from_millis(policy.max_open_ms.max(policy.open_ms));
    Duration::from_millis(doubled).min(longest).mul_f64(1.0 + JITTER * (2.0 * entropy.unit() - 1.0)).min(longest)
}

#[cfg(test)]
mod tests;
