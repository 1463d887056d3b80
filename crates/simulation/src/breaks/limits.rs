//! Limits that lie.

use std::{sync::Arc, time::Duration};

use signalpost_core::CircuitState;
use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

use super::Lie;

#[derive(Debug)]
pub(super) struct LyingLimits {
    lie: Lie,
    inner: Arc<dyn Limits>,
}

impl LyingLimits {
    pub(super) fn new(lie: Lie, inner: Arc<dyn Limits>) -> Self {
        Self { lie, inner }
    }
}

#[async_trait::async_trait]
impl Limits for LyingLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        if self.lie == Lie::SendsPastTheLimit {
            let all = |request: &TokenRequest| TokenGrant { granted: request.wanted, retry_after: Duration::ZERO };
            return Ok(requests.iter().map(all).collect());
        }
        self.inner.take_tokens(requests).await
    }
    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        self.inner.claim(owner, claims).await
    }
    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.inner.renew(owner, claims).await
    }
    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.inner.release(owner, claims).await
    }
    // begin of what is new
    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        if self.lie == Lie::GivesAllSlotsToAll {
            return Ok(uses.iter().map(|of| of.max).collect());
        }
        self.inner.slots(owner, uses).await
    }
    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        let mut views = self.inner.circuits(owner, reports).await?;
        if self.lie == Lie::IgnoresOpenCircuits {
            for view in &mut views {
                (view.state, view.open_for, view.ramp) = (CircuitState::Closed, Duration::ZERO, None);
                view.record.state = CircuitState::Closed;
            }
        }
        Ok(views)
    }
    fn set_share(&self, alive: u32) {
        self.inner.set_share(alive);
    }
    // end of what is new
    async fn check(&self) -> Result<(), LimitsUnavailable> {
        self.inner.check().await
    }
}
