//! One destination's queue.

use std::{collections::VecDeque, time::Duration};

use signalpost_core::{DestinationId, DestinationSpec, WaitReason, destination::RateLimit};
use signalpost_limits::TokenRequest;

use super::{MOST_OF_ONE, Parked, SLOW, TOKEN_LIFE};
use crate::job::Job;

/// What waits for one destination, and what it may do now.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// First in, first out.
    pub jobs: VecDeque<Job>,
    /// Requests that are out.
    pub in_flight: usize,
    pub max_in_flight: usize,
    pub rate: Option<RateLimit>,
    /// Granted and not yet used.
    pub tokens: u32,
    /// Until when they may be used.
    pub tokens_until: Duration,
    /// Not to ask for tokens before.
    pub tokens_at: Duration,
    /// Somebody is asking.
    pub is_asking: bool,
    /// The destination wants to be left alone until then.
    pub slow_until: Duration,
    /// Stands in `ready`.
    pub is_ready: bool,
    /// Stands in `crowded`.
    pub is_crowded: bool,
    /// Its entry in `timers`.
    pub timer: Option<Duration>,
}

impl Queue {
    pub(super) fn configure(&mut self, spec: &DestinationSpec) {
        self.max_in_flight = usize::try_from(spec.max_in_flight.get()).unwrap_or(usize::MAX);
        self.rate = spec.rate_limit;
    }

    /// How many jobs may wait whatever its pace: with a rate, what that lets through before they are too old.
    pub(super) fn most(&self, wait: Duration) -> usize {
        self.rate.map_or(MOST_OF_ONE, |rate| {
            let most = rate.per_second * wait.as_secs_f64() + rate.burst();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
            let most = most.ceil().clamp(1.0, 4.0 * MOST_OF_ONE as f64) as usize;
            most
        })
    }

    /// Whether what comes in now will soon be gone: the first job tells how long it takes.
    pub(super) fn is_quick(&self, now: Duration) -> bool {
        self.rate.is_none() && self.jobs.front().is_none_or(|first| now.saturating_sub(first.since) < SLOW)
    }

    /// When the next request may start, as far as tokens and the destination's wish go.
    pub(super) fn open_at(&self) -> Duration {
        let tokens_at = if self.rate.is_some() && self.tokens == 0 { self.tokens_at } else { Duration::ZERO };
        self.slow_until.max(tokens_at)
    }

    /// Uses a token, where there is one.
    pub(super) fn take_token(&mut self, now: Duration) -> bool {
        if now > self.tokens_until {
            self.tokens = 0;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }

    /// For as much as can start now, at most a block.
    pub(super) fn wanted_tokens(&self, destination_id: DestinationId, free: usize) -> Option<TokenRequest> {
        let limit = self.rate?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at most 100,000")]
        let block = (limit.per_second * TOKEN_LIFE.as_secs_f64()).ceil().max(1.0) as u32;
        let slots = self.max_in_flight.saturating_sub(self.in_flight);
        let wanted = u32::try_from(self.jobs.len().min(slots).min(free)).unwrap_or(u32::MAX).min(block);
        (wanted > 0).then_some(TokenRequest { destination_id, limit, wanted })
    }

    /// Says what a job of this queue waits for, and for how long it goes away.
    pub(super) fn park(&self, job: Job, park: Duration, now: Duration) -> Parked {
        let asked = self.slow_until.saturating_sub(now);
        let has_slot = self.in_flight < self.max_in_flight;
        let limited = !asked.is_zero() || (self.rate.is_some() && has_slot);
        Parked { job, reason: if limited { WaitReason::RateLimit } else { WaitReason::Slot }, after: park.max(asked) }
    }
}
