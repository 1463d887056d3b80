//! The store as one life sees it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signalpost_core::{
    CircuitRecord, DeliveryId, Destination, DestinationId, Event, EventId, ReplayId, TenantId, Timestamp,
};
use signalpost_store::{
    Changes, DispatchStore, Health, IngestStore, ManageStore, ReadStore, ScheduleStore, Store, StoreError,
    dispatch::{DeliveryWrite, QueueHold, Standing, WriteReport},
    ingest::{IngestGroup, IngestUnit, Routes, StoredAnswer, UnitOutcome},
    manage::{Begun, Cancelled, Created, DestinationUpdate, IdempotencyKey, ReplayJob, ReplaySelection, Retried},
    read::{
        AttemptFilter, AttemptView, DeadLetter, DeadLetterFilter, DeliveryFilter, DeliveryView, EventFilter, EventView,
        Page,
    },
    schedule::{Due, FeedBudget, OpenReplay, Retention, Sample},
};
use tokio::sync::watch;

use crate::life::{Life, Port};

/// The store, through a gate.
#[derive(Debug)]
pub struct GatedStore {
    life: Arc<Life>,
    inner: Arc<dyn Store>,
    changes: Mutex<Option<Changes>>,
}

impl GatedStore {
    /// For one life.
    pub fn new(life: &Arc<Life>, inner: Arc<dyn Store>) -> Self {
        Self { life: Arc::clone(life), inner, changes: Mutex::default() }
    }

    async fn via<T>(
        &self,
        name: &'static str,
        inner: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.life.call(Port::Store, name, inner).await
    }

    /// What tells changes to this life: late, and sometimes not at all.
    fn told(&self) -> Changes {
        let mut source = self.life.world.listen();
        let (told, changes) = watch::channel(0);
        let life = Arc::clone(&self.life);
        tokio::spawn(async move {
            while let Some(count) = source.recv().await
                && !life.dead.is_cancelled()
            {
                let (late, lost) = life.draw(|rng| (rng.millis(0, 20), rng.chance(0.1)));
                tokio::time::sleep(late).await;
                if !lost && life.refusal(Port::Store).is_none() {
                    told.send_replace(count);
                }
            }
        });
        changes
    }
}

hand_on_people!(GatedStore);

hand_on! { IngestStore for GatedStore {
    routes(tenant: TenantId) -> Routes;
    spilled() -> Vec<DestinationId>;
}
    async fn ingest(&self, group: &IngestGroup) -> Result<Vec<UnitOutcome>, StoreError> {
        let (inner, group, life) = (Arc::clone(&self.inner), copied(group), Arc::clone(&self.life));
        let ingest = async move {
            let outcomes = inner.ingest(&group).await;
            life.world.look(&life.name);
            outcomes
        };
        self.life.send(Port::Store, "ingest", ingest).await
    }

    fn changes(&self) -> Changes {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.get_or_insert_with(|| self.told()).clone()
    }
}

hand_on! { DispatchStore for GatedStore {
    destinations(ids: &[DestinationId]) -> Vec<Destination>;
    changed_since(since: Option<Timestamp>) -> (Vec<Destination>, Timestamp);
    examine(ids: &[DeliveryId]) -> Vec<Option<Standing>>;
    events(ids: &[EventId]) -> Vec<Arc<Event>>;
    heartbeat(dispatcher: u64) -> u32;
    take_over(leases: &[(DeliveryId, Timestamp)]) -> Vec<bool>;
    farewell(dispatcher: u64) -> ();
    hold_queues(holds: &[QueueHold]) -> ();
    record_circuits(records: &[(DestinationId, CircuitRecord)]) -> ();
    disable_destination(tenant: TenantId, id: DestinationId, reason: &str) -> ();
}
    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        let (inner, batch, life) = (Arc::clone(&self.inner), batch.to_vec(), Arc::clone(&self.life));
        let write = async move {
            let report = inner.write(&batch, hand_over).await?;
            life.world.look(&life.name);
            life.world.check(|checker| checker.written(&batch, &report.written));
            Ok(report)
        };
        self.life.send(Port::Store, "write", write).await
    }
}

hand_on! { ScheduleStore for GatedStore {
    relay(older_than: Duration, most_records: usize) -> usize;
    take_due(budget: FeedBudget) -> Due;
    give_back(deliveries: &[(DeliveryId, Timestamp)]) -> ();
    requeue_lost(until: Timestamp, most: usize) -> (usize, bool);
    expand_fan_outs(most: usize) -> usize;
    open_replays() -> Vec<OpenReplay>;
    step_replay(id: ReplayId, most: usize) -> (usize, bool);
    sweep_deleted(most: usize) -> usize;
    disable_failing(most: usize) -> usize;
    prepare_partitions(days_ahead: u32) -> ();
    retain(retention: Retention) -> bool;
    sample() -> Sample;
}}

/// The same group once more.
pub fn copied(group: &IngestGroup) -> IngestGroup {
    let unit = |unit: &IngestUnit| IngestUnit {
        tenant: unit.tenant,
        routing_version: unit.routing_version,
        claim: unit.claim.clone(),
        events: unit.events.clone(),
    };
    IngestGroup {
        units: group.units.iter().map(unit).collect(),
        outbox_id: group.outbox_id,
        published: group.published.clone(),
    }
}
