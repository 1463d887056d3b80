//! The limits as one life sees them.

use std::{future::Future, sync::Arc};

use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

use crate::life::{Life, Port};

/// The limits, through a gate.
#[derive(Debug)]
pub struct GatedLimits {
    life: Arc<Life>,
    inner: Arc<dyn Limits>,
}

impl GatedLimits {
    /// For one life.
    pub fn new(life: &Arc<Life>, inner: Arc<dyn Limits>) -> Self {
        Self { life: Arc::clone(life), inner }
    }

    async fn via<T>(
        &self,
        name: &'static str,
        inner: impl Future<Output = Result<T, LimitsUnavailable>>,
    ) -> Result<T, LimitsUnavailable> {
        self.life.call(Port::Limits, name, inner).await
    }
}

#[async_trait::async_trait]
impl Limits for GatedLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        self.via("take_tokens", self.inner.take_tokens(requests)).await
    }
    async fn claim(&self, owner: Owner, claims: &[Claim]) -> Result<Vec<Claimed>, LimitsUnavailable> {
        self.via("claim", self.inner.claim(owner, claims)).await
    }
    async fn renew(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.via("renew", self.inner.renew(owner, claims)).await
    }
    async fn release(&self, owner: Owner, claims: &[Claim]) -> Result<(), LimitsUnavailable> {
        self.via("release", self.inner.release(owner, claims)).await
    }
    // begin of what is new
    async fn slots(&self, owner: Owner, uses: &[SlotUse]) -> Result<Vec<u32>, LimitsUnavailable> {
        self.via("slots", self.inner.slots(owner, uses)).await
    }
    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        self.via("circuits", self.inner.circuits(owner, reports)).await
    }
    fn set_share(&self, alive: u32) {
        self.inner.set_share(alive);
    }
    // end of what is new
    async fn check(&self) -> Result<(), LimitsUnavailable> {
        self.via("check", self.inner.check()).await
    }
}
