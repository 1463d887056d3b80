//! Retry's part: everything that time drives.

mod fan_out;
mod feed;
mod feed_statements;
mod reconcile;
mod relay;
pub(crate) mod replays;
mod retain;
mod sample;
mod shares;
mod sweep;
mod sweep_tenants;

use async_trait::async_trait;
use signalpost_core::{DeliveryId, ReplayId, Timestamp};
use signalpost_store::{
    ScheduleStore, StoreError,
    schedule::{Due, FeedBudget, OpenReplay, Retention, Sample},
};
use std::time::Duration;

use crate::{
    PostgresStore,
    error::Failure,
    failing, partitions,
    transaction::{read, transact},
};

/// Finding what a replay job matches may take longer than other work.
const REPLAY_TIME: Duration = Duration::from_secs(60);

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn relay(&self, older_than: Duration, most_records: usize) -> Result<usize, StoreError> {
        let mut records = 0;
        loop {
            let left = most_records - records;
            let taken = transact!(self, |transaction| relay::relay(transaction, older_than, left))?;
            records += taken.records;
            if !taken.is_cut {
                return Ok(records);
            }
        }
    }

    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError> {
        let idle = read!(self, main, |connection| feed::idle(connection))?;
        if let Some(idle) = idle {
            return Ok(idle);
        }
        let inline = self.settings.inline_bytes;
        Ok(transact!(self, |transaction| feed::take_due(transaction, budget, inline))?)
    }

    async fn give_back(&self, deliveries: &[(DeliveryId, Timestamp)]) -> Result<(), StoreError> {
        Ok(transact!(self, |transaction| feed::give_back(transaction, deliveries))?)
    }

    async fn requeue_lost(&self, until: Timestamp, most: usize) -> Result<(usize, bool), StoreError> {
        Ok(transact!(self, |transaction| reconcile::requeue_lost(transaction, until, most))?)
    }

    async fn expand_fan_outs(&self, most: usize) -> Result<usize, StoreError> {
        let entropy = &*self.entropy;
        Ok(transact!(self, |transaction| fan_out::expand(transaction, most, entropy))?)
    }

    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
        Ok(read!(self, main, |connection| replays::open(connection))?)
    }

    async fn step_replay(&self, id: ReplayId, most: usize) -> Result<(usize, bool), StoreError> {
        let entropy = &*self.entropy;
        match transact!(self, REPLAY_TIME, |transaction| replays::step(transaction, id, most, entropy)) {
            Err(Failure::Overtaken) => Ok((0, false)),
            stepped => Ok(stepped?),
        }
    }

    async fn sweep_deleted(&self, most: usize) -> Result<usize, StoreError> {
        let cancelled = transact!(self, |transaction| sweep::cancel(transaction, most))?;
        let removed = transact!(self, |transaction| sweep::remove(transaction, most))?;
        Ok(cancelled + removed)
    }

    async fn sweep_tenants(&self, most: usize) -> Result<usize, StoreError> {
        sweep_tenants::sweep(self, most).await
    }

    async fn disable_failing(&self, most: usize) -> Result<usize, StoreError> {
        let mut disabled = 0;
        for (tenant, id) in read!(self, main, |connection| failing::candidates(connection, most))? {
            disabled += usize::from(transact!(self, |transaction| failing::disable(transaction, tenant, id))?);
        }
        Ok(disabled)
    }

    async fn prepare_partitions(&self, days_ahead: u32) -> Result<(), StoreError> {
        Ok(read!(self, main, |connection| partitions::prepare(connection, days_ahead))?)
    }

    async fn retain(&self, retention: Retention) -> Result<bool, StoreError> {
        retain::retain(self, retention).await
    }

    async fn sample(&self) -> Result<Sample, StoreError> {
        Ok(read!(self, reads, |connection| sample::sample(connection))?)
    }
}
