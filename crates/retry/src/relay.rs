//! The relay takes over outbox records that the API left behind: it died, or the bus was away.
//!
//! It takes them by age, and does not publish: their deliveries are anchored in the store, and the feed brings them
//! to the bus.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::counter;
use signalpost_telemetry::names;
use tokio::sync::Notify;

use crate::{
    Needs, Settings,
    job::{Again, Job, JobError},
};

/// How much older than this process a record must be to be told from the first ones of this process's own API: between
/// asking for the time and taking the records, time passes. What is younger has been taken by [`crate::recover`], or waits
/// for its usual age.
const TELLING_APART: Duration = Duration::from_millis(100);

/// How many records are taken at first. A record may hold thousands of deliveries: what the store can do is found out.
const FIRST: usize = 16;

/// A transaction that took longer was too large.
const LONG: Duration = Duration::from_secs(1);

pub(crate) struct Relay {
    needs: Needs,
    settings: Arc<Settings>,
    due: Arc<Notify>,
    /// How many records are taken at once: twice as many as the last time where that was quick, half as many where it was
    /// not. Too many would fail for ever, each time for running out of time.
    most: usize,
    /// With a bus in memory: the records of the process before this one are still to be taken, whatever their age.
    orphans: bool,
}

impl Relay {
    pub(crate) fn new(needs: &Needs, settings: &Arc<Settings>, due: &Arc<Notify>) -> Self {
        let orphans = settings.bus_is_memory;
        let most = FIRST.min(settings.relay_records);
        Self { needs: needs.clone(), settings: Arc::clone(settings), due: Arc::clone(due), most, orphans }
    }

    /// From which age a record is ours.
    async fn older_than(&self) -> Result<Duration, JobError> {
        let usual = self.settings.relay_older_than;
        if !self.orphans {
            return Ok(usual);
        }
        // Older than this process, so its owner is dead.
        let started = self.needs.bus.consumed_until().await;
        let now = self.needs.health.check().await?;
        Ok(started.map_or(usual, |started| (now.since(started) + TELLING_APART).min(usual)))
    }
}

#[async_trait]
impl Job for Relay {
    const NAME: &'static str = "relay";

    fn interval(&self) -> Duration {
        self.settings.relay_every
    }

    async fn step(&mut self) -> Result<Again, JobError> {
        let most = self.most;
        let older_than = self.older_than().await?;
        let began = self.needs.clock.elapsed();
        let taken = self.needs.schedule.relay(older_than, most).await;
        let was_long = self.needs.clock.elapsed().saturating_sub(began) > LONG;
        self.most =
            if taken.is_err() || was_long { (most / 2).max(1) } else { (most * 2).min(self.settings.relay_records) };
        let taken = taken?;
        if taken > 0 {
            tracing::info!(records = taken, "outbox records taken over");
            counter!(names::RELAYED).increment(taken as u64);
            self.due.notify_one();
        }
        if taken >= most {
            return Ok(Again::Now);
        }
        self.orphans = false;
        Ok(Again::Later)
    }
}
