//! The limits themselves, with an ear on them: the checks hear the truth, whatever lies between them and a dispatcher.

use std::sync::Arc;

use signalpost_limits::{
    CircuitReport, CircuitView, Claim, Claimed, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};
use tokio::time::Instant;

use crate::world::World;

/// The limits, listened to.
#[derive(Debug)]
pub struct TappedLimits {
    world: Arc<World>,
    inner: Arc<dyn Limits>,
}

impl TappedLimits {
    /// Those of a run.
    pub fn new(world: &Arc<World>, inner: Arc<dyn Limits>) -> Self {
        Self { world: Arc::clone(world), inner }
    }
}

#[async_trait::async_trait]
impl Limits for TappedLimits {
    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
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
        self.inner.slots(owner, uses).await
    }
    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        let views = self.inner.circuits(owner, reports).await?;
        for (report, view) in reports.iter().zip(&views) {
            let (id, name) = (report.destination_id, self.world.name_of(report.destination_id));
            self.world
                .tell("limits", format_args!("the circuit of {name} is {:?} for {:?}", view.state, view.open_for));
            self.world.ask(|checker| checker.circuit_seen(id, view, Instant::now()));
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
