//! Limits inside one process.
//!
//! The whole of a standalone Signalpost; in a cluster the buckets stand in while the shared limits are away.

pub mod claims;
pub mod tokens;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use signalpost_core::Clock;

use self::{claims::ClaimTable, tokens::TokenBuckets};
use crate::{Claim, Claimed, Limits, LimitsUnavailable, Owner, TokenGrant, TokenRequest};

/// Buckets and claims in memory. Never unavailable.
#[derive(Debug)]
pub struct LocalLimits {
    clock: Arc<dyn Clock>,
    tokens: Mutex<TokenBuckets>,
    claims: Mutex<ClaimTable>,
}

impl LocalLimits {
    /// Full buckets, no claims. Only the monotonic side of the clock is used.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tokens: Mutex::default(), claims: Mutex::default() }
    }
}

/// Every change under these locks is complete at each step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Limits for LocalLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        let now = self.clock.elapsed();
        let mut tokens = lock(&self.tokens);
        Ok(requests.iter().map(|request| tokens.take(now, request)).collect())
    }

    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        let now = self.clock.elapsed();
        let mut table = lock(&self.claims);
        Ok(claims.iter().map(|claim| table.claim(now, owner, *claim)).collect())
    }

    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        let now = self.clock.elapsed();
        let mut table = lock(&self.claims);
        claims.iter().for_each(|claim| table.renew(now, owner, *claim));
        Ok(())
    }

    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        let mut table = lock(&self.claims);
        claims.iter().for_each(|claim| table.release(owner, *claim));
        Ok(())
    }

    async fn check(&self) -> Result<(), LimitsUnavailable> {
        Ok(())
    }
}
