//! The limits as one life sees them.

use std::{future::Future, sync::Arc};

use signalpost_limits::{CircuitReport, CircuitView, Limits, LimitsUnavailable, Owner};

use super::LimitsLayer;
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
}

impl LimitsLayer for GatedLimits {
    fn inner(&self) -> &dyn Limits {
        &*self.inner
    }

    async fn via<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, LimitsUnavailable>> + Send,
    ) -> Result<T, LimitsUnavailable> {
        self.life.call(Port::Limits, name, call).await
    }

    async fn circuits(&self, owner: Owner, reports: &[CircuitReport]) -> Result<Vec<CircuitView>, LimitsUnavailable> {
        let (life, world) = (&self.life, &self.life.world);
        world.ask(|checker| checker.owner_is(owner, &life.name));
        let views = self.via("circuits", self.inner.circuits(owner, reports)).await;
        world.ask(|checker| {
            checker.circuits_asked(&life.name, reports.iter().map(|report| report.destination_id), views.is_ok())
        });
        views
    }
}
