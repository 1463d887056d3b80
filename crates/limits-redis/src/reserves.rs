//! Tokens taken in advance, for economy: who wants one after the other at a high rate would ask Redis for each.
//!
//! As many are taken in advance as this process used of that destination in the last moment, at most a block of the rate and half
//! of what the bucket holds. They are good for that moment, and what is left of them is given back with the next call.

use std::{collections::HashMap, time::Duration};

use signalpost_core::{DestinationId, destination::RateLimit};
use signalpost_limits::{TokenGrant, TokenRequest};

use crate::tokens::BLOCK_TIME;

/// For how long a token may lie here. With the time that who takes it has, a token is used within 75 ms.
pub(crate) const RESERVE_TIME: Duration = BLOCK_TIME;

/// What is not used for so long is forgotten, and not given back: its bucket may have been full since.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Below this there is nothing to prune.
const PRUNE_ABOVE: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Reserve {
    limit: RateLimit,
    tokens: u32,
    until: Duration,
    /// When the present moment began, how many were used in it, and how many in the one before.
    moment: Duration,
    used: u32,
    used_before: u32,
}

/// Reserves of one process. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Reserves {
    reserves: HashMap<DestinationId, Reserve>,
    /// Prune when there are more.
    prune_at: usize,
}

impl Reserves {
    /// Takes what lies here.
    pub(crate) fn take(&mut self, now: Duration, request: &TokenRequest) -> TokenGrant {
        let none = TokenGrant::none(Duration::ZERO);
        let Some(reserve) = self.reserves.get_mut(&request.destination_id) else { return none };
        if now >= reserve.until || reserve.limit != request.limit {
            return none;
        }
        let granted = reserve.tokens.min(request.wanted);
        reserve.tokens -= granted;
        reserve.count(now, granted);
        TokenGrant::ready(granted)
    }

    /// How many more than it wants now it will soon want.
    pub(crate) fn extra(&mut self, now: Duration, request: &TokenRequest) -> u32 {
        let limit = request.limit;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is at most 100,000")]
        let most = (limit.per_second * RESERVE_TIME.as_secs_f64()).min(limit.burst() / 2.0).floor() as u32;
        let Some(reserve) = self.reserves.get_mut(&request.destination_id) else { return 0 };
        reserve.count(now, 0);
        reserve.used.max(reserve.used_before).min(most.saturating_sub(request.wanted))
    }

    /// Takes away what lies here, to give it back.
    pub(crate) fn take_unused(&mut self, now: Duration, id: DestinationId) -> u32 {
        let Some(reserve) = self.reserves.get_mut(&id) else { return 0 };
        let tokens = std::mem::take(&mut reserve.tokens);
        if now < reserve.until + FORGOTTEN_AFTER { tokens } else { 0 }
    }

    /// Notes what is used now, and keeps what was taken in advance.
    pub(crate) fn keep(&mut self, now: Duration, request: &TokenRequest, used: u32, tokens: u32) {
        if self.reserves.len() >= self.prune_at.max(PRUNE_ABOVE) {
            self.reserves.retain(|_, reserve| now < reserve.until + FORGOTTEN_AFTER);
            self.prune_at = self.reserves.len().saturating_mul(2);
        }
        let limit = request.limit;
        let new = Reserve { limit, tokens: 0, until: now, moment: now, used: 0, used_before: 0 };
        let reserve = self.reserves.entry(request.destination_id).or_insert(new);
        reserve.count(now, used);
        // Where two calls were under way at once, each brought some.
        reserve.tokens = if now < reserve.until { reserve.tokens.saturating_add(tokens) } else { tokens };
        (reserve.limit, reserve.until) = (limit, now + RESERVE_TIME);
    }
}

impl Reserve {
    fn count(&mut self, now: Duration, used: u32) {
        let passed = now.saturating_sub(self.moment);
        if passed >= RESERVE_TIME {
            self.used_before = if passed < 2 * RESERVE_TIME { self.used } else { 0 };
            (self.moment, self.used) = (now, 0);
        }
        self.used = self.used.saturating_add(used);
    }
}
