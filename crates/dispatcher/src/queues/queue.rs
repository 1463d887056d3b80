//! One destination's queue.

use std::{collections::VecDeque, time::Duration};

use signalpost_core::{DestinationId, DestinationSpec, TenantId, WaitReason, destination::RateLimit};
use signalpost_limits::TokenRequest;

use super::{Gate, MOST_OF_ONE, Parked, SLOW, TOKEN_LIFE, pace::Pace};
use crate::job::Job;

/// What waits behind requests of which none ends: as many may.
const MOST_BEHIND_STUCK: usize = 64;
/// What goes away to wait for a token is back so long before: a token that nobody waits for is lost where the bucket is full.
const BEFORE_TOKEN: Duration = Duration::from_secs(1);
/// It goes away for no longer than that: others give tokens back, and rates are changed.
const MOST_FOR_TOKEN: Duration = Duration::from_secs(60);
/// A queue that needs longer at its present pace is slow.
const LONG: Duration = Duration::from_secs(4);

/// What waits for one destination, and what it may do now.
#[derive(Debug)]
pub(super) struct Queue {
    pub tenant: TenantId,
    /// Since when there is one.
    since: Duration,
    /// First in, first out.
    pub jobs: VecDeque<Job>,
    /// Requests that are out.
    pub in_flight: usize,
    pub max_in_flight: usize,
    pub rate: Option<RateLimit>,
    /// Granted and not yet used: when each is ready.
    pub tokens: VecDeque<Duration>,
    /// Not to ask for tokens before.
    pub tokens_at: Duration,
    /// Somebody is asking.
    pub is_asking: bool,
    /// The destination wants to be left alone until then.
    pub slow_until: Duration,
    /// How fast requests end.
    pub pace: Pace,
    /// When a request ended, or the first one began.
    pub moved_at: Duration,
    /// Found to have as many requests out as it may, at the last look.
    pub is_held: bool,
    /// Stands in line.
    pub is_ready: bool,
    /// Waits for room among all.
    pub is_crowded: bool,
    /// Its entry in `timers`.
    pub timer: Option<Duration>,
}

impl Queue {
    pub(super) fn new(tenant: TenantId, now: Duration) -> Self {
        Self {
            tenant,
            since: now,
            jobs: VecDeque::new(),
            in_flight: 0,
            max_in_flight: 0,
            rate: None,
            tokens: VecDeque::new(),
            tokens_at: Duration::ZERO,
            is_asking: false,
            slow_until: Duration::ZERO,
            pace: Pace::default(),
            moved_at: Duration::ZERO,
            is_held: false,
            is_ready: false,
            is_crowded: false,
            timer: None,
        }
    }

    pub(super) fn configure(&mut self, spec: &DestinationSpec) {
        self.max_in_flight = usize::try_from(spec.max_in_flight.get()).unwrap_or(usize::MAX);
        if self.rate != spec.rate_limit {
            self.rate = spec.rate_limit;
            self.tokens.clear();
            self.tokens_at = Duration::ZERO;
        }
    }

    /// How many jobs may wait: with a rate, what that lets through before they are too old; behind a destination that hangs,
    /// a few; else plenty.
    pub(super) fn most(&self, wait: Duration, now: Duration) -> usize {
        if let Some(rate) = self.rate {
            let most = rate.per_second * wait.as_secs_f64() + rate.burst();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
            return most.ceil().clamp(1.0, 4.0 * MOST_OF_ONE as f64) as usize;
        }
        if self.is_stuck(now) { MOST_BEHIND_STUCK } else { MOST_OF_ONE }
    }

    /// Whether it began a moment ago: its pace says nothing yet.
    pub(super) fn is_new(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < SLOW
    }

    /// Whether all its slots are taken by requests that do not end.
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        self.in_flight > 0 && self.is_held && now.saturating_sub(self.moved_at) >= SLOW
    }

    /// Whether it is the destination that holds up what waits here, and not we: its rate, its wish, its slots.
    pub(super) fn is_slow(&self, now: Duration) -> bool {
        self.rate.is_some()
            || self.slow_until > now
            || self.is_stuck(now)
            || self.pace.time_for(self.jobs.len(), now).is_none_or(|time| time > LONG)
    }

    /// Whether what waits here has waited for long.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        self.jobs.front().is_some_and(|first| now.saturating_sub(first.since) >= SLOW)
    }

    /// When the next request may start, as far as tokens and the destination's wish go.
    pub(super) fn open_at(&self) -> Duration {
        let tokens_at = if self.rate.is_some() && self.tokens.is_empty() { self.tokens_at } else { Duration::ZERO };
        self.slow_until.max(tokens_at)
    }

    /// The same for one that comes behind all that wait.
    pub(super) fn open_for_next_at(&self) -> Duration {
        let has_token = self.rate.is_none() || self.tokens.len() > self.jobs.len();
        self.slow_until.max(if has_token { Duration::ZERO } else { self.tokens_at })
    }

    /// Forgets tokens that were not used in time.
    pub(super) fn lose_tokens(&mut self, now: Duration) {
        while self.tokens.pop_front_if(|ready_at| *ready_at + TOKEN_LIFE < now).is_some() {}
    }

    /// For as much as can start, at most a block, and once half of that is used.
    pub(super) fn wanted_tokens(&self, destination_id: DestinationId, free: usize) -> Option<TokenRequest> {
        let limit = self.rate?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at most 100,000")]
        let block = (limit.per_second * TOKEN_LIFE.as_secs_f64()).ceil().max(1.0) as usize;
        let (most, has) = (self.jobs.len().min(free).min(block), self.tokens.len());
        let wanted = u32::try_from(most.saturating_sub(has)).unwrap_or(u32::MAX);
        (wanted > 0 && has * 2 <= most).then_some(TokenRequest { destination_id, limit, wanted })
    }

    /// Says what a job of this queue that has no token waits for, and for how long it goes away.
    pub(super) fn park(&self, job: Job, park: Duration, gate: Option<Gate>, now: Duration) -> Parked {
        if let Some(gate) = gate.filter(|gate| gate.holds()) {
            return Parked { job, reason: WaitReason::Circuit, after: park.max(gate.shut_for(now)) };
        }
        let asked = self.slow_until.saturating_sub(now);
        let has_slot = self.in_flight < self.max_in_flight;
        let limited = !asked.is_zero() || (self.rate.is_some() && has_slot);
        let token =
            if self.rate.is_some() { self.tokens_at.saturating_sub(now + BEFORE_TOKEN) } else { Duration::ZERO };
        let after = park.max(asked).max(token.min(MOST_FOR_TOKEN));
        Parked { job, reason: if limited { WaitReason::RateLimit } else { WaitReason::Slot }, after }
    }
}
