//! Events for more destinations than one transaction holds: their deliveries are created here, in chunks.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
use signalpost_telemetry::names;
use tokio::sync::Notify;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
};

pub(crate) struct FanOuts {
    needs: Needs,
    settings: Arc<Settings>,
    due: Arc<Notify>,
}

impl FanOuts {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due) }
    }
}

#[async_trait]
impl Job for FanOuts {
    const NAME: &'static str = "fan_outs";

    fn interval(&self) -> Duration {
        self.settings.fan_out_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let created = self.needs.schedule.expand_fan_outs(self.settings.fan_out_chunk).await?;
        if created == 0 {
            return Ok(Again::Later);
        }
        counter!(names::DELIVERIES_ROUTED).increment(created as u64);
        self.due.notify_one();
        Ok(Again::Now)
    }
}
