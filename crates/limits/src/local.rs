//! Limits inside one process.
//!
//! The whole of a standalone Signalpost; in a cluster buckets and circuits stand in while the shared limits are away.

pub mod circuits;
pub mod claims;
pub mod slots;
pub mod tokens;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use signalpost_core::{Clock, Timestamp};

use self::{circuits::CircuitTable, claims::ClaimTable, slots::SlotTable, tokens::TokenBuckets};
use crate::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

/// Buckets, claims, slots and circuits in memory. Never unavailable.
#[derive(Debug)]
pub struct LocalLimits {
    clock: Arc<dyn Clock>,
    tokens: Mutex<TokenBuckets>,
    claims: Mutex<ClaimTable>,
    slots: Mutex<SlotTable>,
    circuits: Mutex<CircuitTable>,
    /// The time of day when the monotonic clock stood at zero, as it was at the start: circuits are measured on the monotonic
    /// side, and shown as times of day.
    epoch: Timestamp,
}

impl LocalLimits {
    /// Full buckets, no claims, no slots taken, all circuits closed.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let epoch = clock.now() - clock.elapsed();
        Self {
            clock,
            tokens: Mutex::default(),
            claims: Mutex::default(),
            slots: Mutex::default(),
            circuits: Mutex::default(),
            epoch,
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// Every change under these locks is complete at each step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Limits for LocalLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        let now = self.elapsed();
        let mut tokens = lock(&self.tokens);
        Ok(requests.iter().map(|request| tokens.take(now, request)).collect())
    }

    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        let now = self.elapsed();
        let mut table = lock(&self.claims);
        Ok(claims.iter().map(|claim| table.claim(now, owner, *claim)).collect())
    }

    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        let now = self.elapsed();
        let mut table = lock(&self.claims);
        claims.iter().for_each(|claim| table.renew(now, owner, *claim));
        Ok(())
    }

    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        let mut table = lock(&self.claims);
        claims.iter().for_each(|claim| table.release(owner, *claim));
        Ok(())
    }

    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        let now = self.elapsed();
        let mut table = lock(&self.slots);
        Ok(uses.iter().map(|used| table.tell(now, owner, used)).collect())
    }

    async fn circuits(&self, _: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        let now = self.epoch + self.elapsed();
        let mut table = lock(&self.circuits);
        Ok(reports.iter().map(|report| table.report(now, report)).collect())
    }

    /// Who is alone has all.
    fn set_share(&self, _: u32) {}

    async fn check(&self) -> Result<(), LimitsUnavailable> {
        Ok(())
    }
}
