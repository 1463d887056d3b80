//! The gauges: how much waits, and for how long. Sampled, never counted.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::gauge;
use signalpost_store::schedule::Sample;
use signalpost_telemetry::names;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
    room::lag,
};

pub(crate) struct Gauges {
    needs: Needs,
    settings: Arc<Settings>,
}

impl Gauges {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>) -> Self {
        Self { needs: needs.clone(), settings: Arc::clone(settings) }
    }
}

#[async_trait]
impl Job for Gauges {
    const NAME: &'static str = "gauges";

    fn interval(&self) -> Duration {
        self.settings.sample_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        // The bus first: it answers for itself, whether or not the store does.
        if let Some(lag) = lag(self.needs.bus.as_ref()).await {
            set(names::CONSUMER_LAG, lag);
        }
        show(&self.needs.schedule.sample().await?);
        Ok(Again::Later)
    }
}

fn show(sample: &Sample) {
    set(names::PENDING, sample.waiting);
    set(names::DEAD_LETTERS, sample.dead_letters);
    set(names::QUEUES, sample.queues);
    set(names::QUEUES_SPILLED, sample.spilled);
    gauge!(names::OUTBOX_AGE_SECONDS).set(sample.outbox_age.as_secs_f64());
    gauge!(names::OLDEST_DUE_SECONDS).set(sample.oldest_due.as_secs_f64());
    if let Some((destination, depth)) = sample.deepest.first() {
        tracing::debug!(
            destination.id = %destination,
            depth,
            waiting = sample.waiting,
            queues = sample.queues,
            "the deepest queue"
        );
    }
}

fn set(name: &'static str, value: u64) {
    #[allow(clippy::cast_precision_loss, reason = "a gauge of Prometheus is an f64")]
    gauge!(name).set(value as f64);
}
