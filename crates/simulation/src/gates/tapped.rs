//! The limits themselves, with an ear on them: the checks hear the truth, whatever lies between them and a dispatcher.

use std::sync::Arc;

use signalpost_limits::{CircuitReport, CircuitView, Limits, LimitsUnavailable, Owner};
use tokio::time::Instant;

use super::LimitsLayer;
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

impl LimitsLayer for TappedLimits {
    fn inner(&self) -> &dyn Limits {
        &*self.inner
    }

    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        let views = self.inner.circuits(owner, reports).await?;
        for (report, view) in reports.iter().zip(&views) {
            let (id, name) = (report.destination_id, self.world.name_of(report.destination_id));
            self.world
                .tell("limits", format_args!("the circuit of {name} is {:?} for {:?}", view.state, view.open_for));
            self.world.ask(|checker| checker.circuit_seen(owner, id, view, Instant::now()));
        }
        Ok(views)
    }
}
