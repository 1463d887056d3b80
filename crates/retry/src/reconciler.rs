//! The reconciler anchors what is still queued although the bus has moved past it: the bus has lost it.
//!
//! It never looks at what may still be on the bus, and stands still while the bus does not know how far it is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
use signalpost_telemetry::names;
use tokio::sync::Notify;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
};

pub(crate) struct Reconciler {
    needs: Needs,
    settings: Arc<Settings>,
    due: Arc<Notify>,
    /// With a bus in memory: all that was lost with the process before this one is found, and nothing is ever lost again. A clock
    /// that goes back would make what is on the bus look lost.
    done: bool,
}

impl Reconciler {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due), done: false }
    }
}

#[async_trait]
impl Job for Reconciler {
    const NAME: &'static str = "reconciler";

    fn interval(&self) -> Duration {
        self.settings.reconcile_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        if self.done {
            return Ok(Again::Later);
        }
        let Some(consumed) = self.needs.bus.consumed_until().await else {
            tracing::debug!("the bus does not know how far it is; nothing is reconciled");
            return Ok(Again::Later);
        };
        // Acceptance is a time of the store; a bus whose clock is ahead must not let us run ahead of it.
        let until = consumed.min(self.needs.health.check().await?) - self.settings.reconcile_margin;
        let (found, end) = self.needs.schedule.requeue_lost(until, self.settings.reconcile_chunk).await?;
        if found > 0 {
            tracing::info!(deliveries = found, %until, "deliveries that the bus had lost are anchored again");
            counter!(names::REQUEUED).increment(found as u64);
            self.due.notify_one();
        }
        self.done = end && self.settings.bus_is_memory;
        Ok(if end { Again::Later } else { Again::Now })
    }
}
