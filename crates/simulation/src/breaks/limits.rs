//! Limits that lie.

use std::{sync::Arc, time::Duration};

use signalpost_core::CircuitState;
use signalpost_limits::{
    CircuitReport, CircuitView, Limits, LimitsUnavailable, Owner, SlotUse, TokenGrant, TokenRequest,
};

use super::Lie;
use crate::gates::LimitsLayer;

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

impl LimitsLayer for LyingLimits {
    fn inner(&self) -> &dyn Limits {
        &*self.inner
    }

    async fn take_tokens(&self, requests: &[TokenRequest]) -> Result<Vec<TokenGrant>, LimitsUnavailable> {
        if self.lie == Lie::SendsPastTheLimit {
            let all = |request: &TokenRequest| TokenGrant::ready(request.wanted);
            return Ok(requests.iter().map(all).collect());
        }
        self.inner.take_tokens(requests).await
    }

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
}
