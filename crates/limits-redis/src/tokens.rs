//! Tokens, from the bucket in Redis or, while that is away, from a part of one's own.
//!
//! The promise (I7) is over all dispatchers, whatever happens to Redis:
//!
//! - The bucket is in Redis, on its clock. One that Redis does not know holds what came since its data were begun (a mark that is set
//!   when it is not there): a Redis that lost its data gives no second burst.
//! - A dispatcher that cannot ask has its part: the rate and the burst by the number of dispatchers that live, as the heartbeat in
//!   the store counts them; at least one token fits. These buckets are *empty* when they begin, and they begin only when the others
//!   must know that it is absent ([`PRESENT_FOR`]). From then on those that still reach Redis get the rest there, and no more.
//! - What was used so is told when Redis is back.
//!
//! What will be whole soon is granted before, here as there. High rates are taken in blocks. Who gets fewer than it wants is told to
//! come again when there are more than one. Who
//! wants one after the other gets some in advance, as many as it used in the last moment, which are good for [`RESERVE_TIME`]; those
//! that were not used are given back. So Redis is asked some 40 times a second for a destination, whatever its rate.
//!
//! It does not protect against a Redis that loses its latest writes and no others (a replica that took over): a bucket may
//! then give again what it gave in those moments. With more dispatchers than `burst`, one token fits into each part, and
//! so many may be sent at once while Redis is away.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use signalpost_core::{DestinationId, destination::RateLimit};
use signalpost_limits::{LimitsUnavailable, TOKENS_AHEAD, TokenGrant, TokenRequest, local::tokens::TokenBuckets};

use crate::{
    link::{CALL_TIME, Link, PRESENT_FOR},
    reserves::Reserves,
    scripts::Batch,
};

/// How many destinations are told, besides those that are asked for, in one call.
const TOLD_AT_ONCE: usize = 256;

/// Until so much of a rate has come nobody needs to ask again.
pub(crate) const BLOCK_TIME: Duration = Duration::from_millis(25);

/// Tokens of one process.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What this process has for itself, and since which outage.
    own: TokenBuckets,
    own_since: Option<Duration>,
    /// Used meanwhile, and not told.
    untold: BTreeMap<DestinationId, (u32, RateLimit)>,
    reserves: Reserves,
}

impl Tokens {
    /// Every change under the lock is complete at each step, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what there is, wherever it is.
    pub(crate) async fn take(&self, link: &Link, now: Duration, requests: &[TokenRequest]) -> Vec<TokenGrant> {
        let mut grants: Vec<TokenGrant> = {
            let mut state = self.state();
            requests.iter().map(|request| state.reserves.take(now, request)).collect()
        };
        let missing: Vec<(usize, TokenRequest)> = requests
            .iter()
            .zip(&grants)
            .enumerate()
            .filter(|(_, (request, grant))| grant.granted < request.wanted)
            .map(|(at, (request, grant))| (at, TokenRequest { wanted: request.wanted - grant.granted, ..*request }))
            .collect();
        if missing.is_empty() {
            return grants;
        }
        let rest = match self.take_shared(link, now, &missing).await {
            Ok(shared) => shared,
            Err(_) => match link.lost_at() {
                Some(since) => self.state().take_own(now, since, link.parts(), &missing),
                // It is back already, and counts on us to ask.
                None => vec![TokenGrant::none(CALL_TIME / 5); missing.len()],
            },
        };
        for ((at, _), grant) in missing.iter().zip(rest) {
            let before = grants[*at].granted;
            grants[*at] = TokenGrant { granted: before + grant.granted, ready: before + grant.ready, ..grant };
        }
        grants
    }

    /// Asks Redis.
    ///
    /// # Errors
    /// It is away.
    async fn take_shared(
        &self,
        link: &Link,
        now: Duration,
        missing: &[(usize, TokenRequest)],
    ) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        if link.lost_at().is_some() {
            return Err(LimitsUnavailable("not connected".to_owned()));
        }
        let mut telling = Telling { tokens: self, untold: Vec::new() };
        let mut asked = Vec::with_capacity(missing.len());
        {
            let mut state = self.state();
            for (_, request) in missing {
                let extra = state.reserves.extra(now, request);
                let unused = state.reserves.take_unused(now, request.destination_id);
                let used = state.untold.remove(&request.destination_id);
                telling.untold.extend(used.map(|(used, limit)| (request.destination_id, used, limit)));
                let used = i64::from(used.map_or(0, |(used, _)| used)) - i64::from(unused);
                asked.push((*request, extra, used));
            }
            // Others, too: who takes from their buckets next may be somebody else.
            let others: Vec<DestinationId> = state.untold.keys().copied().take(TOLD_AT_ONCE).collect();
            for destination_id in others {
                if let Some((used, limit)) = state.untold.remove(&destination_id) {
                    telling.untold.push((destination_id, used, limit));
                    asked.push((TokenRequest { destination_id, limit, wanted: 0 }, 0, i64::from(used)));
                }
            }
        }
        let alive = link.alive();
        let answers = link
            .call(async |scripts, session| {
                let name = if alive == 0 { String::new() } else { session.name.to_string() };
                let present_for = PRESENT_FOR.as_millis().to_string();
                let ahead = TOKENS_AHEAD.as_micros().to_string();
                let mut batch = Batch::new(vec![name, alive.to_string(), present_for, session.waits_until(), ahead]);
                for (request, extra, used) in &asked {
                    let (rate, burst) = (request.limit.per_second.to_string(), request.limit.burst().to_string());
                    let key = format!("signalpost:tokens:{}", request.destination_id);
                    batch.push(key, [rate, burst, request.wanted.to_string(), extra.to_string(), used.to_string()]);
                }
                scripts.call(&mut session.connection, &scripts.take_tokens, &batch).await
            })
            .await?;
        if answers.len() != 4 * asked.len() {
            return Err(LimitsUnavailable(format!("{} answers", answers.len())));
        }
        telling.untold.clear();
        let mut state = self.state();
        let grants = missing.iter().zip(answers.chunks_exact(4)).map(|((_, request), answer)| {
            let number = |at: usize| u32::try_from(answer[at]).unwrap_or(0);
            let time = |at: usize| Duration::from_nanos(u64::try_from(answer[at]).unwrap_or(0));
            let granted = number(0).min(request.wanted);
            state.reserves.keep(now, request, granted, number(0) - granted);
            let mut grant = TokenGrant {
                granted,
                ready: number(1).min(granted),
                next_in: time(2),
                every: time(3),
                retry_after: Duration::ZERO,
            };
            if granted < request.wanted {
                let next = grant.whole_in(granted).saturating_sub(TOKENS_AHEAD) + block_after_next(request, granted);
                grant.retry_after = next.max(Duration::from_nanos(1));
            }
            grant
        });
        Ok(grants.collect())
    }
}

impl State {
    fn take_own(
        &mut self,
        now: Duration,
        since: Duration,
        parts: Option<u32>,
        missing: &[(usize, TokenRequest)],
    ) -> Vec<TokenGrant> {
        if self.own_since != Some(since) {
            self.own_since = Some(since);
            self.own = TokenBuckets::empty_at(since + PRESENT_FOR);
        }
        let Some(parts) = parts else {
            // It begins with nothing once that is known.
            self.own = TokenBuckets::empty_at(now.max(since + PRESENT_FOR));
            return vec![TokenGrant::none(CALL_TIME); missing.len()];
        };
        let take = |(_, request): &(usize, TokenRequest)| {
            let own = TokenRequest { limit: part_of(request.limit, parts), ..*request };
            let grant = self.own.take(now, &own);
            if grant.granted > 0 {
                let (untold, limit) = self.untold.entry(request.destination_id).or_insert((0, request.limit));
                (*untold, *limit) = (untold.saturating_add(grant.granted), request.limit);
            }
            grant
        };
        missing.iter().map(take).collect()
    }
}

/// A part of a limit, for one of so many.
fn part_of(limit: RateLimit, parts: u32) -> RateLimit {
    let parts = f64::from(parts.max(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is at least 1")]
    let burst = (limit.burst() / parts).floor().max(1.0) as u32;
    RateLimit { per_second: limit.per_second / parts, burst: NonZeroU32::new(burst) }
}

/// How much longer than the next token what makes a call worth its while takes. The bucket is in debt for twice that time.
fn block_after_next(request: &TokenRequest, granted: u32) -> Duration {
    let rate = request.limit.per_second;
    let block = (rate * BLOCK_TIME.as_secs_f64()).min(f64::from(request.wanted - granted));
    Duration::from_secs_f64((block - 1.0).max(0.0) / rate)
}

/// What Redis is being told about tokens used without it. Remembered again unless it was told for certain; telling it
/// twice only makes it stricter.
struct Telling<'a> {
    tokens: &'a Tokens,
    untold: Vec<(DestinationId, u32, RateLimit)>,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let mut state = self.tokens.state();
        for (id, used, limit) in &self.untold {
            let (untold, _) = state.untold.entry(*id).or_insert((0, *limit));
            *untold = untold.saturating_add(*used);
        }
    }
}
