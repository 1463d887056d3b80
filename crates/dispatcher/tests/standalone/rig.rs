//! One dispatcher that can be started and stopped again, and a feed beside it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use signalpost_bus::{Bus as _, Message, Origin, Payload};
use signalpost_bus_local::{Capacity, LocalBus};
use signalpost_core::{
    AttemptOutcome, CircuitPolicy, Clock as _, DeadReason, DeliveryId, Destination, DestinationId, DestinationSpec,
    Event, EventId, EventMeta, Guarantee, Kept, OutboxId, TenantId, WaitReason,
    destination::{BodyFormat, DisableAfter, Method, default_max_in_flight},
    ordering::{LaneKeys, Ordering},
    pattern::EventPattern,
    retry_policy::RetryPolicy,
};
use signalpost_dispatcher::{DispatcherError, Ports, Settings, run};
use signalpost_limits::local::LocalLimits;
use signalpost_receiver::{Receiver, ReceiverSettings};
use signalpost_runtime::{Shutdown, SystemClock, SystemEntropy};
use signalpost_sender::{EgressPolicy, Sender, SenderSettings};
use signalpost_store::{
    DispatchStore as _, IngestStore as _, ManageStore as _, ReadStore as _, ScheduleStore as _,
    dispatch::{Attempt, DeliveryWrite, Next, Target},
    ingest::{IngestGroup, IngestUnit, NewDelivery, NewEvent, Start, UnitOutcome},
    read::{AttemptFilter, DeadLetter, DeadLetterFilter, DeliveryView, Page},
    schedule::{DueDelivery, FeedBudget},
};
use signalpost_store_sqlite::SqliteStore;
use signalpost_vault::KeyRing;
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

pub(crate) const TENANT: TenantId = TenantId::DEFAULT;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) struct Rig {
    pub store: SqliteStore,
    pub receiver: Receiver,
    pub settings: Settings,
    bus: LocalBus,
    limits: Arc<LocalLimits>,
    clock: Arc<SystemClock>,
    running: Option<(Shutdown, JoinHandle<Result<(), DispatcherError>>)>,
    feed: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::new());
        let store = SqliteStore::open(folder.path(), Arc::clone(&clock) as _, Arc::new(SystemEntropy)).unwrap();
        let bus = LocalBus::new(&*clock, Capacity::default());
        let settings =
            ReceiverSettings { secret: Some(SECRET.to_owned()), keep: 10_000, ..ReceiverSettings::default() };
        Self {
            receiver: Receiver::start(settings).await.unwrap(),
            settings: Settings::default(),
            limits: Arc::new(LocalLimits::new(Arc::clone(&clock) as _)),
            running: None,
            feed: tokio::spawn(feed(store.clone(), bus.clone())),
            store,
            bus,
            clock,
            _folder: folder,
        }
    }

    /// Creates a destination at that path of the receiver.
    pub(crate) async fn destination(&self, path: &str, set: impl FnOnce(&mut DestinationSpec)) -> DestinationId {
        let now = self.clock.now();
        let mut spec = DestinationSpec {
            name: path.to_owned(),
            description: None,
            url: self.receiver.url(path),
            event_types: vec![EventPattern::everything()],
            method: Method::Post,
            header_names: std::collections::BTreeSet::new(),
            signatures: signalpost_core::signature::default_signatures(),
            body_format: BodyFormat::Standard,
            timeout_ms: 15_000,
            rate_limit: None,
            max_in_flight: default_max_in_flight(),
            retry: RetryPolicy::default(),
            circuit: CircuitPolicy::default(),
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::default(),
            disable_after: DisableAfter::default(),
            metadata: BTreeMap::new(),
        };
        set(&mut spec);
        let destination =
            Destination::new(DestinationId::new(now, &SystemEntropy), TENANT, spec, Kept::plain(SECRET), now);
        self.store.create_destination(&destination).await.unwrap();
        destination.id
    }

    /// Starts the dispatcher.
    pub(crate) fn start(&mut self) {
        let egress = EgressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..EgressPolicy::public_only() };
        let vault = Arc::new(KeyRing::parse("test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap());
        let clock = Arc::clone(&self.clock) as _;
        let sender = Sender::new(SenderSettings::new(egress, clock, Arc::new(SystemEntropy), vault));
        let ports = Ports {
            store: Arc::new(self.store.clone()),
            bus: Arc::new(self.bus.clone()),
            limits: Arc::clone(&self.limits) as _,
            exchanger: Arc::new(sender.unwrap()),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::new(SystemEntropy),
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(ports, self.settings.clone(), shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    /// Stops it the friendly way.
    pub(crate) async fn drain(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.drain();
        task.await.unwrap().unwrap();
    }

    /// Stops it at once, as a death does.
    pub(crate) async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.stop();
        task.await.unwrap().unwrap();
    }

    /// Accepts events for a destination, as the API does: one group, then the bus.
    pub(crate) async fn accept(&self, destination: DestinationId, count: usize) -> Vec<DeliveryId> {
        self.accept_in_lanes(destination, count, 1).await
    }

    /// As above; the events have so many ordering keys in turn.
    pub(crate) async fn accept_in_lanes(
        &self,
        destination: DestinationId,
        count: usize,
        keys: usize,
    ) -> Vec<DeliveryId> {
        let routes = self.store.routes(TENANT).await.unwrap();
        let version = routes.routes.iter().find(|route| route.destination_id == destination).unwrap();
        let mut events = Vec::new();
        let mut messages = Vec::new();
        let mut ids = Vec::new();
        for number in 0..count {
            let now = self.clock.now();
            let event = Arc::new(Event {
                id: EventId::new(now, &SystemEntropy),
                tenant_id: TENANT,
                event_type: "order.created".into(),
                uid: None,
                source: None,
                meta: EventMeta { ordering_key: Some(format!("{}", number % keys)), ..EventMeta::default() },
                data: Bytes::from(format!("{{\"number\":{number}}}")),
            });
            let lane = LaneKeys::new(&event).lane(&version.ordering);
            let guarantee = version.guarantee;
            let id = DeliveryId::new(event.created_at(), &SystemEntropy);
            events.push(NewEvent {
                event: Arc::clone(&event),
                deliveries: vec![NewDelivery {
                    id,
                    destination_id: destination,
                    start: Start::Queued,
                    lane,
                    guarantee,
                }],
                fan_out: Vec::new(),
                uid: None,
                answer: Bytes::new(),
            });
            ids.push(id);
            if lane.is_some() {
                // The feed brings it.
                continue;
            }
            messages.push(Arc::new(Message {
                delivery_id: id,
                tenant_id: TENANT,
                destination_id: destination,
                destination_version: version.destination_version,
                attempt: 1,
                origin: Origin::Fresh,
                event,
                payload: Payload::Inline,
                lane,
                guarantee,
                born_at: None,
            }));
        }
        let outbox_id = OutboxId::new(self.clock.now(), &SystemEntropy);
        let unit = IngestUnit { tenant: TENANT, routing_version: routes.version, claim: None, events };
        let outcome =
            self.store.ingest(&IngestGroup { units: vec![unit], outbox_id, published: Vec::new() }).await.unwrap();
        assert!(matches!(outcome[..], [UnitOutcome::Committed(_)]), "{outcome:?}");
        self.bus.publish(messages).await.unwrap();
        // The bus has acknowledged: the record goes, so that no relay repeats it.
        let none = IngestGroup {
            units: Vec::new(),
            outbox_id: OutboxId::new(self.clock.now(), &SystemEntropy),
            published: vec![outbox_id],
        };
        self.store.ingest(&none).await.unwrap();
        ids
    }

    /// The number of the event in a body.
    pub(crate) fn number(body: &[u8]) -> usize {
        let text = String::from_utf8_lossy(body);
        let (_, after) = text.split_once("\"number\":").unwrap();
        after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    pub(crate) async fn get_destination(&self, id: DestinationId) -> Destination {
        self.store.destination(TENANT, id).await.unwrap().unwrap()
    }

    pub(crate) async fn delivery(&self, id: DeliveryId) -> DeliveryView {
        self.store.delivery(TENANT, id).await.unwrap().unwrap()
    }

    pub(crate) async fn attempts(&self, id: DeliveryId) -> Vec<Attempt> {
        let filter = AttemptFilter { delivery_id: Some(id), ..AttemptFilter::default() };
        let page = Page { limit: 100, after: None, descending: false };
        let attempts = self.store.list_attempts(TENANT, &filter, page).await.unwrap();
        attempts.into_iter().map(|view| view.attempt).collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let page = Page { limit: 100, after: None, descending: false };
        self.store.list_dead_letters(TENANT, &DeadLetterFilter::default(), page, true).await.unwrap()
    }

    /// Waits for a condition, for a minute.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + secs(60);
        while !condition(self).await {
            assert!(Instant::now() < deadline, "never: {what}; the receiver has {:?}", self.receiver.stats());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all of them have ended.
    pub(crate) async fn until_ended(&self, deliveries: &[DeliveryId]) {
        self.until("all ended", async |rig| {
            let standings = rig.store.examine(deliveries).await.unwrap();
            standings.iter().all(|standing| standing.is_some_and(|standing| standing.state.is_final()))
        })
        .await;
    }
}

/// What retry does with what is due, in short.
async fn feed(store: SqliteStore, bus: LocalBus) {
    let budget = FeedBudget { most: 1000, per_destination: 200, lease: secs(60) };
    loop {
        let due = store.take_due(budget).await.unwrap();
        let (lost, due): (Vec<_>, Vec<_>) =
            due.deliveries.into_iter().partition(|due| due.reason == WaitReason::InFlight);
        store.write(&lost.iter().map(interrupted).collect::<Vec<_>>(), false).await.unwrap();
        bus.publish(due.into_iter().map(|due| Arc::new(due.into())).collect()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
}

fn interrupted(due: &DueDelivery) -> DeliveryWrite {
    DeliveryWrite::Attempt {
        target: Target {
            delivery_id: due.delivery_id,
            tenant_id: due.tenant_id,
            destination_id: due.destination_id,
            event_id: due.event.id,
            lease: None,
        },
        attempt: Attempt {
            number: due.attempts + 1,
            started_at: due.leased_until,
            duration: Duration::ZERO,
            outcome: AttemptOutcome::Interrupted,
            status_code: None,
            response_excerpt: Bytes::new(),
            error: None,
        },
        next: match due.guarantee {
            Guarantee::AtLeastOnce => Next::Retry { after: Duration::ZERO },
            Guarantee::AtMostOnce => Next::Dead { reason: DeadReason::UnknownOutcome },
        },
    }
}
