//! What cases are made of: ids, destinations, events, outcomes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use signalpost_core::{
    AttemptOutcome, DeadReason, DeliveryId, DeliveryState, Destination, DestinationId, DestinationSpec, Entropy, Event,
    EventId, EventMeta, Guarantee, Kept, OutboxId, TenantId, Timestamp, WaitReason,
};

use super::{DEADLINE, Database};
use crate::{
    Store,
    dispatch::{Attempt, DeliveryWrite, Next, Standing, Target, Written},
    ingest::{EventOutcome, IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
    manage::{Created, ReplayJob, ReplaySelection, ReplayState},
    schedule::{Due, DueDelivery, FeedBudget},
};

/// The tenant that is always there.
pub(super) const TENANT: TenantId = TenantId::DEFAULT;

/// A database and one handle on it.
pub(super) struct World {
    pub(super) database: Box<dyn Database>,
    pub(super) store: Arc<dyn Store>,
    seed: Seed,
    tenants: Mutex<Vec<TenantId>>,
}

/// Numbers that look random and are the same in every run.
#[derive(Debug, Default)]
struct Seed(AtomicU64);

impl Entropy for Seed {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            let step = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let mut z = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// An event that was committed, and its deliveries in the order of their destinations.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    pub(super) event: Arc<Event>,
    pub(super) targets: Vec<Target>,
    pub(super) outbox_id: OutboxId,
}

impl World {
    pub(super) async fn new(database: Box<dyn Database>) -> Self {
        let store = database.handle().await;
        Self { database, store, seed: Seed::default(), tenants: Mutex::new(vec![TENANT]) }
    }

    /// The store's time.
    pub(super) async fn now(&self) -> Timestamp {
        self.store.check().await.unwrap()
    }

    pub(super) fn entropy(&self) -> &dyn Entropy {
        &self.seed
    }

    /// All that there are.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One more tenant.
    pub(super) async fn tenant(&self, slug: &str) -> TenantId {
        let id = TenantId::new(self.now().await, &self.seed);
        self.database.add_tenant(id, slug).await;
        self.met(id);
        id
    }

    /// There is that tenant, too.
    pub(super) fn met(&self, tenant: TenantId) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).push(tenant);
    }

    /// A destination that is not stored yet.
    pub(super) async fn new_destination(&self, tenant: TenantId) -> Destination {
        let now = self.now().await;
        Destination::new(
            DestinationId::new(now, &self.seed),
            tenant,
            spec(),
            Kept::plain("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),
            now,
        )
    }

    /// Stores it.
    pub(super) async fn create(&self, destination: &Destination) {
        assert_eq!(self.store.create_destination(destination).await.unwrap(), Created::Yes);
    }

    /// A destination of the default tenant.
    pub(super) async fn destination(&self) -> Destination {
        self.destination_of(TENANT).await
    }

    pub(super) async fn destination_of(&self, tenant: TenantId) -> Destination {
        let destination = self.new_destination(tenant).await;
        self.create(&destination).await;
        destination
    }

    /// So many destinations of the default tenant, sorted by id.
    pub(super) async fn destinations(&self, count: usize) -> Vec<Destination> {
        let mut destinations = Vec::with_capacity(count);
        for _ in 0..count {
            destinations.push(self.destination().await);
        }
        destinations.sort_by_key(|destination| destination.id);
        destinations
    }

    /// An event that is not stored yet, accepted at that time.
    pub(super) fn event_at(&self, tenant: TenantId, at: Timestamp) -> Event {
        Event {
            id: EventId::new(at, &self.seed),
            tenant_id: tenant,
            event_type: "order.created".into(),
            uid: None,
            source: None,
            meta: EventMeta::default(),
            data: Bytes::from_static(b"{\"n\": 1.0}"),
        }
    }

    pub(super) async fn event(&self, tenant: TenantId) -> Event {
        self.event_at(tenant, self.now().await)
    }

    /// An event for these destinations, ready for a group.
    pub(super) fn new_event(&self, event: Event, to: &[DestinationId], start: Start) -> NewEvent {
        let at = event.id.created_at();
        let deliveries = to
            .iter()
            .map(|to| NewDelivery {
                id: DeliveryId::new(at, &self.seed),
                destination_id: *to,
                start,
                lane: None,
                guarantee: Guarantee::AtLeastOnce,
            })
            .collect();
        let answer = Bytes::from(format!("{{\"id\":\"{}\"}}", event.id));
        NewEvent { event: Arc::new(event), deliveries, fan_out: Vec::new(), uid: None, answer }
    }

    /// A unit that knows the present routing.
    pub(super) async fn unit(&self, tenant: TenantId, events: Vec<NewEvent>) -> IngestUnit {
        let routing_version = self.store.routes(tenant).await.unwrap().version;
        IngestUnit { tenant, routing_version, claim: None, events }
    }

    pub(super) async fn group(&self, units: Vec<IngestUnit>) -> IngestGroup {
        IngestGroup { units, outbox_id: OutboxId::new(self.now().await, &self.seed), published: Vec::new() }
    }

    /// Commits one event for destinations of one tenant.
    pub(super) async fn post_to(&self, to: &[&Destination], start: Start) -> Posted {
        let tenant = to.first().map_or(TENANT, |to| to.tenant_id);
        let event = self.event(tenant).await;
        self.post_event(event, to, start).await
    }

    /// Commits this event.
    pub(super) async fn post_event(&self, event: Event, to: &[&Destination], start: Start) -> Posted {
        let tenant = event.tenant_id;
        let ids: Vec<_> = to.iter().map(|to| to.id).collect();
        let new = self.new_event(event, &ids, start);
        let posted = targets(&new);
        let group = self.group(vec![self.unit(tenant, vec![new.clone()]).await]).await;
        let outcomes = self.store.ingest(&group).await.unwrap();
        assert_eq!(outcomes, [UnitOutcome::Committed(vec![EventOutcome::Accepted])]);
        Posted { event: new.event, targets: posted, outbox_id: group.outbox_id }
    }

    /// Commits one event for one destination, on its way by the bus.
    pub(super) async fn queued(&self, to: &Destination) -> Target {
        self.post_to(&[to], Start::Queued).await.targets[0]
    }

    /// Commits one event for one destination, waiting for its turn.
    pub(super) async fn waiting(&self, to: &Destination) -> Target {
        self.post_to(&[to], Start::Waiting(WaitReason::Turn)).await.targets[0]
    }

    /// How a delivery stands.
    pub(super) async fn standing(&self, delivery: DeliveryId) -> Standing {
        self.store.examine(&[delivery]).await.unwrap()[0].expect("the delivery is there")
    }

    pub(super) async fn state(&self, delivery: DeliveryId) -> DeliveryState {
        self.standing(delivery).await.state
    }

    /// Writes one thing.
    pub(super) async fn write(&self, write: DeliveryWrite) -> Written {
        let written = self.store.write(std::slice::from_ref(&write), false).await.unwrap().written;
        assert_eq!(written.len(), 1);
        written[0]
    }

    /// It arrives at its first attempt.
    pub(super) async fn deliver(&self, target: Target) {
        assert_eq!(self.write(delivered(target, 1)).await, Written::Done);
    }

    /// It dies at its first attempt.
    pub(super) async fn kill(&self, target: Target) {
        assert_eq!(self.write(died(target, 1, DeadReason::Rejected)).await, Written::Done);
    }

    /// Posts for one destination and lets it die.
    pub(super) async fn dead(&self, to: &Destination) -> Target {
        let target = self.queued(to).await;
        self.kill(target).await;
        target
    }

    /// Takes what is due, under a lease of a minute.
    pub(super) async fn take(&self, most: usize) -> Due {
        self.store.take_due(budget(most, most)).await.unwrap()
    }

    /// Takes until nothing more is due.
    pub(super) async fn take_all(&self) -> Vec<DueDelivery> {
        let mut all = Vec::new();
        loop {
            let due = self.take(1000).await;
            let more = due.more;
            all.extend(due.deliveries);
            if !more {
                return all;
            }
        }
    }

    /// Waits until a delivery is due, and takes it under a lease of a minute.
    pub(super) async fn take_eventually(&self, delivery: DeliveryId) -> DueDelivery {
        eventually("the delivery is due", async || {
            self.take(1000).await.deliveries.into_iter().find(|due| due.delivery_id == delivery)
        })
        .await
    }

    /// A job that is not stored yet.
    pub(super) async fn new_job(&self, tenant: TenantId, selection: ReplaySelection) -> ReplayJob {
        let now = self.now().await;
        ReplayJob {
            id: signalpost_core::ReplayId::new(now, &self.seed),
            tenant_id: tenant,
            selection,
            rate_per_second: None,
            state: ReplayState::Running,
            matched: None,
            replayed: 0,
            created_at: now,
            finished_at: None,
        }
    }

    /// Runs a job to its end, `most` at a time; the job as it is then.
    pub(super) async fn run_job(&self, job: &ReplayJob, most: usize) -> ReplayJob {
        self.store.create_replay(job).await.unwrap();
        let mut created = 0;
        loop {
            let (step, goes_on) = self.store.step_replay(job.id, most).await.unwrap();
            assert!(step <= most, "{step} of at most {most}");
            created += step as u64;
            if !goes_on {
                break;
            }
        }
        let job = self.store.replay(job.tenant_id, job.id).await.unwrap().unwrap();
        assert_eq!(job.state, ReplayState::Completed);
        assert!(job.finished_at.is_some());
        assert_eq!(job.replayed, created);
        job
    }
}

/// The deliveries of an event.
pub(super) fn targets(new: &NewEvent) -> Vec<Target> {
    let of = |delivery: &NewDelivery| Target {
        delivery_id: delivery.id,
        tenant_id: new.event.tenant_id,
        destination_id: delivery.destination_id,
        event_id: new.event.id,
        lease: None,
    };
    new.deliveries.iter().map(of).collect()
}

/// What a destination is by default.
pub(super) fn spec() -> DestinationSpec {
    serde_json::from_value(json!({"url": "https://example.com/hook", "event_types": ["*"]})).unwrap()
}

pub(super) fn budget(most: usize, per_destination: usize) -> FeedBudget {
    FeedBudget { most, per_destination, lease: Duration::from_secs(60) }
}

/// A request.
pub(super) fn attempt(number: u32, outcome: AttemptOutcome) -> Attempt {
    Attempt {
        number,
        started_at: Timestamp::from_micros(1_700_000_000_123_456),
        duration: Duration::from_micros(12_345),
        outcome,
        status_code: (outcome != AttemptOutcome::Interrupted).then_some(200),
        response_excerpt: Bytes::from_static(b"\x00\xffok"),
        error: None,
    }
}

pub(super) fn delivered(target: Target, number: u32) -> DeliveryWrite {
    DeliveryWrite::Attempt { target, attempt: attempt(number, AttemptOutcome::Delivered), next: Next::Delivered }
}

pub(super) fn failed(target: Target, number: u32, after: Duration) -> DeliveryWrite {
    DeliveryWrite::Attempt { target, attempt: attempt(number, AttemptOutcome::Retry), next: Next::Retry { after } }
}

pub(super) fn died(target: Target, number: u32, reason: DeadReason) -> DeliveryWrite {
    DeliveryWrite::Attempt { target, attempt: attempt(number, AttemptOutcome::Dead), next: Next::Dead { reason } }
}

pub(super) fn interrupted(target: Target, number: u32) -> DeliveryWrite {
    DeliveryWrite::Attempt {
        target,
        attempt: attempt(number, AttemptOutcome::Interrupted),
        next: Next::Retry { after: Duration::ZERO },
    }
}

pub(super) fn park(target: Target, reason: WaitReason, after: Duration, hold_queue: bool) -> DeliveryWrite {
    DeliveryWrite::Park { target, reason, after, hold_queue, claim: None }
}

pub(super) fn detach(target: Target, attempt: u32, deadline: Duration) -> DeliveryWrite {
    DeliveryWrite::Detach { target, attempt, deadline }
}

/// Waits until `probe` gives something.
pub(super) async fn eventually<T>(what: &str, probe: impl AsyncFn() -> Option<T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}
