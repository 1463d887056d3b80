//! The limits port on Redis.
//!
//! Every call is one pipeline of Lua scripts, bounded by 50 ms, on Redis's own clock. Every key expires.
//!
//! A token is taken twice: from a bucket in this process, and then from the shared one. While Redis is away or frozen,
//! the first has to do; when Redis is back, it is told what was used meanwhile. So one process alone keeps the promise of
//! a limit through any outage, loss of Redis's data included; several together do not, as each then has the whole rate.
//! Claims are for economy and simply cannot be had meanwhile.

mod inspect;
mod link;
mod scripts;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use signalpost_core::{Clock, DestinationId};
use signalpost_limits::{
    CLAIM_LEASE, CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant,
    TokenRequest,
    local::{LocalLimits, tokens::TokenBuckets},
};

pub use crate::inspect::{Inspection, inspect};
use crate::{link::Link, scripts::Batch};

/// The address is none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the address of Redis does not work: {0}")]
pub struct AddressError(String);

/// Limits that all processes with the same Redis share.
#[derive(Debug)]
pub struct RedisLimits {
    link: Link,
    clock: Arc<dyn Clock>,
    /// What this process may have at most; all there is while Redis is away.
    stand_in: Mutex<TokenBuckets>,
    local: LocalLimits,
}

impl RedisLimits {
    /// Connects (`redis://…` or `rediss://…`), or goes on trying in the background.
    ///
    /// # Errors
    /// The address cannot be understood. That Redis is away is no error.
    pub async fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<Self, AddressError> {
        let client = redis::Client::open(url).map_err(|error| AddressError(error.to_string()))?;
        Ok(Self {
            link: Link::start(client).await,
            local: LocalLimits::new(Arc::clone(&clock)),
            clock,
            stand_in: Mutex::default(),
        })
    }

    /// Every change under the lock is complete at each step, so a panic elsewhere does not spoil it.
    fn stand_in(&self) -> MutexGuard<'_, TokenBuckets> {
        self.stand_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks Redis for so many tokens as this process may have by its own count.
    ///
    /// # Errors
    /// Redis is away.
    async fn take_shared(
        &self,
        requests: &[TokenRequest],
        reserved: &[TokenGrant],
    ) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        let mut batch = Batch::default();
        let mut telling = Telling { limits: self, untold: Vec::with_capacity(requests.len()) };
        {
            let mut stand_in = self.stand_in();
            for (request, reserved) in requests.iter().zip(reserved) {
                let untold = stand_in.take_untold(request.destination_id);
                telling.untold.push((request.destination_id, untold));
                let (rate, burst) = (request.limit.per_second.to_string(), request.limit.burst().to_string());
                let key = format!("signalpost:tokens:{}", request.destination_id);
                batch.push(key, [rate, burst, reserved.granted.to_string(), untold.to_string()]);
            }
        }
        let answers = self
            .link
            .call(async |scripts, connection| scripts.call(connection, &scripts.take_tokens, &batch).await)
            .await?;
        if answers.len() != 2 * requests.len() {
            return Err(LimitsUnavailable(format!("{} answers", answers.len())));
        }
        telling.untold.clear();
        let grants = answers.chunks_exact(2).map(|answer| TokenGrant {
            granted: u32::try_from(answer[0]).unwrap_or(0),
            retry_after: Duration::from_micros(u64::try_from(answer[1]).unwrap_or(0)),
        });
        Ok(grants.collect())
    }

    async fn with_claims(
        &self,
        which: fn(&scripts::Scripts) -> &redis::Script,
        arguments: Vec<String>,
        claims: &[Claim],
    ) -> Result<Vec<i64>, LimitsUnavailable> {
        let mut batch = Batch::new(arguments);
        for claim in claims {
            batch.push(format!("signalpost:claim:{}:{}", claim.delivery_id, claim.attempt), []);
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.link.call(async |scripts, connection| scripts.call(connection, which(scripts), &batch).await).await
    }
}

/// What Redis is being told about tokens used without it. Remembered again unless it was told for certain; telling it
/// twice only makes it stricter.
struct Telling<'a> {
    limits: &'a RedisLimits,
    untold: Vec<(DestinationId, u32)>,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if self.untold.iter().any(|(_, tokens)| *tokens > 0) {
            let mut stand_in = self.limits.stand_in();
            for (id, tokens) in &self.untold {
                stand_in.add_untold(*id, *tokens);
            }
        }
    }
}

fn lease() -> String {
    CLAIM_LEASE.as_millis().to_string()
}

#[async_trait]
impl Limits for RedisLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        let now = self.clock.elapsed();
        let mut grants: Vec<TokenGrant> = {
            let mut stand_in = self.stand_in();
            requests.iter().map(|request| stand_in.take(now, request)).collect()
        };
        if grants.iter().all(|grant| grant.granted == 0) {
            return Ok(grants);
        }
        let shared = self.take_shared(requests, &grants).await;
        let mut stand_in = self.stand_in();
        match shared {
            Ok(shared) => {
                for ((grant, shared), request) in grants.iter_mut().zip(shared).zip(requests) {
                    if shared.granted < grant.granted {
                        stand_in.give_back(request.destination_id, request.limit, grant.granted - shared.granted);
                        *grant = shared;
                    }
                }
            }
            Err(_) => {
                for (grant, request) in grants.iter().zip(requests) {
                    stand_in.add_untold(request.destination_id, grant.granted);
                }
            }
        }
        Ok(grants)
    }

    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        let answers = self.with_claims(|scripts| &scripts.claim, vec![owner.to_string(), lease()], claims).await?;
        if answers.len() != claims.len() {
            return Err(LimitsUnavailable(format!("{} answers", answers.len())));
        }
        Ok(answers.into_iter().map(|ours| if ours == 1 { Claimed::Ours } else { Claimed::Others }).collect())
    }

    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.with_claims(|scripts| &scripts.renew, vec![owner.to_string(), lease()], claims).await.map(drop)
    }

    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.with_claims(|scripts| &scripts.release, vec![owner.to_string()], claims).await.map(drop)
    }

    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        self.local.slots(owner, uses).await
    }

    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        self.local.circuits(owner, reports).await
    }

    fn set_share(&self, alive: u32) {
        self.local.set_share(alive);
    }

    async fn check(&self) -> Result<(), LimitsUnavailable> {
        self.link.call(async |_, connection| redis::cmd("PING").query_async::<()>(connection).await).await
    }
}
