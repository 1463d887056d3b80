//! The limits as one life sees them.

use std::{future::Future, sync::Arc};

use signalpost_limits::{Limits, LimitsUnavailable};

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
}
