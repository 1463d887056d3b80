//! What keeps the store in order: nothing here is urgent, and nothing here may crowd out what is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
};

macro_rules! jobs {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name {
            needs: Needs,
            settings: Arc<Settings>,
        }

        impl $name {
            pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>) -> Self {
                Self { needs: needs.clone(), settings: Arc::clone(settings) }
            }
        }
    )*};
}

jobs! {
    /// Cancels what waits for destinations that were deleted, then removes them.
    Sweep;
    /// Removes what belongs to tenants that are being deleted.
    SweepTenants;
    /// Disables destinations that have failed for too long.
    Disable;
    /// Makes partitions ahead of time.
    Partitions;
    /// Drops what is older than its retention.
    Retain;
}

#[async_trait]
impl Job for Sweep {
    const NAME: &'static str = "sweep";

    fn interval(&self) -> Duration {
        self.settings.sweep_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let swept = self.needs.schedule.sweep_deleted(self.settings.sweep_chunk).await?;
        Ok(if swept > 0 { Again::Now } else { Again::Later })
    }
}

#[async_trait]
impl Job for SweepTenants {
    const NAME: &'static str = "sweep_tenants";

    fn interval(&self) -> Duration {
        self.settings.sweep_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let swept = self.needs.schedule.sweep_tenants(self.settings.sweep_chunk).await?;
        // A large tenant takes long, and nobody waits for it.
        Ok(if swept > 0 { Again::After(self.settings.retain_pause) } else { Again::Later })
    }
}

#[async_trait]
impl Job for Disable {
    const NAME: &'static str = "disable";

    fn interval(&self) -> Duration {
        self.settings.disable_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let disabled = self.needs.schedule.disable_failing(self.settings.disable_chunk).await?;
        if disabled > 0 {
            tracing::warn!(destinations = disabled, "destinations disabled: nothing arrived there for too long");
        }
        Ok(if disabled >= self.settings.disable_chunk { Again::Now } else { Again::Later })
    }
}

#[async_trait]
impl Job for Partitions {
    const NAME: &'static str = "partitions";

    fn interval(&self) -> Duration {
        self.settings.partitions_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        self.needs.schedule.prepare_partitions(self.settings.partition_days).await?;
        Ok(Again::Later)
    }
}

#[async_trait]
impl Job for Retain {
    const NAME: &'static str = "retention";

    fn interval(&self) -> Duration {
        self.settings.retain_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let more = self.needs.schedule.retain(self.settings.retention).await?;
        Ok(if more { Again::After(self.settings.retain_pause) } else { Again::Later })
    }
}
