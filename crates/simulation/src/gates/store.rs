//! The store as one life sees it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use signalpost_core::{CircuitRecord, DeliveryId, DestinationId, Timestamp};
use signalpost_store::{
    Changes, Store, StoreError,
    dispatch::{DeliveryWrite, WriteReport},
    ingest::{IngestGroup, IngestUnit, UnitOutcome},
    layers::StoreLayer,
    schedule::{Due, FeedBudget},
};
use tokio::{sync::watch, time::Instant};

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

    /// Notes leases that were given.
    fn leased(&self, leases: impl Iterator<Item = (DeliveryId, Timestamp)>) {
        self.life.world.ask(|checker| leases.for_each(|(delivery, mark)| checker.leased(delivery, mark)));
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

impl StoreLayer for GatedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn via<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.life.call(Port::Store, name, call).await
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

    async fn record_circuits(&self, records: &[(DestinationId, CircuitRecord)]) -> Result<(), StoreError> {
        let record = async {
            self.inner.record_circuits(records).await?;
            self.life.world.ask(|checker| checker.circuits_recorded(records, Instant::now()));
            Ok(())
        };
        self.via("record_circuits", record).await
    }

    async fn take_due(&self, budget: FeedBudget) -> Result<Due, StoreError> {
        let take = async {
            let due = self.inner.take_due(budget).await?;
            self.leased(due.deliveries.iter().map(|due| (due.delivery_id, due.leased_until)));
            Ok(due)
        };
        self.via("take_due", take).await
    }

    async fn take_over(&self, leases: &[(DeliveryId, Timestamp)]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        let take_over = async {
            let marks = self.inner.take_over(leases).await?;
            self.leased(leases.iter().zip(&marks).filter_map(|((delivery, _), mark)| Some((*delivery, (*mark)?))));
            Ok(marks)
        };
        self.via("take_over", take_over).await
    }

    async fn write(&self, batch: &[DeliveryWrite], hand_over: bool) -> Result<WriteReport, StoreError> {
        let (inner, batch, life) = (Arc::clone(&self.inner), batch.to_vec(), Arc::clone(&self.life));
        let write = async move {
            let report = inner.write(&batch, hand_over).await?;
            life.world.look(&life.name);
            life.world.check(|checker| checker.written(&batch, &report.written));
            life.world.ask(|checker| {
                report.followers.iter().for_each(|due| checker.leased(due.delivery_id, due.leased_until));
            });
            Ok(report)
        };
        self.life.send(Port::Store, "write", write).await
    }
}

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
